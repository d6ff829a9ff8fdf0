"""The ledger: one holder at a time, a fence against the one before, deaths that are counted, and fairness."""

import asyncio
import os
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tenants import tenants
from tenants.errors import JobRefused, LeaseLost
from tenants.jobs import JobId, JobKind, JobState, Wish
from tenants.jobs.ledger import ended, moved
from tests.jobs.desk import Desk
from tests.jobs.kinds import COUNT, POISON, URGENT

LEASE = timedelta(seconds=10)


async def test_of_many_who_claim_a_job_one_gets_it(desk: Desk) -> None:
    job = await desk.enqueue()

    leases = await asyncio.gather(*(desk.ledger.claim(desk.acme, job) for _ in range(8)))

    assert len([lease for lease in leases if lease]) == 1
    assert (await desk.job(job))["attempt"] == 1


async def test_a_job_that_is_not_due_is_not_given_out(desk: Desk) -> None:
    job = await desk.enqueue(due_at=datetime.now(UTC) + timedelta(hours=1))

    assert await desk.ledger.claim(desk.acme, job) is None
    assert await desk.ledger.due() == []


async def test_another_tenants_job_is_not_given_out(desk: Desk) -> None:
    job = await desk.enqueue(tenant=desk.acme)

    assert await desk.ledger.claim(desk.globex, job) is None
    assert (await desk.job(job))["state"] == "READY"


async def test_a_beat_keeps_the_lease_and_tells_the_wish(desk: Desk) -> None:
    job = await desk.enqueue()
    lease = await desk.ledger.claim(desk.acme, job)
    assert lease is not None
    await desk.set(job, "wish = 'PAUSE', lease_until = now() + interval '1 second'")

    assert await desk.ledger.beat(lease) is Wish.PAUSE
    assert (await desk.job(job))["lease_until"] > datetime.now(UTC) + timedelta(seconds=5)


async def test_a_holder_whose_lease_ran_out_can_write_nothing_more(desk: Desk) -> None:
    job = await desk.enqueue()
    slow = await desk.ledger.claim(desk.acme, job)
    assert slow is not None
    await desk.kill(job)
    assert await desk.ledger.bury(desk.acme, job) is JobState.READY
    await desk.set(job, "due_at = now()")
    assert await desk.another_ledger().claim(desk.acme, job) is not None

    with pytest.raises(LeaseLost):
        await desk.ledger.beat(slow)
    with pytest.raises(LeaseLost):
        await desk.ledger.end(slow, JobState.DONE)
    for act in (lambda unit: moved(unit, slow, LEASE, cursor=9, done=9, total=9), lambda unit: ended(unit, slow)):
        with pytest.raises(LeaseLost):
            async with desk.units.enter(desk.acme, None, write=True) as unit:
                unit.audit("test.counted", subjects=[job], details={"step": 0})
                await act(unit)
    assert await desk.effects(job) == []
    assert (await desk.job(job))["worker"] == "another"


@pytest.mark.parametrize("lease", ["now() + interval '1 second'", "now() - interval '1 second'"])
async def test_only_a_lease_that_ran_out_a_while_ago_is_a_death(desk: Desk, lease: str) -> None:
    job = await desk.enqueue()
    await desk.ledger.claim(desk.acme, job)
    await desk.set(job, f"lease_until = {lease}")

    assert await desk.ledger.dead() == []
    assert await desk.ledger.bury(desk.acme, job) is None
    await desk.kill(job)
    assert await desk.ledger.dead() == [(desk.acme, job)]


async def test_the_third_death_parks_a_job(desk: Desk) -> None:
    job = await desk.enqueue()
    states = []
    for _ in range(3):
        await desk.set(job, "due_at = now()")
        assert await desk.ledger.claim(desk.acme, job) is not None
        await desk.kill(job)
        states.append(await desk.ledger.bury(desk.acme, job))

    found = await desk.job(job)
    assert states == ["READY", "READY", "PARKED"]
    assert (found["reason"], found["deaths"], found["lease_until"]) == ("WORKER_DIED", 3, None)
    assert found["ended_at"] is not None


async def test_a_step_forgives_deaths_so_that_what_stood_beside_the_culprit_is_not_parked(desk: Desk) -> None:
    job = await desk.enqueue()
    for _ in range(4):
        await desk.set(job, "due_at = now()")
        lease = await desk.ledger.claim(desk.acme, job)
        assert lease is not None
        async with desk.units.enter(desk.acme, None, write=True) as unit:
            await moved(unit, lease, LEASE, cursor=1, done=1, total=2)
        await desk.kill(job)
        await desk.ledger.bury(desk.acme, job)

    found = await desk.job(job)
    assert (found["state"], found["deaths"]) == ("READY", 1)


@pytest.mark.parametrize(("wish", "state"), [("CANCEL", "CANCELLED"), ("PAUSE", "PAUSED"), (None, "READY")])
async def test_what_was_asked_of_a_job_outlives_its_worker(desk: Desk, wish: str | None, state: str) -> None:
    died, gave_back = await desk.enqueue(), await desk.enqueue()
    leases = [await desk.ledger.claim(desk.acme, job) for job in (died, gave_back)]
    for job in (died, gave_back):
        await desk.set(job, f"wish = {wish!r}" if wish else "wish = NULL")
    await desk.kill(died)

    assert await desk.ledger.bury(desk.acme, died) == state
    assert leases[1] is not None
    await desk.ledger.end(leases[1], JobState.READY)
    assert (await desk.job(gave_back))["state"] == state


