"""A dump holds every row of one tenant at one moment, parents first, and nothing that opens anything."""

import asyncio
import json
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from sqlalchemy import Column as Col
from sqlalchemy import LargeBinary, MetaData, Table, Text, Uuid

from migrations.apply import newest
from tenants.backups import dumping
from tenants.backups.dumping import Dump
from tenants.database import Database
from tenants.errors import Unauthenticated
from tenants.ids import new_id
from tenants.owned import Backup, TenantOwned
from tenants.tenants import Tenant
from tenants.viewers import TenantId
from tests.house import House

WIDE = """INSERT INTO tags (tenant_id, id, name, created_at)
    SELECT $1, gen_random_uuid(), '\\xc101'::bytea || decode(repeat('ab', 240), 'hex'), now()
    FROM generate_series(1, $2)"""
ODD = 'a"\\N\\.,\n\r\t\x01\x02\u2028\U0001f600'  # what CSV or JSON would escape


@pytest.fixture
async def database(house: House) -> AsyncIterator[Database]:
    opened = Database(house.api.settings.database_url, pool_size=2)
    yield opened
    await opened.close()


@pytest.fixture
async def tenant(house: House) -> Tenant:
    return await house.add_tenant(f"dump-{new_id().hex[-12:]}")


@pytest.fixture
async def superuser(house: House) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(house.superuser_url)
    yield connection
    await connection.close()


async def rows_of(dump: Dump) -> tuple[dict[str, Any], list[tuple[str, dict[str, Any]]], dict[str, int]]:
    """The head, all rows with their table, and the counts at the end."""
    records = [record.partition(b"\n") async for record in dump.records]
    assert (records[0][0], records[-1][0]) == (dumping.HEAD, dumping.END)
    rows = [(name.decode(), json.loads(line)) for name, _, lines in records[1:-1] for line in lines.splitlines()]
    return json.loads(records[0][2]), rows, json.loads(records[-1][2])


async def test_every_row_of_the_tenant_and_no_others_is_there(
    house: House, database: Database, tenant: Tenant, superuser: asyncpg.Connection
) -> None:
    made = [await house.create(tenant=tenant.slug, givenName="Ann") for _ in range(3)]
    await superuser.execute("INSERT INTO teams VALUES ($1, $2, $3, now())", tenant.id, new_id(), ODD)
    await house.create(tenant="globex", givenName="Other")
    async with dumping.snapshot(database, tenant.id, newest()) as dump:
        head, rows, counts = await rows_of(dump)
    there = {
        table: await superuser.fetchval(f"SELECT count(*) FROM {table} WHERE tenant_id = $1", tenant.id)
        for table in counts
    }

    assert counts == there == dump.rows
    assert Counter(name for name, _ in rows) == {name: count for name, count in counts.items() if count}
    assert (counts["customers"], dump.total) == (len(made), sum(counts.values()))
    assert {row["tenant_id"] for _, row in rows} == {str(tenant.id)}
    assert [row["name"] for name, row in rows if name == "teams"] == [ODD]
    epoch = await superuser.fetchval("SELECT key_epoch FROM tenants WHERE id = $1", tenant.id)
    assert (head["revision"], head["epoch"], dump.dek_versions) == (newest(), epoch, (1,))


async def test_values_are_as_the_database_has_them(
    house: House, database: Database, tenant: Tenant, superuser: asyncpg.Connection
) -> None:
    await house.create(tenant=tenant.slug, givenName="Ann")
    row = await superuser.fetchrow("SELECT * FROM customers WHERE tenant_id = $1", tenant.id)
    assert row is not None
    async with dumping.snapshot(database, tenant.id, newest()) as dump:
        head, rows, _ = await rows_of(dump)
    (found,) = [each for name, each in rows if name == "customers"]

    assert list(found) == head["tables"]["customers"]["columns"] == list(row.keys())
    assert found["profile"] == "\\x" + row["profile"].hex()
    assert (found["id"], found["note"], found["version"]) == (str(row["id"]), None, row["version"])


async def test_parents_come_before_their_children(database: Database, tenant: Tenant) -> None:
    async with dumping.snapshot(database, tenant.id, newest()) as dump:
        head, _, _ = await rows_of(dump)
    seen: set[str] = set()
    for name in head["tables"]:
        parents = {key.column.table.name for key in TenantOwned.metadata.tables[name].foreign_keys}
        assert parents - {name} <= seen
        seen.add(name)


