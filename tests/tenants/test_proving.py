"""The proof that a key is left finds what nobody declared: by Postgres' own catalogue, not by ours."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from local.postgres import Postgres
from tenants.errors import ColumnUnreadable, KeyStillUsed
from tenants.ids import new_id
from tenants.jobs import JobState
from tenants.keys import proving
from tenants.keys.proving import Coverage, Obstacle
from tenants.owned import TenantOwned, places
from tests.conftest import Vault
from tests.house import House
from tests.house import house as built
from tests.jobs.data_keys import Scene

ROWS = 3
TO_ALL = "GRANT SELECT ON stray TO coffer_app"


@pytest.fixture(scope="module")
async def apart(postgres_server: Postgres, vault: Vault) -> AsyncIterator[House]:
    """A database of its own: columns and tables come and go here."""
    async with built(postgres_server, vault, f"coffer_proving_{os.getpid()}", slugs=("acme",)) as made:
        yield made


@pytest.fixture
async def superuser(apart: House) -> AsyncIterator[asyncpg.Pool]:
    async with asyncpg.create_pool(apart.superuser_url, min_size=1, max_size=4) as pool:
        yield pool


@pytest.fixture
async def scene(apart: House, superuser: asyncpg.Pool) -> Scene:
    made = await Scene.made(apart, superuser)
    await made.fill(ROWS)
    return made


async def an_old_value(scene: Scene) -> bytes:
    raw = await scene.superuser.fetchval("SELECT profile FROM customers WHERE tenant_id = $1 LIMIT 1", scene.tenant)
    assert isinstance(raw, bytes)
    return raw


@asynccontextmanager
async def planted(scene: Scene, made: str, gone: str, *values: object) -> AsyncIterator[None]:
    """`made` are statements, the last of which takes the values; `gone` takes all of it away again."""
    *before, last = made.split(";")
    try:
        for statement in before:
            await scene.superuser.execute(statement)
        await scene.superuser.execute(last, *values)
        yield
    finally:
        await scene.superuser.execute(gone)


async def prove(scene: Scene, new: int) -> dict[str, object]:
    async with scene.fresh_units().enter(scene.tenant, None, write=False) as unit:
        return await proving.prove(unit, new_id(), new - 1, new)


async def counted(scene: Scene) -> list[Coverage]:
    async with scene.fresh_units().enter(scene.tenant, None, write=False) as unit:
        return await proving.count_versions(unit)


async def test_every_declared_column_is_looked_at(scene: Scene) -> None:
    async with scene.fresh_units().enter(scene.tenant, None, write=False) as unit:
        looked_at = {column.place for column in await proving.columns(unit.rows)}
    declared = {
        f"{mapper.class_.__tablename__}.{column}"
        for mapper in TenantOwned.registry.mappers
        for column in places(mapper.class_)
    }
    assert len(declared) > 10
    assert declared <= looked_at
    assert "subjects.secret" in looked_at


async def test_every_column_of_our_own_can_be_read(scene: Scene) -> None:
    async with scene.fresh_units().enter(scene.tenant, None, write=False) as unit:
        assert [column.place for column in await proving.columns(unit.rows) if not column.is_readable] == []


async def test_values_are_counted_by_place_and_version(scene: Scene) -> None:
    assert Coverage("customers.profile", 1, ROWS) in await counted(scene)
    await scene.rotate()
    assert {each.version for each in await counted(scene)} == {2}
    assert Coverage("customers.external_id", 2, ROWS) in await counted(scene)


async def test_another_tenants_values_are_not_counted(scene: Scene, apart: House) -> None:
    other = await Scene.made(apart, scene.superuser)
    assert [each for each in await counted(other) if each.place.startswith("customers.")] == []


async def test_a_declared_column_with_an_older_value_stops_the_proof(scene: Scene) -> None:
    assert (await prove(scene, 1))["toVersion"] == 1
    with pytest.raises(KeyStillUsed) as stopped:
        await prove(scene, 2)
    assert stopped.value.place == "customers.external_id"


PLANTED = {
    "a column of a declared table": (
        "ALTER TABLE customers ADD COLUMN stash bytea;UPDATE customers SET stash = $1",
        "ALTER TABLE customers DROP COLUMN stash",
        "customers.stash",
    ),
    "a table": (
        f"CREATE TABLE stray (value bytea);{TO_ALL};INSERT INTO stray VALUES ($1)",
        "DROP TABLE stray",
        "stray.value",
    ),
    "an array": (
        f"CREATE TABLE stray (many bytea[]);{TO_ALL};INSERT INTO stray VALUES (ARRAY[NULL, '\\x00', $1::bytea])",
        "DROP TABLE stray",
        "stray.many",
    ),
    "a domain": (
        f"CREATE DOMAIN raw AS bytea;CREATE TABLE stray (value raw);{TO_ALL};INSERT INTO stray VALUES ($1)",
        "DROP TABLE stray; DROP DOMAIN raw",
        "stray.value",
    ),
    "an array of a domain": (
        f"CREATE DOMAIN raw AS bytea;CREATE TABLE stray (value raw[]);{TO_ALL};"
        "INSERT INTO stray VALUES (ARRAY[$1::raw])",
        "DROP TABLE stray; DROP DOMAIN raw",
        "stray.value",
    ),
    "names that want quotes": (
        'CREATE TABLE "St:ray ""one" ("a :b" bytea);GRANT SELECT ON "St:ray ""one" TO coffer_app;'
        'INSERT INTO "St:ray ""one" VALUES ($1)',
        'DROP TABLE "St:ray ""one"',
        'St:ray "one.a :b',
    ),
    "a schema": (
        "CREATE SCHEMA aside;GRANT USAGE ON SCHEMA aside TO coffer_app;CREATE TABLE aside.stray (value bytea);"
        "GRANT SELECT ON aside.stray TO coffer_app;INSERT INTO aside.stray VALUES ($1)",
        "DROP SCHEMA aside CASCADE",
        "aside.stray.value",
    ),
    "a partition": (
        "CREATE TABLE stray (n int, value bytea) PARTITION BY LIST (n);"
        "CREATE TABLE stray_one PARTITION OF stray FOR VALUES IN (1);"
        f"{TO_ALL};GRANT SELECT ON stray_one TO coffer_app;INSERT INTO stray VALUES (1, $1)",
        "DROP TABLE stray",
        "stray_one.value",
    ),
}


@pytest.mark.parametrize("where", PLANTED)
async def test_a_value_sealed_by_hand_where_nobody_declared_it_is_found(scene: Scene, where: str) -> None:
    made, gone, place = PLANTED[where]
    value = await an_old_value(scene)
    async with planted(scene, made, gone, value):
        rotation, job = await scene.begin()
        assert await scene.lead(job) == JobState.PARKED
        assert (await scene.reason(job), (await scene.rotation(rotation)).state) == ("KEY_STILL_USED", "DRAINED")
        assert [(told["code"], told["place"]) for told in await scene.told("key.rotation.stopped")] == [
            ("KEY_STILL_USED", place)
        ]
        assert await scene.keys() == {1: "DECRYPT_ONLY", 2: "ACTIVE"}
    _, again = await scene.begin()
    assert await scene.lead(again) == JobState.DONE
    assert (await scene.rotation(rotation)).state == "RETIRED"


UNREADABLE = {
    "no right to the table": ("CREATE TABLE stray (value bytea)", "DROP TABLE stray", "stray.value"),
    "rows that are hidden": (
        f"CREATE TABLE stray (value bytea);{TO_ALL};ALTER TABLE stray ENABLE ROW LEVEL SECURITY",
        "DROP TABLE stray",
        "stray.value",
    ),
    "a schema that is closed": (
        "CREATE SCHEMA aside;CREATE TABLE aside.stray (value bytea);GRANT SELECT ON aside.stray TO coffer_app",
        "DROP SCHEMA aside CASCADE",
        "aside.stray.value",
    ),
    "bytes within a row": (
        f"CREATE TYPE pair AS (one bytea, two int);CREATE TABLE stray (value pair);{TO_ALL}",
        "DROP TABLE stray; DROP TYPE pair",
        "stray.value",
    ),
    "a range of bytes": (
        f"CREATE TYPE span AS RANGE (subtype = bytea);CREATE TABLE stray (value span);{TO_ALL}",
        "DROP TABLE stray; DROP TYPE span",
        "stray.value",
    ),
    "ranges of bytes in an array": (
        "CREATE TYPE span AS RANGE (subtype = bytea, multirange_type_name = spans);"
        f"CREATE TABLE stray (value spans[]);{TO_ALL}",
        "DROP TABLE stray; DROP TYPE span",
        "stray.value",
    ),
    "a large object": (
        "SELECT lo_from_bytea(0, '\\x00')",
        "SELECT lo_unlink(oid) FROM pg_largeobject_metadata",
        "pg_largeobject.data",
    ),
}


@pytest.mark.parametrize("why", UNREADABLE)
async def test_a_column_that_cannot_be_read_stops_the_proof(scene: Scene, why: str) -> None:
    made, gone, place = UNREADABLE[why]
    async with planted(scene, made, gone):
        with pytest.raises(ColumnUnreadable) as stopped:
            await prove(scene, 1)
        assert stopped.value.place == place
        await counted(scene)  # all the others
    await prove(scene, 1)


async def test_an_undeclared_value_of_the_new_key_is_counted_and_stops_nobody(scene: Scene) -> None:
    await scene.rotate()
    made = f"CREATE TABLE stray (value bytea);{TO_ALL};INSERT INTO stray VALUES ($1)"
    async with planted(scene, made, "DROP TABLE stray", await an_old_value(scene)):
        assert (await prove(scene, 2))["values"]["stray.value"] == {"2": 1}  # type: ignore[index]  # JSON


@pytest.mark.parametrize("value", [b"", b"\xc1\x01", bytes(82), b"\xc1\x01" + bytes(81), b"\xc1\x02" + bytes(80)])
async def test_bytes_of_another_shape_are_nothing_to_the_proof(scene: Scene, value: bytes) -> None:
    made = f"CREATE TABLE stray (value bytea);{TO_ALL};INSERT INTO stray VALUES ($1)"
    async with planted(scene, made, "DROP TABLE stray", value):
        assert "stray.value" not in {each.place for each in await counted(scene)}


async def test_another_catalogue_gives_another_proof(scene: Scene) -> None:
    before = await prove(scene, 1)
    async with planted(scene, f"CREATE TABLE stray (value bytea);{TO_ALL}", "DROP TABLE stray"):
        within = await prove(scene, 1)
    assert within["catalogue"] != before["catalogue"]
    assert (await prove(scene, 1))["catalogue"] == before["catalogue"]


async def test_where_rows_say_whose_they_are_another_tenants_stop_nobody(scene: Scene, apart: House) -> None:
    other = await Scene.made(apart, scene.superuser)
    await other.fill(1)
    made = f"CREATE TABLE stray (tenant_id uuid, value bytea);{TO_ALL};INSERT INTO stray VALUES ($1, $2)"
    async with planted(scene, made, "DROP TABLE stray", other.tenant, await an_old_value(other)):
        assert (await scene.rotate()).state == "RETIRED"
        with pytest.raises(KeyStillUsed) as stopped:
            await prove(other, 2)
    assert stopped.value.place.startswith(("customers.", "stray."))
    async with planted(scene, made, "DROP TABLE stray", None, await an_old_value(other)):
        with pytest.raises(KeyStillUsed) as stopped:
            await prove(scene, 2)
    assert stopped.value.place == "stray.value"


async def test_obstacles_are_told_before_they_stop_a_rotation(scene: Scene, apart: House) -> None:
    assert await proving.obstacles(apart.api.database) == []
    made, gone, place = PLANTED["names that want quotes"]
    async with planted(scene, made, gone, await an_old_value(scene)):
        assert await proving.obstacles(apart.api.database) == [Obstacle(place, is_readable=True)]
    async with planted(
        scene, f"CREATE TABLE stray (value bytea);{TO_ALL};INSERT INTO stray VALUES ($1)", "DROP TABLE stray", bytes(82)
    ):
        assert await proving.obstacles(apart.api.database) == []
    for made, gone, place in UNREADABLE.values():
        async with planted(scene, made, gone):
            assert await proving.obstacles(apart.api.database) == [Obstacle(place, is_readable=False)]