async def test_urgent_jobs_go_first(desk: Desk) -> None:
    await desk.enqueue(COUNT)
    urgent = await desk.enqueue(URGENT)

    assert (await desk.ledger.due())[0] == (desk.acme, urgent)


async def test_a_tenant_with_many_jobs_does_not_hold_up_anothers_one(desk: Desk) -> None:
    await desk.superuser.execute(
        "INSERT INTO jobs (tenant_id, id, kind, state, priority, arguments, due_at, created_at)"
        " SELECT $1, gen_random_uuid(), 'test_count', 'READY', 5, '{}', now() - interval '1 hour', now()"
        " FROM generate_series(1, 10000)",
        desk.acme,
    )
    one = await desk.enqueue(tenant=desk.globex)

    first_two = await desk.ledger.due(2, 10)
    assert (desk.globex, one) in first_two
    for tenant, job in [first for first in first_two if first[0] == desk.acme]:
        await desk.ledger.claim(tenant, job)
    assert (await desk.ledger.due(1, 10)) == [(desk.globex, one)]


async def test_kinds_that_a_worker_may_not_do_are_left_to_others(desk: Desk) -> None:
    job = await desk.enqueue()

    assert await desk.ledger.due(without=[COUNT.name]) == []
    assert await desk.ledger.claim(desk.acme, job, without=[COUNT.name]) is None
    assert await desk.ledger.due() == [(desk.acme, job)]


async def test_a_suspended_tenants_jobs_are_nobodys_turn_until_it_is_served_again(desk: Desk) -> None:
    slug, platform = f"ledger-{os.urandom(4).hex()}", desk.house.api.platform
    tenant = (await desk.house.provisioning.provision(slug, "Ledger")).id
    job, other = await desk.enqueue(tenant=tenant), await desk.enqueue(tenant=desk.acme)

    await tenants.suspend(platform, slug)
    assert await desk.ledger.due() == [(desk.acme, other)]
    await tenants.resume(platform, slug)
    assert (tenant, job) in await desk.ledger.due()


LONG_AGO = "due_at = now() - interval '1 minute'"


@pytest.mark.parametrize(
    ("tenant", "waiting", "is_fairer"),
    [
        ("acme", LONG_AGO, True),
        ("globex", LONG_AGO, True),
        ("acme", "due_at = now()", False),  # a free hand is about to take it
        ("acme", f"{LONG_AGO}, priority = 9", False),
        ("acme", f"{LONG_AGO}, state = 'PAUSED'", False),
        ("globex", f"{LONG_AGO}, priority = 0", True),
    ],
)
async def test_what_has_waited_long_enough_may_come_before_a_running_job(
    desk: Desk, tenant: str, waiting: str, is_fairer: bool
) -> None:
    running = await desk.ledger.claim(desk.acme, await desk.enqueue())
    assert running is not None
    await desk.set(await desk.enqueue(tenant=desk.house.tenants[tenant].id), waiting)

    assert await desk.ledger.has_fairer(running) is is_fairer
    assert not await desk.ledger.has_fairer(running, without=[COUNT.name])


async def test_a_tenant_that_has_more_running_comes_not_before_one_that_has_fewer(desk: Desk) -> None:
    lease = await desk.ledger.claim(desk.acme, await desk.enqueue())
    assert lease is not None
    await desk.ledger.claim(desk.globex, await desk.enqueue(tenant=desk.globex))
    await desk.set(await desk.enqueue(tenant=desk.globex), LONG_AGO)

    assert not await desk.ledger.has_fairer(lease)


# What enqueueing does where a job is there already


async def again(desk: Desk, job: JobId, kind: JobKind[Any] = COUNT, **options: Any) -> JobId:
    return await asyncio.wait_for(desk.enqueue(kind, job=job, **options), 10)


async def test_a_job_that_is_enqueued_again_is_that_very_job(desk: Desk) -> None:
    first, other = await desk.enqueue(), await desk.enqueue()

    assert [await again(desk, first), await again(desk, other)] == [first, other]
    await desk.set(first, "state = 'DONE', ended_at = now()")
    assert await again(desk, first) == first
    assert await desk.superuser.fetchval("SELECT count(*) FROM jobs") == 2


async def test_an_id_that_is_another_kinds_is_refused(desk: Desk) -> None:
    job = await desk.enqueue()

    with pytest.raises(JobRefused):
        await again(desk, job, POISON)
    assert (await desk.job(job))["kind"] == COUNT.name


async def test_what_may_be_open_once_is_found_by_its_code_and_not_by_an_id(desk: Desk) -> None:
    job, other = await desk.enqueue(once="only"), await desk.enqueue()

    assert await desk.enqueue(once="only") == job
    assert await again(desk, other, once="only") == other
