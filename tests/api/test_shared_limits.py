"""Limits that processes share in a real Redis, and what is left of them while Redis is slow or away."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from api.buckets import Draw, Quota
from api.shared_buckets import SharedBuckets
from tenants.access import Role
from tests.api.test_rates import MEMBER, Tight, process
from tests.house import House
from tests.jobs.proxies import Proxy, proxy

REDIS = os.environ.get("COFFER_TEST_REDIS_URL", "")
pytestmark = pytest.mark.skipif(not REDIS, reason="COFFER_TEST_REDIS_URL is not set")
QUOTA = Quota("test", 50, 0.001)


@asynccontextmanager
async def shared(url: str = REDIS) -> AsyncIterator[SharedBuckets]:
    made = SharedBuckets(url)
    try:
        await asyncio.wait_for(made.reach(), 10)
        yield made
    finally:
        await made.close()


@asynccontextmanager
async def between() -> AsyncIterator[tuple[Proxy, SharedBuckets]]:
    """Buckets that reach Redis by a proxy."""
    async with (
        proxy("127.0.0.1", urlsplit(REDIS).port or 6379) as made,
        shared(f"redis://127.0.0.1:{made.here}/0") as buckets,
    ):
        yield made, buckets


async def sharing(tight: Tight) -> None:
    assert tight.api.shared_limits is not None
    await asyncio.wait_for(tight.api.shared_limits.reach(), 10)


async def test_parallel_draws_of_two_processes_get_what_there_is_and_no_more() -> None:
    async with shared() as one, shared() as other:
        tenant = uuid4().hex
        draws = [each.take([Draw(QUOTA, "who", 1)], tenant) for each in [one, other] * 100]
        taken = [await asyncio.gather(*draws[start : start + 8]) for start in range(0, 200, 8)]

    answers = [left[0] for batch in taken for left in batch if left is not None]
    assert len(answers) == 200
    assert sum(not left.wait for left in answers) == QUOTA.burst


async def test_what_is_refused_takes_from_no_shared_bucket() -> None:
    async with shared() as buckets:
        tenant, small = uuid4().hex, Quota("small", 1, 0.001)
        await buckets.take([Draw(small, "who", 1)], tenant)
        refused = await buckets.take([Draw(QUOTA, "who", 5), Draw(small, "who", 1)], tenant)
        left = await buckets.take([Draw(QUOTA, "who", 0)], tenant)

    assert refused is not None and refused[1].wait > 900
    assert left is not None and left[0].tokens == QUOTA.burst


async def test_a_bucket_that_is_full_again_leaves_nothing_behind() -> None:
    async with shared() as buckets:
        tenant = uuid4().hex
        await buckets.take([Draw(Quota("quick", 10, 10.0), "who", 1)], tenant)
        lives = await buckets._client.pttl(f"coffer:rate:{{{tenant}}}:quick:who")

    assert 0 < lives <= 2_000


async def test_two_processes_share_the_limit_of_a_member(house: House) -> None:
    began = time.monotonic()
    async with process(house, limits_url=REDIS) as one, process(house, limits_url=REDIS) as other:
        await sharing(one)
        await sharing(other)
        statuses = [status for each in (one, other) for status in await each.flood(MEMBER, role=Role.AUDITOR)]

    came_back = time.monotonic() - began
    assert MEMBER <= statuses.count(200) <= MEMBER + came_back + 1
    assert statuses.count(429) == 2 * MEMBER - statuses.count(200)


async def test_without_redis_each_process_keeps_its_own_limits(house: House) -> None:
    async with process(house, limits_url="redis://127.0.0.1:1/0") as alone:
        assert await alone.flood(MEMBER + 2) == [200] * MEMBER + [429] * 2
        assert alone.api.shared_limits is not None and not alone.api.shared_limits.is_up


async def test_a_redis_that_hangs_costs_one_request_little_and_the_next_ones_nothing() -> None:
    async with between() as (redis, buckets):
        redis.hangs = True
        began = time.monotonic()
        answers = [await buckets.take([Draw(QUOTA, "who", 1)], uuid4().hex) for _ in range(100)]
        took = time.monotonic() - began

    assert answers == [None] * 100
    assert took < 1.0  # one wait of 50 ms, with room for a busy machine; not a hundred


async def test_limits_are_shared_again_once_redis_is_back() -> None:
    async with between() as (redis, buckets):
        await redis.off()
        assert await buckets.take([Draw(QUOTA, "who", 1)], uuid4().hex) is None
        await redis.on()
        await asyncio.wait_for(buckets.reach(), 10)

        assert await buckets.take([Draw(QUOTA, "who", 1)], uuid4().hex)
