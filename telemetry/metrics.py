"""What Prometheus may count: the metrics of one process, and the port of their own that they are read from.

No label names a tenant, a member or anything a client wrote: each holds one of a few words of ours.
"""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from functools import partial
from typing import Any

import structlog
import uvicorn
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

KEPT = 5.0  # seconds that what was asked of the database is shown again
_PATIENCE = 2.0  # seconds for asking
_MOST_WORDS = 100
_PORTS = 16
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_LONG = (0.1, 0.5, 1, 5, 10, 30, 60, 300, 1800, 7200)
_STATEMENTS = ("enter", "statement", "commit")
_PARTS = {"resolvers": "execute", "keys": "keys", "open": "open", "record": "record", "prepare": "prepare"}
_log = structlog.get_logger()
Probe = Callable[[], Awaitable[None]]
disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series beside each, which tells when it began


class Metrics:
    """Of one Api or Worker; several may live in a process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._codes, self._kinds = _Words(), _Words()
        self._requests = self._counter("requests", "Operations by kind and outcome.", "kind", "outcome")
        self._seconds = self._histogram("request_seconds", "From the first byte to the answer.", _SECONDS, "kind")
        self._parts = self._counter("request_part_seconds", "Where requests spend their time.", "part")
        self._values = self._counter("disclosed_values", "Personal values that left, as recorded.", "level")
        self._groups = self._histogram("recorder_group_size", "Entries of one commit.", (1, 2, 5, 10, 25, 50, 100, 500))
        self._groups_seconds = self._histogram("recorder_seconds", "How long one commit took.", _SECONDS)
        self._job_seconds = self._histogram("job_seconds", "From lease to settlement.", _LONG, "kind", "outcome")
        self._jobs = self.gauge("jobs", "Jobs that have not ended, and parked ones.", "kind", "state")
        self._readings: dict[str, _Reading] = {}
        self._probes: dict[str, Probe] = {}
        self._is_whole = self.gauge("probes_up", "0: what was asked of the database is from an earlier scrape.")
        self._asked_at = -KEPT
        self._turn = asyncio.Lock()

    def request(self, kind: str, codes: Sequence[str], seconds: float, parts: Mapping[str, float]) -> None:
        """`codes` are those of its errors, none where it went well; `parts` are seconds by stop."""
        self._requests.labels(kind, self._codes.of(codes[0]) if codes else "OK").inc()
        if kind != "subscription":  # that lasts as long as somebody listens
            self._seconds.labels(kind).observe(seconds)
        database = sum(parts.get(stop, 0.0) for stop in _STATEMENTS)
        self._parts.labels("database").inc(database)
        for part, stop in _PARTS.items():
            self._parts.labels(part).inc(parts.get(stop, 0.0))

    def recorded(self, details: Sequence[Mapping[str, Any]], seconds: float) -> None:
        """One commit of the recorder: the counts of each of its entries."""
        self._groups.observe(len(details))
        self._groups_seconds.observe(seconds)
        for level in ("plain", "masked"):
            self._values.labels(level).inc(sum(int(each.get(level, 0)) for each in details))

    def job(self, kind: str, outcome: str, seconds: float) -> None:
        self._job_seconds.labels(self._kinds.of(kind), self._codes.of(outcome)).observe(seconds)

    def gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        return Gauge(f"coffer_{name}", meaning, labels, registry=self.registry)

    def watch(self, name: str, meaning: str, read: Callable[[], float], *, grows: bool = False) -> None:
        """A number that is read whenever somebody asks; what is watched twice under one name is added up."""
        if name not in self._readings:
            self._readings[name] = _Reading(f"coffer_{name}", meaning, grows)
            self.registry.register(self._readings[name])
        self._readings[name].read.append(read)

    def watch_keys(self, cache: Any) -> None:
        """`cache` counts on its own: crypto knows no metrics."""
        self.watch("keyrings_open", "Tenants whose keys are in memory.", lambda: len(cache))
        for name in ("hits", "misses", "loads"):
            meaning = f"{name.capitalize()} of the key cache."
            self.watch(f"keyring_{name}", meaning, partial(getattr, cache, name), grows=True)

    def watch_copies(self, owed: Callable[[], int]) -> None:
        self.watch("audit_copies_owed", "Checkpoints that the audit log's second place has not taken yet.", owed)

    def watch_broker(self, is_away: Callable[[], bool]) -> None:
        self.watch("broker_up", "0: the broker did not take our last message.", lambda: not is_away())

    def watch_jobs(self, count: Callable[[], Awaitable[Mapping[tuple[str, str], int]]]) -> None:
        """`count` asks the database, by kind and state; done before a scrape, at most every few seconds."""

        async def probe() -> None:
            counts = await count()
            self._jobs.clear()
            for (kind, state), number in counts.items():
                self._jobs.labels(self._kinds.of(kind), state).set(number)

        self._probes["jobs"] = probe  # a worker beside the API would count the same jobs

    def watch_backups(self, ask: Callable[[], Awaitable[tuple[float, Mapping[str, int]]]] | None) -> None:
        """`ask` asks the database for the age of the backup that is most overdue, and for counts by state."""
        if ask is None:
            return
        age = self.gauge("backup_age_seconds", "Since the last verified backup, of the tenant that waits longest.")
        backups = self.gauge(
            "backups", "Backups that lie on stores, by state; DAMAGED ones are counted twice.", "state"
        )

        async def probe() -> None:
            seconds, counts = await ask()
            age.set(seconds)
            backups.clear()
            for state, number in counts.items():
                backups.labels(state).set(number)

        self._probes["backups"] = probe

    def watch_drills(self, ask: Callable[[], Awaitable[tuple[float, Mapping[str, int]]]] | None) -> None:
        """As `watch_backups`, of restores on trial; counts by how the last one of each backup ended."""
        if ask is None:
            return
        age = self.gauge("drill_age_seconds", "Since the last good drill, of the tenant that waits longest.")
        drills = self.gauge("drilled_backups", "Backups that were restored on trial, by how that ended.", "outcome")

        async def probe() -> None:
            seconds, counts = await ask()
            age.set(seconds)
            drills.clear()
            for outcome, number in counts.items():
                drills.labels(self._codes.of(outcome)).set(number)

        self._probes["drills"] = probe

    def watch_stores(self, asks: Sequence[Callable[[], Awaitable[bool]]]) -> None:
        """Each asks one store of backups, in the order of the settings, whether it answers."""
        if not asks:
            return
        up = self.gauge("backup_store_up", "0: this store, counted from 0 as in the settings, is away.", "store")

        async def probe() -> None:
            for number, is_up in enumerate(await asyncio.gather(*(ask() for ask in asks))):
                up.labels(str(number)).set(is_up)

        self._probes["stores"] = probe

    async def scrape(self) -> bytes:
        async with self._turn:
            if time.monotonic() - self._asked_at >= KEPT:
                self._is_whole.set(await self._ask())
                self._asked_at = time.monotonic()
        return generate_latest(self.registry)

    async def _ask(self) -> bool:
        try:
            async with asyncio.timeout(_PATIENCE):
                for probe in self._probes.values():
                    await probe()
        except Exception as error:  # an edge: whatever is away, the rest is shown
            _log.warning("probe failed", error=getattr(error, "code", type(error).__name__))
            return False
        return True

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"coffer_{name}", meaning, labels, registry=self.registry)

    def _histogram(self, name: str, meaning: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(f"coffer_{name}", meaning, labels, buckets=buckets, registry=self.registry)


class _Reading(Collector):
    """A number that lives elsewhere."""

    def __init__(self, name: str, meaning: str, grows: bool) -> None:
        self._name, self._meaning = name, meaning
        self._family = CounterMetricFamily if grows else GaugeMetricFamily
        self.read: list[Callable[[], float]] = []

    def collect(self) -> Any:
        yield self._family(self._name, self._meaning, value=sum(read() for read in self.read))


class _Words:
    """Keeps a label's set small, should what we took for a code ever be more."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def of(self, word: str) -> str:
        if word not in self._known and len(self._known) >= _MOST_WORDS:
            return "OTHER"
        self._known.add(word)
        return word


