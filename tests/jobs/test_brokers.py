"""A message names tenant and job alone; whoever rings is never held up; a broker that was away is no harm."""

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker

import settings
from jobs.bells import Bell
from jobs.brokers import MEMORY, close_broker, open_broker, wake_by
from settings import Mode, SettingsError
from tenants.jobs import JobId
from tenants.viewers import TenantId
from tests.jobs.brokers import ALL, FAR, fresh_queue
from tests.jobs.proxies import proxy

ACME = TenantId(uuid4())
NOWHERE = "redis://127.0.0.1:1/0"


def a_job() -> JobId:
    return JobId(uuid4())


@pytest.mark.parametrize("url", ALL)
def test_a_message_arrives_with_tenant_and_job(url: str) -> None:
    heard: queue.Queue[tuple[TenantId, JobId]] = queue.Queue()
    with fresh_queue(url) as name:
        broker = open_broker(url, queue=name)
        send, job = wake_by(broker, name, lambda *told: heard.put(told)), a_job()
        worker = dramatiq.Worker(broker, worker_threads=2, worker_timeout=100)
        worker.start()
        send(ACME, job)

        assert heard.get(timeout=20) == (ACME, job)
        worker.stop()
        broker.close()


def test_a_message_carries_nothing_else() -> None:
    broker = open_broker(MEMORY)
    assert isinstance(broker, StubBroker)
    send, job = wake_by(broker, "coffer", lambda *_: None), a_job()
    send(ACME, job)

    message = dramatiq.Message.decode(broker.queues["coffer"].get())
    assert (message.args, message.kwargs, message.options) == ((str(ACME), str(job)), {}, {})


def test_no_broker_is_global_and_nothing_is_retried_or_cut_off_by_it() -> None:
    broker = open_broker(MEMORY)

    assert broker is not dramatiq.broker.global_broker
    assert broker.middleware == []


@pytest.mark.parametrize("url", ["http://127.0.0.1", "memory", "", "amqpx://127.0.0.1"])
def test_another_kind_of_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="broker's address"):
        open_broker(url)


def test_beyond_loopback_certificates_are_verified() -> None:
    rabbitmq: Any = open_broker("amqps://user:secret@broker.example.org:5671/")
    redis: Any = open_broker("rediss://user:secret@broker.example.org:6380/0")

    options = rabbitmq.parameters.ssl_options
    assert (options.context.check_hostname, options.context.verify_mode.name) == (True, "CERT_REQUIRED")
    assert options.server_hostname == "broker.example.org"
    asked = redis.client.connection_pool.connection_kwargs
    assert (asked["ssl_cert_reqs"], asked["ssl_check_hostname"]) == ("required", True)


@pytest.mark.parametrize(
    ("url", "mode"),
    [
        ("amqp://broker.example.org/", "development"),
        ("redis://broker.example.org/0", "development"),
        ("rediss://broker.example.org/0?ssl_cert_reqs=none", "development"),
        ("memory:", "production"),
        ("http://broker.example.org", "development"),
    ],
)
def test_an_unsafe_address_is_refused_without_repeating_it(url: str, mode: str) -> None:
    with pytest.raises(SettingsError) as refused:
        settings.read({"COFFER_ENV": mode, "COFFER_BROKER_URL": url})

    (line,) = [each for each in str(refused.value).splitlines() if each.startswith("COFFER_BROKER_URL ")]
    assert "example.org/" not in line


def test_production_wants_a_broker_and_development_needs_none() -> None:
    for mode, is_told in ((Mode.PRODUCTION, True), (Mode.DEVELOPMENT, False)):
        with pytest.raises(SettingsError) as refused:
            settings.read({"COFFER_ENV": mode.value})
        assert ("COFFER_BROKER_URL is missing" in str(refused.value)) == is_told


# The bell


def test_ringing_never_blocks_and_never_raises_while_nobody_listens() -> None:
    broker = open_broker(NOWHERE, queue="coffer-test")
    bell = Bell(wake_by(broker, "coffer-test", lambda *_: None), most=100, patience=0.2)
    began = time.monotonic()
    for _ in range(1_000):
        bell.ring(ACME, a_job())

    assert time.monotonic() - began < 0.5
    assert bell.dropped >= 800  # more than 100 never wait
    bell.close()


def test_a_bell_recovers_by_itself_and_drops_what_is_too_old() -> None:
    is_away, sent = threading.Event(), threading.Semaphore(0)
    arrived: list[JobId] = []
    is_away.set()

    def send(_: TenantId, job: JobId) -> None:
        if is_away.is_set():
            raise ConnectionError
        arrived.append(job)
        sent.release()

    with Bell(send, patience=0.2) as bell:
        old, new = a_job(), a_job()
        bell.ring(ACME, old)
        _until(lambda: bell.dropped == 1)
        is_away.clear()
        bell.ring(ACME, new)
        assert sent.acquire(timeout=10)

    assert arrived == [new]


def test_a_closing_bell_sends_what_waits() -> None:
    arrived: list[UUID] = []
    bell = Bell(lambda _, job: arrived.append(job))
    jobs = [a_job() for _ in range(50)]
    for job in jobs:
        bell.ring(ACME, job)
    bell.close()

    assert arrived == jobs


@pytest.mark.parametrize("url", FAR)
async def test_a_bell_finds_a_broker_that_was_away(url: str) -> None:
    """Through a proxy that is switched off, so that an open connection breaks as well."""
    parts = urlsplit(url)
    assert parts.hostname
    async with proxy(parts.hostname, parts.port or {"amqp": 5672, "redis": 6379}[parts.scheme]) as between:
        with fresh_queue(url) as name:
            near = url.replace(f"{parts.hostname}:{parts.port}", f"127.0.0.1:{between.here}")
            sending, listening = open_broker(near, queue=name), open_broker(url, queue=name)
            heard: queue.Queue[JobId] = queue.Queue()
            wake_by(listening, name, lambda _, job: heard.put(job))
            worker = dramatiq.Worker(listening, worker_threads=1, worker_timeout=100)
            worker.start()
            bell = Bell(wake_by(sending, name, lambda *_: None), patience=1)

            before, lost, after = a_job(), a_job(), a_job()
            bell.ring(ACME, before)
            assert await asyncio.to_thread(heard.get, timeout=20) == before
            await between.off()
            bell.ring(ACME, lost)
            await asyncio.to_thread(_until, lambda: bell.dropped >= 1)
            await between.on()
            bell.ring(ACME, after)
            assert await asyncio.to_thread(heard.get, timeout=20) == after

            await asyncio.to_thread(bell.close)
            await asyncio.to_thread(worker.stop)
            for broker in (sending, listening):
                await asyncio.to_thread(close_broker, broker)


def _until(is_so: Callable[[], bool], patience: float = 20) -> None:
    ends = time.monotonic() + patience
    while not is_so():
        assert time.monotonic() < ends, "it did not come true in time"
        time.sleep(0.01)
