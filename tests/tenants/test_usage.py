"""Usage is counted per tenant and hour, by many processes at once, and what the database did not take is not lost."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from tenants.database import Database
from tenants.usage import Tally
from tests.house import House

NOON = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)


async def kept(house: House, tenant: UUID) -> list[tuple[Any, ...]]:
    connection = await asyncpg.connect(house.superuser_url)
    try:
        statement = "SELECT hour, requests, cost, refused FROM usage_hours WHERE tenant_id = $1 ORDER BY hour"
        return [tuple(row) for row in await connection.fetch(statement, tenant)]
    finally:
        await connection.close()


async def test_counts_of_an_hour_add_up_over_processes(house: House) -> None:
    tenant = uuid4()
    tallies = [Tally(house.api.counting, lambda: NOON) for _ in range(3)]
    for tally in tallies:
        tally.count(tenant, requests=2, cost=10)
        tally.count(tenant, requests=1, refused=1)
    await asyncio.gather(*(tally.close() for tally in tallies))

    assert await kept(house, tenant) == [(NOON.replace(minute=0), 9, 30, 3)]


async def test_each_hour_and_each_tenant_has_its_own_row(house: House) -> None:
    one, other, now = uuid4(), uuid4(), [NOON]
    tally = Tally(house.api.counting, lambda: now[0])
    tally.count(one, requests=1)
    tally.count(other, requests=5)
    now[0] += timedelta(hours=1)
    tally.count(one, requests=2)
    await tally.close()

    assert [row[1] for row in await kept(house, one)] == [1, 2]
    assert [row[1] for row in await kept(house, other)] == [5]


async def test_what_was_written_is_not_written_again(house: House) -> None:
    tenant, tally = uuid4(), Tally(house.api.counting, lambda: NOON)
    tally.count(tenant, requests=1)
    await tally.flush()
    await tally.close()

    assert [row[1] for row in await kept(house, tenant)] == [1]


async def test_counts_wait_for_a_database_that_is_away(house: House) -> None:
    nowhere = Database("postgresql+asyncpg://coffer_app@127.0.0.1:1/none", pool_size=1)
    tenant, tally = uuid4(), Tally(nowhere, lambda: NOON)
    tally.count(tenant, requests=3)
    await tally.flush()
    tally._counting = house.api.counting
    await tally.close()
    await nowhere.close()

    assert [row[1] for row in await kept(house, tenant)] == [3]


async def test_counting_touches_no_database(house: House) -> None:
    nowhere = Database("postgresql+asyncpg://coffer_app@127.0.0.1:1/none", pool_size=1)
    tally = Tally(nowhere, lambda: NOON)
    for _ in range(10_000):
        tally.count(UUID(int=1), requests=1)

    assert tally._counts[UUID(int=1), NOON.replace(minute=0)]["requests"] == 10_000
    await tally.close()
    await nowhere.close()
