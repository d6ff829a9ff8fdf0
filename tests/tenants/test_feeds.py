"""The feed: ids as they commit, in whatever order transactions end, and never more than a reader may keep."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from uuid import UUID, uuid4

import pytest

from tenants import events
from tenants.database import Database
from tenants.errors import TooSlow
from tenants.feeds import MOST_WAITING, Feed, Following
from tenants.unit import Unit
from tests.house import House

KIND = events.KINDS["customer.archived"]


@pytest.fixture
async def feed(house: House) -> AsyncIterator[Feed]:
    platform = Database(house.api.settings.platform_database_url, pool_size=2)
    made = Feed(platform)
    yield made
    await made.close()
    await platform.close()


async def heard(following: Following, count: int) -> list[UUID]:
    ids = following.ids()
    async with asyncio.timeout(5):
        return [await anext(ids) for _ in range(count)]


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
    following = Following(None)
    for _ in range(10 * MOST_WAITING):
        following.tell(uuid4())
    assert len(following._waiting) <= MOST_WAITING + 1
    with pytest.raises(TooSlow):
        await heard(following, 1)


async def test_a_job_that_moves_often_waits_once() -> None:
    job = uuid4()
    following = Following(job)
    for _ in range(10 * MOST_WAITING):
        following.tell(job)
    following.end()
    assert [id async for id in following.ids()] == [job]


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
