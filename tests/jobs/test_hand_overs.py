"""The job that hands over all customers of a member: in steps, each customer once, under the rights of now."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from domain import customers, hand_overs
from domain.customers import CustomerView
from domain.hand_overs import HAND_OVER, HandOver
from jobs.hand_overs import hand_over_customers
from jobs.handling import Handling
from tenants.access import Grants, Permission, RoleSpec, Scope
from tenants.jobs import Job, JobId, JobState, job_acts
from tenants.jobs.ledger import Ledger
from tenants.unit import Unit
from tenants.viewers import Credential
from tests.house import House

COUNT = 12
RIGHTS = frozenset({Permission.CUSTOMERS_READ, Permission.CUSTOMERS_HAND_OVER})
Scene = tuple[Credential, Credential, Credential]


@pytest.fixture
async def superuser(house: House) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(house.superuser_url)
    yield connection
    await connection.close()


@pytest.fixture
async def scene(house: House) -> Scene:
    """Who hands over, a team mate who has customers, and who gets them."""
    boss, one, other = (
        await house.add_member(RoleSpec(Grants(RIGHTS), Scope.TEAM)),
        *[await house.add_member() for _ in range(2)],
    )
    await house.add_team(boss, one)
    async with house.api.units.enter(one.tenant, None, write=True) as unit:
        rows = [{"given_name": f"Person {n}", "owner_id": one.principal} for n in range(COUNT)]
        made = await customers.create_many(unit, rows)
        assert all(isinstance(each, CustomerView) for each in made)
    return boss, one, other


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    work = hand_overs.work

    async def worked(unit: Unit, wanted: HandOver, after: UUID) -> tuple[UUID, int]:
        return await work(unit, wanted, after, 5)

    monkeypatch.setattr(hand_overs, "work", worked)


async def start(house: House, boss: Credential, one: Credential, other: Credential) -> JobId:
    async with house.api.units.enter(boss.tenant, boss.principal, write=True) as unit:
        return await hand_overs.start(unit, HandOver(one.principal, other.principal))


async def run(house: House, who: Credential, job: JobId) -> None:
    ledger = Ledger(house.api.database, house.api.platform, "test")
    handling = Handling(house.api.units, ledger, {HAND_OVER: hand_over_customers})
    assert await handling.handle(who.tenant, job)


async def job_of(house: House, who: Credential, job: JobId) -> Job:
    async with house.api.units.enter(who.tenant, who.principal, write=False) as unit:
        return await job_acts.get(unit, job)


async def owned(superuser: asyncpg.Connection, member: Credential) -> list[int]:
    """Versions of the member's customers."""
    rows = await superuser.fetch("SELECT version FROM customers WHERE owner_id = $1", member.principal)
    return [row["version"] for row in rows]


async def told(superuser: asyncpg.Connection, one: Credential) -> list[int]:
    """How often each customer was told of as handed over, of those that were made for the member."""
    counts = """SELECT count(*) AS times FROM events WHERE type = 'customer.handed_over' AND actor = $1
        GROUP BY subject"""
    return [row["times"] for row in await superuser.fetch(counts, one.principal)]


async def test_all_are_handed_over_in_steps(house: House, superuser: asyncpg.Connection, scene: Scene) -> None:
    boss, one, other = scene
    job = await start(house, *scene)
    await run(house, boss, job)
    ended = await job_of(house, boss, job)
    assert (ended.state, ended.done, ended.total) == (JobState.DONE, COUNT, COUNT)
    assert ended.result == {"handedOver": COUNT}
    assert (await owned(superuser, one), await owned(superuser, other)) == ([], [2] * COUNT)
    assert await told(superuser, boss) == [1] * COUNT


async def test_the_queue_holds_ids_alone(house: House, superuser: asyncpg.Connection, scene: Scene) -> None:
    boss, one, other = scene
    job = await start(house, *scene)
    kept = (await job_of(house, boss, job)).arguments
    assert kept == {"owner": str(one.principal), "to": str(other.principal)}


@pytest.mark.parametrize("is_done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", [1, 2, 3, 4])
async def test_a_job_that_is_cut_off_in_a_step_goes_on_and_hands_over_each_once(
    house: House,
    superuser: asyncpg.Connection,
    scene: Scene,
    monkeypatch: pytest.MonkeyPatch,
    at: int,
    is_done: bool,
) -> None:
    boss, one, other = scene
    job = await start(house, *scene)
    await cut_off(monkeypatch, at, is_done, run(house, boss, job))
    before = await job_of(house, boss, job)
    await run(house, boss, job)
    ended = await job_of(house, boss, job)
    assert (before.state, before.done) == (JobState.READY, min(5 * (at - 1), COUNT))
    assert (ended.state, ended.done, ended.result) == (JobState.DONE, COUNT, {"handedOver": COUNT})
    assert (await owned(superuser, one), await owned(superuser, other)) == ([], [2] * COUNT)
    assert await told(superuser, boss) == [1] * COUNT


