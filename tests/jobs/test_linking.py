"""The linking loop finds who has something new, links it soon, and goes on whatever befalls one tenant."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import date
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest
from structlog.testing import capture_logs

from jobs.linking import Linking
from tenants import tenants
from tenants.audit.chains import AuditChains
from tenants.audit.store import CheckpointStore
from tests.house import House
from tests.jobs.desk import until
from tests.tenants.chained import Chained, act, chained, fetch


@pytest.fixture
async def mine(house: House, tmp_path: Path) -> Chained:
    return await chained(house, tmp_path)


@asynccontextmanager
async def running(
    mine: Chained, today: Callable[[], date] | None = None, times: int = 1
) -> AsyncIterator[list[Linking]]:
    wanted = today or (lambda: mine.clock.now().date())
    loops = [Linking(mine.chains, mine.house.api.platform, tick=0.02, today=wanted) for _ in range(times)]
    tasks = [asyncio.create_task(loop.run()) for loop in loops]
    try:
        yield loops
    finally:
        for task in tasks:
            task.cancel()
        assert {type(end) for end in await asyncio.gather(*tasks, return_exceptions=True)} == {asyncio.CancelledError}


async def until_linked(mine: Chained, count: int) -> None:
    async def reached() -> bool:
        rows = await fetch(mine.house, "SELECT count(*) FROM audit_links WHERE tenant_id = $1", mine.tenant)
        return bool(rows[0][0] == count)

    await until(reached)


async def test_what_was_there_before_the_start_and_what_comes_later_is_linked(mine: Chained) -> None:
    await mine.enter(3)
    async with running(mine):
        await until_linked(mine, 3)
        await mine.enter(2)
        await until_linked(mine, 5)
    assert await mine.found() is None


async def test_two_loops_make_one_chain_with_checkpoints(mine: Chained) -> None:
    async with running(mine, times=2):
        for count in range(5, 25, 5):
            await mine.enter(5)
            await until_linked(mine, count)

        async def vouched() -> bool:
            return bool((await mine.verify()).copies)

        await until(vouched)
    assert await mine.found() is None


async def test_the_lag_grows_while_an_entry_waits_and_ends_with_its_link(mine: Chained) -> None:
    connection = await asyncpg.connect(mine.house.superuser_url)
    async with running(mine) as (loop,):
        async with connection.transaction():
            await connection.execute("SELECT pg_current_xact_id()")  # holds the horizon
            await mine.enter(1)
            await until(lambda: _soon(min(loop.lag, loop.behind.get(mine.tenant, 0.0)) > 0.05))
        await until_linked(mine, 1)
        await until(lambda: _soon(mine.tenant not in loop.behind))
    await connection.close()


async def _soon(is_so: bool) -> bool:
    return is_so


async def test_as_the_day_turns_idle_chains_take_the_new_key_after_a_checkpoint(mine: Chained) -> None:
    await mine.enter(1)
    async with running(mine):
        await until_linked(mine, 1)
        mine.clock.move(days=1)

        async def turned() -> bool:
            rows = await fetch(mine.house, "SELECT day FROM audit_heads WHERE id = $1", mine.tenant)
            return bool(rows[0]["day"] == mine.clock.now().date())

        await until(turned)
    assert (await mine.verify()).checkpoints == 1


async def test_a_tenant_whose_chain_is_broken_does_not_hold_up_others(mine: Chained, house: House) -> None:
    other = await chained(house, mine.folder / "other")
    await mine.enter(1)
    await mine.link()
    await act(house, "DELETE FROM audit_heads WHERE id = $1", mine.tenant)
    await mine.enter(1)
    await other.enter(2)
    async with running(mine):
        await until_linked(other, 2)
    assert await other.found() is None


class Limbo(CheckpointStore):
    """A second place that never answers, until it is `whole`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"file://{folder}/second")
        self.whole, self.asked = asyncio.Event(), 0

    async def put(self, tenant: UUID, seq: int, content: bytes) -> bool:
        self.asked += 1
        await self.whole.wait()
        return await super().put(tenant, seq, content)


async def test_while_the_second_place_never_answers_all_are_linked_in_time(mine: Chained, house: House) -> None:
    others = [await chained(house, mine.folder) for _ in range(3)]
    chains = AuditChains(mine.units, house.api.keys, limbo := Limbo(mine.folder))
    loop = Linking(chains, house.api.platform, tick=0.02, again=0.02)
    task = asyncio.create_task(loop.run())
    try:
        await mine.enter(1)
        await until(lambda: _soon(loop.copies_owed > 0))
        for other in others:
            await other.enter(1)
            async with asyncio.timeout(3):  # a copy is waited for twelve seconds
                await until_linked(other, 1)
        assert loop.copies_owed > 0
        limbo.whole.set()
        await until(lambda: _soon(loop.copies_owed == 0))
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_that_the_second_place_is_away_and_whole_again_is_told_once(mine: Chained, house: House) -> None:
    (mine.folder / "place").write_text("a file where a folder should be")
    chains = AuditChains(mine.units, house.api.keys, store := Counted(f"file://{mine.folder}/place"))
    loop = Linking(chains, house.api.platform, tick=0.02, again=0.02)
    await mine.enter(1)
    with capture_logs() as told:
        task = asyncio.create_task(loop.run())
        await until(lambda: _soon(store.asked > 5))  # several rounds
        (mine.folder / "place").unlink()
        await until(lambda: _soon(any(line["event"] == "second place whole again" for line in told)))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    events = [line["event"] for line in told if line["event"].startswith("second place")]
    assert events == ["second place away", "second place whole again"]


class Counted(CheckpointStore):
    asked = 0

    async def put(self, tenant: UUID, seq: int, content: bytes) -> bool:
        self.asked += 1
        return await super().put(tenant, seq, content)


async def test_a_suspended_tenants_entries_wait_without_lag(mine: Chained, house: House) -> None:
    slug = (await fetch(house, "SELECT slug FROM tenants WHERE id = $1", mine.tenant))[0]["slug"]
    late = (
        "INSERT INTO audit_entries (tenant_id, id, at, action, subjects, fields, outcome, details)"
        " VALUES ($1, gen_random_uuid(), now(), 'thing.late', '{}', '{}', 'OK', '{}')"
    )
    await tenants.suspend(house.api.platform, slug)
    async with running(mine) as (loop,):
        await until(lambda: _soon(loop._day is not None))  # it has begun
        await act(house, late, mine.tenant)
        await until(lambda: _soon(mine.tenant in loop._ready and mine.tenant not in loop.behind))
    await tenants.resume(house.api.platform, slug)
    async with running(mine):
        await until_linked(mine, 1)
