"""What a tenant uses over GraphQL: its own, by the hour and by the night, for those who manage the tenant."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest

from domain import usage
from domain.usage import keep_size
from tenants.access import Role
from tenants.viewers import TenantId
from tests.house import House
from tests.served import served

COUNTS = "requests cost refused plain masked"
USAGE = f"""query($from: DateTime, $to: DateTime) {{ usage(from: $from, to: $to) {{
  hours {{ hour counts {{ {COUNTS} }} }} total {{ {COUNTS} }}
  days {{ day customers storageBytes }} now {{ customers storageBytes measuredAt }} }} }}"""
ME = "{ me { id } }"


@pytest.fixture
async def slug(house: House) -> AsyncIterator[str]:
    """A tenant that used nothing before the test."""
    name = f"usage-{uuid4().hex[:10]}"
    await house.add_tenant(name)
    yield name


async def used(house: House, slug: str, **asked: Any) -> dict[str, Any]:
    await house.api.tally.flush()
    found: dict[str, Any] = (await house.data(USAGE, asked, tenant=slug))["usage"]
    return found


async def test_requests_and_their_cost_are_counted_for_the_tenant_alone(house: House, slug: str) -> None:
    for _ in range(3):
        await house.data(ME, tenant=slug)
    await house.ask("{ nonsense }", tenant=slug)
    await house.data(ME, tenant="globex")
    found = await used(house, slug)

    assert found["total"]["requests"] == 4
    assert found["total"]["cost"] == 6  # two fields each; what is not valid costs nothing
    assert sum(each["counts"]["requests"] for each in found["hours"]) == 4


async def test_a_process_that_is_asked_to_stop_writes_what_it_counted(house: House, slug: str) -> None:
    headers = {"authorization": f"Bearer {await house.token(house.members[slug][Role.OWNER])}"}
    async with served(house) as process, httpx.AsyncClient(base_url=process.address, headers=headers) as client:
        for _ in range(3):
            assert (await client.post("/graphql", json={"query": ME})).is_success

    assert (await used(house, slug))["total"]["requests"] == 3


async def test_values_that_left_are_counted_by_the_hour(house: House, slug: str) -> None:
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    connection = await asyncpg.connect(house.superuser_url)
    statement = "INSERT INTO disclosure_counters (tenant_id, viewer, hour, records, plain, masked)"
    for viewer, at in ((uuid4(), hour), (uuid4(), hour), (uuid4(), hour - timedelta(hours=2))):
        await connection.execute(f"{statement} VALUES ($1, $2, $3, 1, 7, 3)", house.tenants[slug].id, viewer, at)
    await connection.close()
    found = await used(house, slug)

    assert [(each["counts"]["plain"], each["counts"]["masked"]) for each in found["hours"]] == [(7, 3), (14, 6)]
    assert (found["total"]["plain"], found["total"]["masked"]) == (21, 9)


async def test_hours_outside_of_the_question_are_left_out(house: House, slug: str) -> None:
    await house.data(ME, tenant=slug)
    yesterday = datetime.now(UTC) - timedelta(days=1)
    found = await used(house, slug, **{"from": yesterday - timedelta(days=2), "to": yesterday})

    assert found["hours"] == []
    assert found["total"]["requests"] == 0


async def test_a_question_spans_31_days_at_most(house: House, slug: str) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=32)
    answer = await house.ask(USAGE, {"from": long_ago}, tenant=slug)

    assert answer["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"
    assert answer["data"] == {"usage": None}


async def test_the_size_of_now_counts_customers_and_sealed_bytes(house: House, slug: str) -> None:
    before = (await used(house, slug))["now"]
    for number in range(3):
        await house.create(tenant=slug, givenName=f"Ada{number}", note="x" * 1_000)
    now = (await used(house, slug))["now"]

    assert (before["customers"], now["customers"]) == (0, 3)
    assert 3_000 < now["storageBytes"] - before["storageBytes"] < 6_000


async def test_a_tenant_with_much_is_told_what_the_last_night_found(
    house: House, slug: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage, "AT_ONCE", 1)
    await house.create(tenant=slug, givenName="Ada")
    unknown = (await used(house, slug))["now"]
    async with house.api.units.enter(TenantId(house.tenants[slug].id), None, write=True) as unit:
        await keep_size(unit)
        await keep_size(unit)
    await house.create(tenant=slug, givenName="Grace")
    found = await used(house, slug)

    assert unknown is None
    assert (found["now"]["customers"], [each["customers"] for each in found["days"]]) == (1, [1])


@pytest.mark.parametrize("role", [role for role in Role if role not in (Role.OWNER, Role.ADMIN)])
async def test_only_those_who_manage_the_tenant_see_its_usage(house: House, role: Role) -> None:
    answer = await house.ask(USAGE, role=role)

    assert answer["data"] == {"usage": None}
    assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"
