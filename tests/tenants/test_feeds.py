"""The feed: ids as they commit, in whatever order transactions end, and never more than a reader may keep."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID, uuid4

import pytest

from tenants import events
from tenants.database import Database
from tenants.errors import DatabaseUnavailable, TooSlow
from tenants.feeds import LONGEST_WAIT, MOST_TOGETHER, MOST_WAITING, Fact, Feed, Following, Watching
from tenants.unit import Unit
from tests.house import House

KIND = events.KINDS["customer.archived"]


@pytest.fixture
async def feed(house: House) -> AsyncIterator[Feed]:
    platform = Database(house.api.settings.platform_database_url, pool_size=2)
    made = Feed(platform, house.api.database)
    yield made
    await made.close()
    await platform.close()


async def heard(following: Following, count: int) -> list[UUID]:
    ids: list[UUID] = []
    async with asyncio.timeout(5):
        async for facts in following.facts():
            ids += [fact.id for fact in facts]
            if len(ids) >= count:
                break
    return ids


class Hands:
    """A clock that stands still until it is put on."""

    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def fact(told_at: float = 0.0) -> Fact:
    return Fact(uuid4(), KIND.name, uuid4(), 1, told_at)


async def tell(house: House, tenant: str = "acme", times: int = 1) -> list[UUID]:
    async with house.api.units.enter(house.tenants[tenant].id, None, write=True) as unit:
        return told(unit, times)


def told(unit: Unit, times: int = 1) -> list[UUID]:
    unit.publish(KIND, [uuid4() for _ in range(times)])
    return [event["id"] for event in unit._events]


async def test_what_commits_is_told_once_and_in_order(house: House, feed: Feed) -> None:
    with feed.events(house.tenants["acme"].id) as following:
        await feed.ready(following)
        expected = [*await tell(house, times=3), *await tell(house)]
        assert await heard(following, 4) == expected


async def test_another_tenants_events_are_not_told(house: House, feed: Feed) -> None:
    with feed.events(house.tenants["globex"].id) as following:
        await feed.ready(following)
        await tell(house)
        expected = await tell(house, "globex")
        assert await heard(following, 1) == expected


async def test_what_committed_before_is_not_told(house: House, feed: Feed) -> None:
    await tell(house)
    with feed.events(house.tenants["acme"].id) as following:
        await feed.ready(following)
        expected = await tell(house)
        assert await heard(following, 1) == expected


async def test_a_transaction_that_commits_late_is_not_passed_over(house: House, feed: Feed) -> None:
    with feed.events(house.tenants["acme"].id) as following:
        await feed.ready(following)
        async with AsyncExitStack() as late:
            unit = await late.enter_async_context(house.api.units.enter(house.tenants["acme"].id, None, write=True))
            first = told(unit)
            await unit.record()
            second = await tell(house)
        assert set(await heard(following, 2)) == {*first, *second}


async def test_more_than_a_page_at_once_is_told_whole(
    house: House, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tenants.feeds._PAGE", 2)
    with feed.events(house.tenants["acme"].id) as following:
        await feed.ready(following)
        expected = await tell(house, times=7)
        assert await heard(following, 7) == expected


async def test_a_reader_that_falls_behind_keeps_no_more_than_it_may() -> None:
    following = Following(clock=Hands())
    for _ in range(2 * MOST_WAITING):
        following.tell(fact(Hands.now))
    assert len(following._waiting) <= MOST_WAITING
    with pytest.raises(TooSlow):
        await heard(following, 1)


async def test_a_reader_gets_all_of_a_burst_in_handfuls() -> None:
    following, burst = Following(clock=Hands()), [fact(Hands.now) for _ in range(10_000)]
    for each in burst:
        following.tell(each)
    taken = [await anext(following.facts()) for _ in range(10_000 // MOST_TOGETHER)]
    assert [each for handful in taken for each in handful] == burst
    assert {len(handful) for handful in taken} == {MOST_TOGETHER}


@pytest.mark.parametrize(("waits", "is_late"), [(LONGEST_WAIT, False), (LONGEST_WAIT + 1, True)])
async def test_a_reader_is_late_by_how_long_the_oldest_waits(waits: float, is_late: bool) -> None:
    hands = Hands()
    following, oldest = Following(clock=hands), fact(hands.now)
    following.tell(oldest)
    hands.now += waits
    if is_late:
        with pytest.raises(TooSlow):
            await heard(following, 1)
        following.tell(fact(hands.now))
        assert not following._waiting
    else:
        assert await heard(following, 1) == [oldest.id]


async def test_what_does_not_concern_a_reader_does_not_wait_for_it(house: House, feed: Feed) -> None:
    asked: list[Fact] = []

    def ask(fact: Fact) -> bool:
        asked.append(fact)
        return False

    with feed.events(house.tenants["acme"].id, ask) as none:
        with feed.events(house.tenants["acme"].id) as every:
            await feed.ready(none)
            await feed.ready(every)
            expected = await tell(house)
            assert await heard(every, 1) == expected
        assert not none._waiting
    assert [(each.id, each.type) for each in asked] == [(expected[0], KIND.name)]


async def test_an_event_is_read_once_for_all_its_readers(
    house: House, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, read = [], feed._facts

    async def counted(*asked: Any) -> dict[UUID, Fact]:
        reads.append(asked)
        return await read(*asked)

    monkeypatch.setattr(feed, "_facts", counted)
    async with AsyncExitStack() as stack:
        many = [stack.enter_context(feed.events(house.tenants["acme"].id)) for _ in range(20)]
        for each in many:
            await feed.ready(each)
        expected = await tell(house)
        assert [await heard(each, 1) for each in many] == [expected] * 20
    assert reads == [(house.tenants["acme"].id, expected)]


async def test_what_could_not_be_read_is_told_later_and_once(
    house: House, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures, read = [DatabaseUnavailable(), DatabaseUnavailable()], feed._facts

    async def failing(tenant: Any, ids: Sequence[UUID]) -> dict[UUID, Fact]:
        if failures:
            raise failures.pop()
        return await read(tenant, ids)

    monkeypatch.setattr(feed, "_facts", failing)
    monkeypatch.setattr(feed, "_poll", 0.05)
    with feed.events(house.tenants["acme"].id) as following:
        await feed.ready(following)
        first = await tell(house, times=3)
        second = await tell(house)
        assert await heard(following, 4) == [*first, *second]
    assert not failures


async def test_a_feed_that_can_not_begin_says_that_the_database_is_away(
    house: House, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tenants.feeds.PATIENCE", 0.05)
    async with feed._platform.connection(), feed._platform.connection():
        with feed.events(house.tenants["acme"].id) as following, pytest.raises(DatabaseUnavailable):
            await feed.ready(following)


async def test_the_lag_begins_with_the_first_follower(house: House) -> None:
    hands = Hands()
    feed = Feed(house.api.platform, house.api.database, clock=hands)
    assert feed.lag() == 0
    for _ in range(2):
        with feed.events(house.tenants["acme"].id):
            assert feed.lag() == 0
            hands.now += 7
            with feed.events(house.tenants["globex"].id):
                assert feed.lag() == 7


async def test_a_job_that_moves_often_waits_once() -> None:
    job = uuid4()
    watching = Watching(job)
    for _ in range(1_000):
        watching.tell(job)
        watching.tell(uuid4())
    watching.end()
    assert [id async for id in watching.moves()] == [job]


async def test_without_followers_the_feed_holds_no_connection(house: House, feed: Feed) -> None:
    with feed.events(house.tenants["acme"].id) as following:
        await feed.ready(following)
    await tell(house)  # wakes the listener, which finds nobody
    async with asyncio.timeout(5):
        while feed._reader is not None and not feed._reader.done():  # noqa: ASYNC110  # it ends by itself
            await asyncio.sleep(0.01)
    with feed.events(house.tenants["acme"].id) as following:
        await feed.ready(following)
        expected = await tell(house)
        assert await heard(following, 1) == expected
