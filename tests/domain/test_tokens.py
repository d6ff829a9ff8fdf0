"""While an index key turns over, whoever writes a value writes its tokens by both keys; readers search by one."""

from collections import Counter
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from crypto.keys import KeyState, Purpose
from domain import customers, outcomes
from domain.customers.tokens import tokens_of
from domain.indexes import INDEXES
from domain.paging import Window
from tenants import members
from tenants.access import Role
from tenants.errors import MemberExists, RotationRefused
from tenants.keys import index_keys, new_keys
from tenants.owned import TenantOwned
from tenants.viewers import TenantId
from tests.house import House


@pytest.fixture
async def superuser(house: House) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(house.superuser_url)
    yield connection
    await connection.close()


@pytest.fixture
async def tenant(house: House) -> TenantId:
    """Whose next index key is announced."""
    made = (await house.provisioning.provision(f"tokens-{uuid4().hex[:12]}", "Tokens")).id
    maker = house.provisioning._maker
    key = await new_keys.make(maker, house.api.keys, made, Purpose.BIK, 2, KeyState.NEXT)
    async with house.api.units.enter(made, None, write=True, fences=True) as unit:
        await index_keys.announce(unit, key)
    return made


async def versions(superuser: asyncpg.Connection, tenant: TenantId, table: str) -> dict[int, int]:
    rows = await superuser.fetch(f"SELECT bik_version, count(*) FROM {table} WHERE tenant_id = $1 GROUP BY 1", tenant)
    return {row["bik_version"]: row["count"] for row in rows}


async def test_a_value_that_is_made_changed_and_taken_away_has_its_tokens_by_both_keys(
    house: House, superuser: asyncpg.Connection, tenant: TenantId
) -> None:
    seen: list[dict[int, int]] = []
    async with house.api.units.enter(tenant, None, write=True) as unit:
        owner = await members.add(unit, email="o@example.org", name="O", password_hash=None, roles=[Role.OWNER])
        made = await customers.create(
            unit, {"emails": ("a@example.org",), "external_id": "X-100001", "given_name": "Li"}
        )
    seen.append(await versions(superuser, tenant, "customer_tokens"))
    changes: list[dict[str, Any]] = [{"emails": ("a@example.org", "b@example.org")}, {"external_id": None}]
    for number, sent in enumerate(changes, start=1):
        async with house.api.units.enter(tenant, owner, write=True) as unit:
            await customers.update(unit, made.id, number, sent)
        seen.append(await versions(superuser, tenant, "customer_tokens"))
    assert seen == [{1: 3, 2: 3}, {1: 4, 2: 4}, {1: 3, 2: 3}]


async def test_tokens_stand_by_the_active_key_first_and_differ_by_key(house: House, tenant: TenantId) -> None:
    async with house.api.units.enter(tenant, None, write=False) as unit:
        documents = {name: made() for name, made in customers.DOCUMENTS.items()}
        documents["external_id"] = customers.ExternalId(external_id="X")
        rows = tokens_of(unit, tenant, customers.FIELDS, documents)
        only_new = tokens_of(unit, tenant, customers.FIELDS, documents, [2])
    assert [row["bik_version"] for row in rows] == [1, 2]
    assert rows[0]["token"] != rows[1]["token"]
    assert only_new == rows[1:]


async def test_readers_search_by_the_active_key(house: House, superuser: asyncpg.Connection, tenant: TenantId) -> None:
    async with house.api.units.enter(tenant, None, write=True) as unit:
        await customers.create(unit, {"external_id": "X-100001"})
    found: list[int] = []
    for version in (2, 1):
        await superuser.execute(
            "DELETE FROM customer_tokens WHERE tenant_id = $1 AND bik_version = $2", tenant, version
        )
        async with house.api.units.enter(tenant, None, write=False) as unit:
            found.append(len((await customers.find(unit, "external_id", "X-100001", Window(5))).nodes))
    assert found == [1, 0]


async def test_a_member_has_tokens_by_both_keys_and_its_e_mail_alone(
    house: House, superuser: asyncpg.Connection, tenant: TenantId
) -> None:
    async with house.api.units.enter(tenant, None, write=True) as unit:
        await members.add(unit, email="Eve@example.org", name="Eve", password_hash=None, roles=[])
    with pytest.raises(MemberExists):
        async with house.api.units.enter(tenant, None, write=True) as unit:
            await members.add(unit, email="eve@example.org", name="Twin", password_hash=None, roles=[])
    assert await versions(superuser, tenant, "member_tokens") == {1: 1, 2: 1}


async def test_keys_change_over_once(house: House, tenant: TenantId) -> None:
    async with house.api.units.enter(tenant, None, write=True, fences=True) as unit:
        await index_keys.switch(unit, 1, 2)
    with pytest.raises(RotationRefused):
        async with house.api.units.enter(tenant, None, write=True, fences=True) as unit:
            await index_keys.switch(unit, 1, 2)
    async with house.api.units.enter(tenant, None, write=False) as unit:
        assert (unit.keyring.index_versions(), unit.keyring.index_key_versions()) == ((2,), (2, 1))


def test_every_table_of_tokens_turns_over() -> None:
    tables = TenantOwned.metadata.tables.values()
    bearing = Counter(table.name for table in tables if "bik_version" in table.columns)
    assert bearing == Counter(index.tokens.__tablename__ for index in INDEXES)


def test_an_old_key_stays_as_long_as_anything_it_authenticated_is_asked_for() -> None:
    assert index_keys.GRACE > outcomes.KEPT
