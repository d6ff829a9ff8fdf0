"""A worker process: jobs flow through each broker, a killed one costs little, a missing broker or handler is told."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import pytest

from jobs.bells import Bell
from jobs.brokers import MEMORY
from jobs.handlers import all_handlers, refuse_incomplete
from jobs.worker import Worker, beside
from settings import Settings
from tenants import tenants
from tenants.jobs import KINDS, NoArguments
from tenants.provisioning import PROVISION, create
from tests.house import House
from tests.jobs.brokers import ALL, FAR, fresh_queue
from tests.jobs.desk import HANDLERS, Desk, until
from tests.jobs.kinds import COUNT, POISON, Counted
from tests.jobs.proxies import proxy
from tests.jobs.worker_process import dumped

NEVER = 3600.0


@asynccontextmanager
async def a_process(settings: Settings) -> AsyncIterator[asyncio.subprocess.Process]:
    command = (sys.executable, "-m", "tests.jobs.worker_process", dumped(settings))
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@asynccontextmanager
async def a_worker(settings: Settings, **options: Any) -> AsyncIterator[Worker]:
    worker = Worker(settings, handlers=HANDLERS, **options)
    try:
        await worker.check()
        worker.start()
        yield worker
    finally:
        await worker.close(grace=5)


def settings_of(house: House, url: str = MEMORY, queue: str = "coffer", **changes: Any) -> Settings:
    return replace(house.api.settings, broker_url=url, broker_queue=queue, worker_threads=4, **changes)


@pytest.mark.parametrize("url", ALL)
async def test_a_committed_job_is_done_at_once_without_the_sweeper(desk: Desk, url: str) -> None:
    with fresh_queue(url) as queue:
        async with a_worker(settings_of(desk.house, url, queue), sweep=NEVER) as worker:
            await until(lambda: _has_swept(worker))
            async with worker.units.enter(desk.acme, None, write=True) as unit:
                job = await unit.enqueue(COUNT, Counted())
            await desk.until_state("DONE", job)

    assert await desk.effects(job) == [0, 1, 2]


async def _has_swept(worker: Worker) -> bool:
    """The first round is over; the next is far away."""
    await asyncio.wait_for(worker.sweeper.swept.wait(), 10)
    return True


async def test_a_job_whose_message_was_lost_is_found(desk: Desk) -> None:
    async with a_worker(settings_of(desk.house), sweep=0.1):
        job = await desk.enqueue()
        await desk.until_state("DONE", job)


async def test_a_change_undone_rings_nobody(desk: Desk) -> None:
    rung: list[UUID] = []
    async with a_worker(settings_of(desk.house)) as worker:
        worker.units._ring = lambda _, job: rung.append(job)
        with pytest.raises(ZeroDivisionError):
            async with worker.units.enter(desk.acme, None, write=True) as unit:
                await unit.enqueue(COUNT, Counted())
                raise ZeroDivisionError

    assert rung == []
    assert await desk.superuser.fetchval("SELECT count(*) FROM jobs") == 0


async def test_a_tenants_single_job_is_not_held_up_by_anothers_thousands(desk: Desk) -> None:
    await desk.superuser.execute(
        "INSERT INTO jobs (tenant_id, id, kind, state, priority, arguments, due_at, created_at)"
        """ SELECT $1, gen_random_uuid(), 'test_count', 'READY', 5, '{"steps": 1}', now() - interval '1 hour', now()"""
        " FROM generate_series(1, 10000)",
        desk.acme,
    )
    async with a_worker(settings_of(desk.house), sweep=0.1) as worker:
        async with worker.units.enter(desk.globex, None, write=True) as unit:
            one = await unit.enqueue(COUNT, Counted())
        await desk.until_state("DONE", one, patience=10)
        waiting = await desk.superuser.fetchval("SELECT count(*) FROM jobs WHERE state = 'READY'")

    assert waiting > 5_000


SUPERVISOR = (
    "import asyncio, sys; from jobs.supervising import supervise; sys.exit(asyncio.run(supervise(sys.argv[1:], 2)))"
)


async def test_a_poison_job_kills_three_workers_is_parked_and_holds_up_nobody(desk: Desk) -> None:
    poison = await desk.enqueue(POISON)
    command = (sys.executable, "-m", "tests.jobs.worker_process", dumped(settings_of(desk.house)))
    supervisor = await asyncio.create_subprocess_exec(sys.executable, "-c", SUPERVISOR, *command)
    try:
        others = [await desk.enqueue(COUNT, Counted(), tenant=tenant) for tenant in (desk.acme, desk.globex) * 5]
        await desk.until_state("DONE", *others, patience=60)  # on a machine of its own it takes a few seconds
        await desk.until_state("PARKED", poison, patience=60)
        last = await desk.enqueue(tenant=desk.globex)
        await desk.until_state("DONE", last)
    finally:
        supervisor.terminate()
        await supervisor.wait()

    found = await desk.job(poison)
    assert (found["reason"], found["deaths"], found["attempt"]) == ("WORKER_DIED", 3, 3)
    assert [await desk.effects(job) for job in others] == [[0, 1, 2]] * 10
    assert supervisor.returncode == 0


async def test_a_worker_asked_to_end_gives_its_jobs_back_in_time(desk: Desk) -> None:
    job = await desk.enqueue(COUNT, Counted(steps=1_000_000))
    async with a_process(settings_of(desk.house)) as process:
        await desk.until_state("RUNNING", job)
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 15) == 0

    found = await desk.job(job)
    assert (found["state"], found["deaths"]) == ("READY", 0)
    assert await desk.effects(job) == list(range(found["done"]))


@pytest.mark.parametrize("url", FAR)
async def test_while_the_broker_is_away_jobs_are_taken_and_then_all_is_drained(desk: Desk, url: str) -> None:
    parts = urlsplit(url)
    assert parts.hostname and parts.port
    async with AsyncExitStack() as stack:
        between = await stack.enter_async_context(proxy(parts.hostname, parts.port))
        queue = stack.enter_context(fresh_queue(url))
        near = url.replace(f"{parts.hostname}:{parts.port}", f"127.0.0.1:{between.here}")
        worker = await stack.enter_async_context(a_worker(settings_of(desk.house, near, queue), sweep=0.2))
        jobs = []
        for moment in ("before", "away", "back"):
            if moment == "away":
                await between.off()
            if moment == "back":
                await between.on()
            for _ in range(10):
                async with worker.units.enter(desk.acme, None, write=True) as unit:
                    jobs.append(await unit.enqueue(COUNT, Counted()))
        await desk.until_state("DONE", *jobs)

    assert [await desk.effects(job) for job in jobs] == [[0, 1, 2]] * 30


async def test_a_server_on_the_broker_in_memory_does_its_own_jobs(desk: Desk) -> None:
    async with beside(settings_of(desk.house)) as ring:
        made = await create(desk.house.api.platform, f"beside-{desk.superuser.get_server_pid()}", "Beside")
        job = await desk.superuser.fetchval("SELECT id FROM jobs WHERE tenant_id = $1", made.id)
        ring(made.id, job)
        await desk.until_state("DONE", job)

    assert (await tenants.get(desk.house.api.platform, made.slug)).status == "ACTIVE"


async def test_a_worker_without_the_right_to_make_keys_leaves_new_tenants_to_others(desk: Desk) -> None:
    made = await create(desk.house.api.platform, f"left-{desk.superuser.get_server_pid()}", "Left")
    job = await desk.superuser.fetchval("SELECT id FROM jobs WHERE tenant_id = $1", made.id)
    async with a_worker(settings_of(desk.house, provisioner_role=None), sweep=0.1) as worker:
        other = await desk.enqueue()
        worker.bell.ring(made.id, job)
        await desk.until_state("DONE", other)

    assert (await desk.job(job))["attempt"] == 0
    async with a_worker(settings_of(desk.house), sweep=0.1):
        await desk.until_state("DONE", job)
    assert (await tenants.get(desk.house.api.platform, made.slug)).status == "ACTIVE"


async def test_what_waits_behind_busy_hands_is_not_told_to_the_broker(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    rung: list[UUID] = []
    monkeypatch.setattr(Bell, "ring", lambda _bell, _tenant, job: rung.append(job))
    for _ in range(20):
        await desk.enqueue()
    worker = Worker(settings_of(desk.house), handlers=HANDLERS)
    for _ in range(3):
        assert await worker.sweeper.sweep() == 20
    await worker.close(grace=0)

    assert rung == []


SUPERVISED = "import signal; print('up', flush=True); signal.pause()"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
async def test_workers_do_not_outlive_a_supervisor_that_is_killed() -> None:
    command = (sys.executable, "-c", SUPERVISOR, sys.executable, "-c", SUPERVISED)
    supervisor = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert supervisor.stdout is not None
    assert [await supervisor.stdout.readline() for _ in range(2)] == [b"up\n"] * 2
    supervisor.kill()
    await supervisor.wait()

    assert await asyncio.wait_for(supervisor.stdout.read(), 10) == b""  # both have let go of it


def test_every_kind_of_job_has_a_handler() -> None:
    refuse_incomplete(all_handlers(None))


def test_a_kind_without_a_handler_is_named_at_start() -> None:
    handlers = {kind: handler for kind, handler in all_handlers(None).items() if kind != PROVISION}

    with pytest.raises(TypeError, match="provision_tenant"):
        refuse_incomplete(handlers, KINDS)


def test_test_kinds_stand_in_a_register_of_their_own() -> None:
    assert not {COUNT.name, POISON.name} & set(KINDS)
    assert POISON.load({}) == NoArguments()