async def test_no_key_token_or_password_is_in_it(
    house: House, database: Database, tenant: Tenant, superuser: asyncpg.Connection
) -> None:
    await house.create(tenant=tenant.slug, emails=["ann@example.org"], governmentId="X12345")
    async with dumping.snapshot(database, tenant.id, newest()) as dump:
        content = b"\n".join([record async for record in dump.records])
    secrets = [
        *(row[0] for row in await superuser.fetch("SELECT secret FROM subjects WHERE tenant_id = $1", tenant.id)),
        *(row[0] for row in await superuser.fetch("SELECT token FROM customer_tokens WHERE tenant_id = $1", tenant.id)),
        *(row[0] for row in await superuser.fetch("SELECT token FROM member_tokens WHERE tenant_id = $1", tenant.id)),
        *(row[0] for row in await superuser.fetch("SELECT check_value FROM data_keys WHERE tenant_id = $1", tenant.id)),
    ]

    assert len(secrets) > 10
    assert [secret for secret in secrets if secret in content or secret.hex().encode() in content] == []
    assert [word for word in (b"vault:v", b"argon2", b"password_hash") if word in content] == []


def test_only_tables_with_a_policy_are_dumped_and_all_of_them() -> None:
    policies = {mapper.class_.__tablename__: mapper.class_.backup for mapper in TenantOwned.registry.mappers}

    assert {each.name for each in dumping.dumped()} == {
        name for name, policy in policies.items() if policy is not Backup.NEVER
    }
    assert {each.name: each.restore for each in dumping.dumped()}["customers"] is Backup.DATA


@pytest.mark.parametrize("column", [Col("token", Text), Col("api_key", Text), Col("digest", LargeBinary)])
def test_a_column_that_looks_like_a_key_is_refused(column: "Col[Any]") -> None:
    table = Table("made_up", MetaData(), Col("tenant_id", Uuid, primary_key=True), column)

    with pytest.raises(TypeError, match="looks like a key"):
        dumping.columns_of(table)


def test_what_is_left_out_must_be_there() -> None:
    with pytest.raises(TypeError, match="no column password_hash"):
        dumping.columns_of(Table("members", MetaData(), Col("tenant_id", Uuid, primary_key=True)))


async def test_what_changes_meanwhile_is_not_in_it(house: House, database: Database, tenant: Tenant) -> None:
    await house.create(tenant=tenant.slug, givenName="Before")
    async with dumping.snapshot(database, tenant.id, newest()) as dump:
        await house.create(tenant=tenant.slug, givenName="After")
        _, _, counts = await rows_of(dump)

    assert counts["customers"] == 1


async def test_an_unknown_tenant_is_refused(database: Database) -> None:
    with pytest.raises(Unauthenticated):
        async with dumping.snapshot(database, TenantId(new_id()), newest()):
            raise AssertionError("nobody comes here")


async def test_memory_does_not_grow_with_the_tenant(
    database: Database, tenant: Tenant, superuser: asyncpg.Connection
) -> None:
    await superuser.execute(WIDE, tenant.id, 60_000)
    largest = count = 0
    tracemalloc.start()
    try:
        async with dumping.snapshot(database, tenant.id, newest()) as dump:
            async for record in dump.records:
                largest, count = max(largest, len(record)), count + 1
                await asyncio.sleep(0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert dump.rows["tags"] == 60_000
    assert (count > 10, largest <= (1 << 20) + 10, peak < 8 << 20) == (True, True, True)


@pytest.mark.parametrize("taken", [0, 1, 2, 5])
async def test_a_dump_that_is_given_up_leaves_its_connection_usable(
    database: Database, tenant: Tenant, superuser: asyncpg.Connection, taken: int
) -> None:
    await superuser.execute(WIDE, tenant.id, 30_000)
    for _ in range(3):  # of two connections
        async with dumping.snapshot(database, tenant.id, newest()) as dump:
            for _ in range(taken):
                await anext(dump.records)
    async with dumping.snapshot(database, tenant.id, newest()) as dump:
        _, _, counts = await rows_of(dump)

    assert counts["tags"] == 30_000
