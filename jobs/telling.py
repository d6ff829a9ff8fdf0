"""What is told of each job that a worker leads: a line of the log, its seconds, a span linked to its request."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

import structlog

from telemetry.metrics import Metrics
from telemetry.traces import Journey, Tracing
from tenants.jobs.ledger import Lease

_log = structlog.get_logger()


class Telling:
    """By itself it logs nothing and counts nothing, for tests of a single part."""

    def __init__(self, tracing: Tracing | None = None, metrics: Metrics | None = None) -> None:
        self._tracing = tracing or Tracing()
        self._metrics = metrics

    @contextmanager
    def lead(self, lease: Lease) -> Iterator[None]:
        """Lines of the log that are written inside say which job they are about."""
        began = perf_counter()
        with self._tracing.journey("job", follows=lease.trace, kind=lease.kind, attempt=lease.attempt) as journey:
            known = {
                "job": lease.job,
                "tenant": lease.tenant,
                "request_id": lease.request_id,
                "trace": journey.trace_id,
            }
            told = {name: str(value) for name, value in known.items() if value is not None}
            with structlog.contextvars.bound_contextvars(**told):
                try:
                    yield
                finally:
                    self._tell(lease, journey, perf_counter() - began)

    def _tell(self, lease: Lease, journey: Journey, seconds: float) -> None:
        if self._metrics is not None:
            facts = {"outcome": "DONE", **journey.facts}
            self._metrics.job(lease.kind, facts["outcome"], seconds)
            _log.info("job", kind=lease.kind, attempt=lease.attempt, **facts, ms=round(seconds * 1000, 1))
