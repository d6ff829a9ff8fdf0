"""`coffer worker` and `coffer jobs`, run as operators run them."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from domain.tidying import TIDY
from tenants import tenants
from tenants.jobs import JobId, NoArguments
from tests.cli.test_cli import COFFER, coffer, environment
from tests.house import House
from tests.jobs.desk import until

__all__ = ["environment"]  # the fixture


async def tidying(house: House) -> JobId:
    async with house.api.units.enter(house.tenants["acme"].id, None, write=True) as unit:
        return await unit.enqueue(TIDY, NoArguments())


async def set_job(house: House, job: JobId, assignments: str) -> None:
    connection = await asyncpg.connect(house.superuser_url)
    await connection.execute(f"UPDATE jobs SET {assignments} WHERE id = $1", job)
    await connection.close()


async def test_a_job_is_listed_shown_and_retried(house: House, environment: dict[str, str]) -> None:
    job = await tidying(house)
    parked = "state = 'PARKED', ended_at = now(), reason = 'INTERNAL', done = 30, total = 90"
    await set_job(house, job, f"{parked}, started_at = now() - interval '10 s', moved_at = now()")

    listed = await coffer("jobs", "list", "--tenant", "acme", "--state", "parked", environment=environment)
    elsewhere = await coffer("jobs", "list", "--tenant", "globex", environment=environment)
    shown = await coffer("jobs", "show", str(job), environment=environment)
    retried = await coffer("jobs", "retry", str(job), environment=environment)
    again = await coffer("jobs", "retry", str(job), environment=environment)

    assert str(job) in listed.stdout
    assert str(job) not in elsewhere.stdout
    for told in ("tidy", "PARKED", "INTERNAL", "30 of 90", "3.0/s"):
        assert told in shown.stdout
    assert retried.stdout == f"{job} is READY.\n"
    assert (again.returncode, "state does not allow" in again.stderr) == (1, True)


@pytest.mark.parametrize("command", ["show", "retry"])
async def test_an_unknown_job_is_one_sentence(environment: dict[str, str], command: str) -> None:
    done = await coffer("jobs", command, str(uuid4()), environment=environment)

    assert (done.returncode, done.stderr) == (1, "There is no job of that id.\n")


async def test_a_tenant_is_made_here_or_left_to_a_worker(house: House, environment: dict[str, str]) -> None:
    slug = f"later-{uuid4().hex[:8]}"
    left = await coffer("tenant", "create", slug, "--name", "Later", "--no-wait", environment=environment)
    waiting = await tenants.get(house.api.platform, slug)
    made = await coffer("tenant", "create", slug, "--name", "Later", environment=environment)

    assert (left.returncode, waiting.status) == (0, "PENDING")
    assert left.stdout == f"{slug} is PENDING. A worker makes its keys.\n"
    assert made.stdout == f"{slug} is ACTIVE.\n"
    connection = await asyncpg.connect(house.superuser_url)
    jobs = await connection.fetch("SELECT kind, state FROM jobs WHERE tenant_id = $1", waiting.id)
    await connection.close()
    assert [tuple(job) for job in jobs] == [("provision_tenant", "DONE")]


@asynccontextmanager
async def running(*arguments: str, environment: dict[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(*COFFER, *arguments),
        cwd=Path(__file__).parents[2],
        env={"PATH": os.environ["PATH"], **environment},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def is_active(house: House, slug: str) -> bool:
    return (await tenants.get(house.api.platform, slug)).status == "ACTIVE"


@pytest.mark.parametrize("processes", ["2"])
async def test_a_worker_does_what_waits_and_ends_when_asked(
    house: House, environment: dict[str, str], processes: str, tmp_path: Path
) -> None:
    await house.forget_jobs()
    slug = f"worked-{uuid4().hex[:8]}"
    known = environment | {"TMPDIR": str(tmp_path)}
    await coffer("tenant", "create", slug, "--name", "Worked", "--no-wait", environment=known)
    before = await coffer("worker", "--alive", environment=known)
    async with running("worker", "--threads", "2", "--processes", processes, environment=known) as process:
        await until(lambda: is_active(house, slug), 60)
        alive = await coffer("worker", "--alive", environment=known)
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 30) == 0

    assert (before.returncode, alive.returncode) == (1, 0)


async def test_a_worker_without_settings_names_what_is_missing() -> None:
    done = await coffer("worker")

    assert done.returncode == 2
    assert "COFFER_BROKER_URL" in done.stderr