@asynccontextmanager
async def serving(metrics: Metrics, host: str, port: int | None) -> AsyncIterator[None]:
    """Answer ``GET /metrics`` meanwhile. Several processes of one machine take `port` and the next ones; None: off."""
    listener = None if port is None else _listener(host, port)
    if listener is None:
        yield
        return
    _log.info("metrics", port=listener.getsockname()[1])
    config = uvicorn.Config(
        _application(metrics), access_log=False, log_config=None, server_header=False, lifespan="off"
    )
    server = _Quiet(config)
    running = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield
    finally:
        server.should_exit = True
        await running
        listener.close()


def _listener(host: str, port: int) -> socket.socket | None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for number in range(port, min(port + _PORTS, 65536)):
        with suppress(OSError):
            return socket.create_server((host, number), family=family)
    _log.warning("no port for metrics", port=port)  # no reason to serve nobody
    return None


class _Quiet(uvicorn.Server):
    """Signals are for the server that serves the product."""

    def capture_signals(self) -> Any:
        return nullcontext()


def _application(metrics: Metrics) -> Callable[..., Awaitable[None]]:
    async def answer(scope: Any, _receive: Any, send: Any) -> None:
        is_known = scope["type"] == "http" and scope["path"] == "/metrics" and scope["method"] in ("GET", "HEAD")
        body = await metrics.scrape() if is_known else b"See /metrics.\n"
        kind = CONTENT_TYPE_LATEST if is_known else "text/plain"
        headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200 if is_known else 404, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return answer
