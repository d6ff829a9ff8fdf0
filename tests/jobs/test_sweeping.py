"""The sweeper takes nobody for dead who was only cut off from the database, and wakes as many hands as are wanted."""

import asyncio

import pytest

from jobs.handling import Run
from jobs.hands import Hands
from jobs.sweeping import Sweeper
from tenants.errors import DatabaseUnavailable
from tenants.jobs import JobId, NoArguments
from tests.jobs.desk import Desk
from tests.jobs.kinds import FRAGILE

ROUND = 1.0


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def swept(sweeper: Sweeper, clock: Clock, seconds: float) -> None:
    until = clock.now + seconds
    while clock.now < until:
        clock.now += ROUND
        await sweeper.sweep()


async def dead(desk: Desk) -> JobId:
    """Taken by somebody who has not beaten since long ago."""
    job = await desk.enqueue()
    assert await desk.ledger.claim(desk.acme, job)
    await desk.kill(job)
    return job


async def test_a_dead_workers_job_is_found_after_a_lease_of_looking(desk: Desk) -> None:
    clock, lease = Clock(), desk.ledger.lease.total_seconds()
    sweeper = Sweeper(desk.ledger, clock=clock)
    job = await dead(desk)

    await swept(sweeper, clock, lease)
    assert (await desk.job(job))["deaths"] == 0
    await swept(sweeper, clock, ROUND)
    assert (await desk.job(job))["deaths"] == 1


async def hung(_sweeper: Sweeper, _desk: Desk, _monkeypatch: pytest.MonkeyPatch) -> None:
    """The database answered in the end."""


async def failed(sweeper: Sweeper, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(_most: int = 0) -> list[object]:
        raise DatabaseUnavailable

    with monkeypatch.context() as patched:
        patched.setattr(desk.ledger, "dead", away)
        with pytest.raises(DatabaseUnavailable):
            await sweeper.sweep()


@pytest.mark.parametrize("outage", [hung, failed])
async def test_after_an_outage_the_living_have_time_to_beat(desk: Desk, outage, monkeypatch) -> None:  # type: ignore[no-untyped-def]  # two functions of one shape
    clock, lease = Clock(), desk.ledger.lease.total_seconds()
    sweeper = Sweeper(desk.ledger, clock=clock)
    await swept(sweeper, clock, 2 * lease)
    job = await desk.enqueue()
    living = await desk.ledger.claim(desk.acme, job)
    assert living is not None

    await outage(sweeper, desk, monkeypatch)
    await desk.kill(job)
    clock.now += 2 * lease
    await swept(sweeper, clock, lease)
    await desk.ledger.beat(living)
    await swept(sweeper, clock, 2 * lease)

    assert (await desk.job(job))["deaths"] == 0


@pytest.mark.parametrize(("wanted", "taken"), [(0, 0), (2, 2), (9, 3)])
async def test_a_round_wakes_as_many_hands_as_are_wanted_and_free(desk: Desk, wanted: int, taken: int) -> None:
    async def wait(_: Run[NoArguments]) -> None:
        await asyncio.Event().wait()

    desk.handlers[FRAGILE] = wait
    jobs = [await desk.enqueue(FRAGILE) for _ in range(5)]
    hands = Hands(desk.ledger, desk.handling(), most=3)
    hands.nudge(wanted)
    await asyncio.gather(*hands._working)  # the waking; what they do then goes on
    try:
        assert await desk.superuser.fetchval("SELECT count(*) FROM jobs WHERE state = 'RUNNING'") == taken
    finally:
        await hands.stop(grace=0)
    assert {(await desk.job(job))["state"] for job in jobs} == {"READY"}