async def cut_off(monkeypatch: pytest.MonkeyPatch, at: int, is_done: bool, running: Any) -> None:
    """Cancel the run before or after the work of that step, but before its commit."""
    work, calls, reached = hand_overs.work, 0, asyncio.Event()

    async def worked(unit: Unit, wanted: HandOver, after: UUID) -> tuple[UUID, int]:
        nonlocal calls
        calls += 1
        moved = (after, 0) if calls == at and not is_done else await work(unit, wanted, after)
        if calls == at:
            reached.set()
            await asyncio.Event().wait()
        return moved

    monkeypatch.setattr(hand_overs, "work", worked)
    task = asyncio.create_task(running)
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def after_first_step(
    house: House, monkeypatch: pytest.MonkeyPatch, scene: Scene, superuser: asyncpg.Connection, change: str, who: UUID
) -> Job:
    """The job as it stands once something changed behind its first step."""
    work, calls = hand_overs.work, 0

    async def worked(unit: Unit, wanted: HandOver, after: UUID) -> tuple[UUID, int]:
        nonlocal calls
        calls += 1
        moved = await work(unit, wanted, after)
        if calls == 1:
            await superuser.execute(change, who)
        return moved

    monkeypatch.setattr(hand_overs, "work", worked)
    job = await start(house, *scene)
    await run(house, scene[0], job)
    async with house.api.units.enter(scene[0].tenant, None, write=False) as unit:
        return await job_acts.get(unit, job)


@pytest.mark.parametrize(
    ("change", "of", "reason"),
    [
        ("DELETE FROM member_own_roles WHERE member_id = $1", 0, "FORBIDDEN"),
        ("DELETE FROM team_members WHERE member_id = $1", 0, "FORBIDDEN"),
        ("UPDATE members SET status = 'DISABLED' WHERE id = $1", 2, "REFUSED"),
    ],
    ids=["role", "team", "receiver"],
)
async def test_a_job_stops_where_it_may_go_no_further(
    house: House,
    superuser: asyncpg.Connection,
    scene: Scene,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
    of: int,
    reason: str,
) -> None:
    stopped = await after_first_step(house, monkeypatch, scene, superuser, change, scene[of].principal)
    assert (stopped.state, stopped.reason, stopped.done) == (JobState.PARKED, reason, 5)
    assert (len(await owned(superuser, scene[1])), len(await owned(superuser, scene[2]))) == (COUNT - 5, 5)


async def test_a_customer_that_comes_back_behind_the_job_stays(
    house: House, superuser: asyncpg.Connection, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    boss, one, other = scene
    work, calls = hand_overs.work, 0
    back = """UPDATE customers SET owner_id = $1 WHERE id =
        (SELECT id FROM customers WHERE owner_id = $2 ORDER BY id LIMIT 1)"""

    async def worked(unit: Unit, wanted: HandOver, after: UUID) -> tuple[UUID, int]:
        nonlocal calls
        calls += 1
        if calls == 2:
            await superuser.execute(back, one.principal, other.principal)
        return await work(unit, wanted, after)

    monkeypatch.setattr(hand_overs, "work", worked)
    job = await start(house, *scene)
    await run(house, boss, job)
    ended = await job_of(house, boss, job)
    assert (ended.state, ended.done) == (JobState.DONE, COUNT)
    assert (len(await owned(superuser, one)), len(await owned(superuser, other))) == (1, COUNT - 1)


async def test_two_jobs_that_hand_over_to_each_other_both_end(
    house: House, superuser: asyncpg.Connection, scene: Scene
) -> None:
    boss, one, other = scene
    await house.add_team(boss, other)
    there, back = await start(house, boss, one, other), await start(house, boss, other, one)
    async with asyncio.timeout(30):
        await asyncio.gather(run(house, boss, there), run(house, boss, back))
    ended = [await job_of(house, boss, job) for job in (there, back)]
    assert [job.state for job in ended] == [JobState.DONE] * 2
    assert ended[0].done == COUNT
    assert len(await owned(superuser, one)) + len(await owned(superuser, other)) == COUNT
