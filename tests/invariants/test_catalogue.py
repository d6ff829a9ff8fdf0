"""The database itself keeps tenants apart, and start-up names each thing that would let them through."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import asyncpg
import pytest

from domain import tables
from local.postgres import Postgres, create_roles_and_database
from migrations.apply import drift, upgrade
from tenants import catalogue
from tenants.database import Database
from tenants.errors import UnsafeDatabase
from tenants.ids import new_id

pytestmark = pytest.mark.database


@dataclass(frozen=True, slots=True)
class Fresh:
    """A database of our own on the session's server, brought to the newest revision."""

    server: Postgres
    name: str

    def url(self, role: str, scheme: str = "postgresql+asyncpg") -> str:
        return self.server.url(role, self.name, scheme=scheme)

    @asynccontextmanager
    async def connect(self, role: str | None = None) -> AsyncIterator[asyncpg.Connection]:
        """As that role, or as the superuser."""
        superuser = urlsplit(self.server.superuser_url).username or "postgres"
        connection = await asyncpg.connect(self.url(role or superuser, "postgresql"))
        try:
            yield connection
        finally:
            await connection.close()

    async def act(self, *statements: str) -> None:
        async with self.connect() as superuser:
            for statement in statements:
                await superuser.execute(statement)

    async def problems(self, role: str = catalogue.APP) -> list[str]:
        database = Database(self.url(role), pool_size=1)
        try:
            return await catalogue.problems(database, catalogue.APP)
        finally:
            await database.close()


@pytest.fixture(scope="module")
async def fresh(postgres_server: Postgres) -> AsyncIterator[Fresh]:
    tables.load()
    made = Fresh(postgres_server, f"coffer_catalogue_{os.getpid()}")
    await asyncio.to_thread(create_roles_and_database, postgres_server, made.name)
    try:
        await asyncio.to_thread(upgrade, made.url(catalogue.OWNER))
        yield made
    finally:
        connection = await asyncpg.connect(postgres_server.superuser_url)
        await connection.execute(f"DROP DATABASE {made.name} WITH (FORCE)")
        await connection.close()


async def test_a_migrated_database_is_as_promised(fresh: Fresh) -> None:
    assert await fresh.problems() == []


async def test_code_and_database_do_not_drift_apart(fresh: Fresh) -> None:
    assert await asyncio.to_thread(drift, fresh.url(catalogue.OWNER)) is None


async def test_migrating_again_changes_nothing(fresh: Fresh) -> None:
    await asyncio.to_thread(upgrade, fresh.url(catalogue.OWNER))
    assert await fresh.problems() == []


_OWN = "tenant_id = current_setting('coffer.tenant')::uuid"
_SEALED = (
    "octet_length(profile) >= 82 AND (octet_length(profile) - 50) % 32 = 0"
    " AND substring(profile FROM 1 FOR 2) = '\\xc101'::bytea"
)
_CHECK = "ALTER TABLE customers {} CONSTRAINT ck_customers_profile_sealed"
# What is planted, how it is undone, what is said of it. Roles belong to the whole server: they are always undone.
PLANTED = {
    "a table without FORCE": (
        "ALTER TABLE customers NO FORCE ROW LEVEL SECURITY",
        "ALTER TABLE customers FORCE ROW LEVEL SECURITY",
        "table customers lacks ENABLE or FORCE",
    ),
    "a table without row-level security": (
        "ALTER TABLE subjects DISABLE ROW LEVEL SECURITY",
        "ALTER TABLE subjects ENABLE ROW LEVEL SECURITY",
        "table subjects lacks ENABLE or FORCE",
    ),
    "a table of another owner": (
        "ALTER TABLE tags OWNER TO coffer_platform",
        "ALTER TABLE tags OWNER TO coffer_owner; REVOKE ALL ON tags FROM coffer_platform",
        "tags is owned by coffer_platform",
    ),
    "an undeclared table": ("CREATE TABLE copies (a text)", "DROP TABLE copies", "table copies belongs to nobody"),
    "a view": ("CREATE VIEW peek AS SELECT * FROM customers", "DROP VIEW peek", "peek is a view"),
    "a materialised view": (
        "CREATE MATERIALIZED VIEW frozen AS SELECT * FROM customers",
        "DROP MATERIALIZED VIEW frozen",
        "frozen is a view",
    ),
    "a view in another schema": (
        "CREATE SCHEMA side; CREATE VIEW side.peek AS TABLE customers; GRANT USAGE ON SCHEMA side TO coffer_app",
        "DROP SCHEMA side CASCADE",
        "schema side is open to coffer_app",
    ),
    "a function with its owner's rights": (
        "CREATE FUNCTION peek() RETURNS SETOF customers LANGUAGE sql SECURITY DEFINER AS 'SELECT * FROM customers'",
        "DROP FUNCTION peek",
        "function peek runs with its owner's rights",
    ),
    "an undeclared function": (
        "CREATE FUNCTION peek() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "DROP FUNCTION peek",
        "function peek belongs to nobody",
    ),
    "coffer_enter with its owner's rights": (
        "ALTER FUNCTION coffer_enter SECURITY DEFINER",
        "ALTER FUNCTION coffer_enter SECURITY INVOKER",
        "function coffer_enter runs with its owner's rights",
    ),
    "coffer_enter of another owner": (
        "ALTER FUNCTION coffer_enter OWNER TO coffer_platform",
        "ALTER FUNCTION coffer_enter OWNER TO coffer_owner",
        "function coffer_enter is owned by coffer_platform, not coffer_owner",
    ),
    "a right too many": (
        "GRANT TRUNCATE ON customers TO coffer_app",
        "REVOKE TRUNCATE ON customers FROM coffer_app",
        "coffer_app has TRUNCATE on customers, one right too many",
    ),
    "a right for everybody": (
        "GRANT SELECT ON customers TO PUBLIC",
        "REVOKE SELECT ON customers FROM PUBLIC",
        "PUBLIC has SELECT on customers",
    ),
    "a right on one column": (
        "GRANT UPDATE (wrapped) ON data_keys TO coffer_app",
        "REVOKE UPDATE (wrapped) ON data_keys FROM coffer_app",
        "coffer_app has UPDATE on data_keys.wrapped",
    ),
    "a right of the platform on tenants' rows": (
        "GRANT SELECT (profile) ON customers TO coffer_platform",
        "REVOKE SELECT (profile) ON customers FROM coffer_platform",
        "coffer_platform has SELECT on customers.profile",
    ),
    "a right too few": (
        "REVOKE DELETE ON customers FROM coffer_app",
        "GRANT DELETE ON customers TO coffer_app",
        "coffer_app lacks DELETE on customers",
    ),
    "a role past row-level security": (
        "ALTER ROLE coffer_app BYPASSRLS",
        "ALTER ROLE coffer_app NOBYPASSRLS",
        "role coffer_app has superuser, BYPASSRLS or CREATE rights",
    ),
    "a role in another role": (
        "GRANT coffer_owner TO coffer_app",
        "REVOKE coffer_owner FROM coffer_app",
        "role coffer_app is a member of another role",
    ),
    "a role that may create": (
        "GRANT CREATE ON SCHEMA public TO coffer_app",
        "REVOKE CREATE ON SCHEMA public FROM coffer_app",
        "role coffer_app may create objects",
    ),
    "a changed policy": (
        "ALTER POLICY own_tenant ON customers USING (true)",
        f"ALTER POLICY own_tenant ON customers USING ({_OWN})",
        "policy own_tenant on customers is missing or changed",
    ),
    "a policy that checks no writes": (
        "ALTER POLICY own_tenant ON customers WITH CHECK (true)",
        f"ALTER POLICY own_tenant ON customers WITH CHECK ({_OWN})",
        "policy own_tenant on customers is missing or changed",
    ),
    "a policy too many": (
        "CREATE POLICY more ON customers TO coffer_app USING (true)",
        "DROP POLICY more ON customers",
        "policy more on customers is not ours",
    ),
    "a dropped policy": (
        "DROP POLICY own_tenant ON tags",
        f"CREATE POLICY own_tenant ON tags TO coffer_app USING ({_OWN}) WITH CHECK ({_OWN})",
        "policy own_tenant on tags is missing or changed",
    ),
    "a dropped check of a sealed column": (
        _CHECK.format("DROP"),
        _CHECK.format("ADD") + f" CHECK ({_SEALED})",
        "customers.profile may hold plaintext",
    ),
    "a softened check of a sealed column": (
        f"{_CHECK.format('DROP')}; {_CHECK.format('ADD')} CHECK ({_SEALED} OR true)",
        f"{_CHECK.format('DROP')}; {_CHECK.format('ADD')} CHECK ({_SEALED})",
        "customers.profile may hold plaintext",
    ),
    "a check that old rows need not pass": (
        f"{_CHECK.format('DROP')}; {_CHECK.format('ADD')} CHECK ({_SEALED}) NOT VALID",
        f"{_CHECK.format('DROP')}; {_CHECK.format('ADD')} CHECK ({_SEALED})",
        "customers.profile may hold plaintext",
    ),
}


@pytest.mark.parametrize(("plant", "undo", "said"), PLANTED.values(), ids=PLANTED)
async def test_what_would_let_tenants_through_is_named(fresh: Fresh, plant: str, undo: str, said: str) -> None:
    try:
        await fresh.act(plant)
        found = await fresh.problems()
    finally:
        await fresh.act(undo)
    assert any(said in problem for problem in found), found
    assert await fresh.problems() == []


async def test_a_missing_table_is_named(fresh: Fresh) -> None:
    async with fresh.connect() as superuser:
        await superuser.execute("ALTER TABLE customer_tags RENAME TO elsewhere")
        try:
            assert "table customer_tags is missing; run `coffer migrate`" in await fresh.problems()
        finally:
            await superuser.execute("ALTER TABLE elsewhere RENAME TO customer_tags")


@pytest.mark.parametrize("role", [catalogue.OWNER, catalogue.PLATFORM])
async def test_serving_as_another_role_is_named(fresh: Fresh, role: str) -> None:
    assert f"connected as {role}; the service connects as coffer_app" in await fresh.problems(role)


async def test_an_unsafe_database_is_not_served(fresh: Fresh) -> None:
    database = Database(fresh.url(catalogue.APP), pool_size=1)
    await fresh.act("GRANT TRUNCATE ON customers TO coffer_app")
    try:
        with pytest.raises(UnsafeDatabase, match="TRUNCATE on customers"):
            await catalogue.refuse_unsafe(database, catalogue.APP)
    finally:
        await fresh.act("REVOKE TRUNCATE ON customers FROM coffer_app")
        await database.close()


_CUSTOMER = (
    "INSERT INTO customers (tenant_id, id, profile, stage, created_at, updated_at, version)"
    " VALUES ($1, $2, $3, 'LEAD', now(), now(), 1)"
)


@pytest.mark.parametrize(
    "plain",
    [
        b"",
        b"Ada Lovelace",
        b'{"given_name":"Ada"}'.ljust(82),
        b"\xc1\x01" + b"Ada",
        (b"\xc1\x01" + b"Ada").ljust(83),
        (b"\xc1\x02" + b"Ada").ljust(82),
        b"Ada\xc1\x01".ljust(82),
    ],
    ids=["nothing", "text", "text of a right length", "too short", "a wrong length", "a wrong suite", "not in front"],
)
async def test_plaintext_by_raw_sql_is_refused_even_to_the_superuser(fresh: Fresh, plain: bytes) -> None:
    async with fresh.connect() as superuser:
        with pytest.raises(asyncpg.CheckViolationError):
            await superuser.execute(_CUSTOMER, uuid4(), new_id(), plain)
        assert await superuser.fetchval("SELECT count(*) FROM customers WHERE profile IS NOT NULL") == 0


@pytest.fixture
async def pair(fresh: Fresh) -> AsyncIterator[tuple[UUID, UUID]]:
    """Two tenants that have one customer each."""
    ours, theirs = uuid4(), uuid4()
    async with fresh.connect() as superuser:
        for tenant in (ours, theirs):
            await superuser.execute(_CUSTOMER, tenant, new_id(), None)
        yield ours, theirs
        await superuser.execute("DELETE FROM customers WHERE tenant_id = ANY($1)", [ours, theirs])


_TABLES = (
    "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relrowsecurity"
)


@pytest.mark.usefixtures("pair")
async def test_a_session_without_tenant_gets_an_error_from_every_table(fresh: Fresh) -> None:
    async with fresh.connect() as superuser, fresh.connect("coffer_app") as app:
        tables = [row["relname"] for row in await superuser.fetch(_TABLES)]
        assert "customers" in tables
        for table in tables:
            with pytest.raises(asyncpg.UndefinedObjectError, match=r"coffer\.tenant"):
                await app.fetch(f"SELECT count(*) FROM {table} WHERE true")


async def test_a_session_that_was_a_tenant_before_gets_an_error(fresh: Fresh, pair: tuple[UUID, UUID]) -> None:
    async with fresh.connect("coffer_app") as app:
        async with app.transaction():
            await app.execute("SELECT FROM coffer_enter($1, NULL, false)", pair[0])
            assert await app.fetchval("SELECT count(*) FROM customers") == 1
        with pytest.raises(asyncpg.InvalidTextRepresentationError, match="uuid"):
            await app.fetch("SELECT * FROM customers")


async def test_another_tenants_rows_do_not_show_even_if_asked_for(fresh: Fresh, pair: tuple[UUID, UUID]) -> None:
    ours, theirs = pair
    async with fresh.connect("coffer_app") as app, app.transaction():
        await app.execute("SELECT FROM coffer_enter($1, NULL, true)", ours)
        assert [row["tenant_id"] for row in await app.fetch("SELECT tenant_id FROM customers")] == [ours]
        assert await app.fetch("SELECT * FROM customers WHERE tenant_id = $1", theirs) == []
        assert await app.execute("UPDATE customers SET stage = 'X' WHERE tenant_id = $1", theirs) == "UPDATE 0"
        assert await app.execute("DELETE FROM customers WHERE tenant_id = $1", theirs) == "DELETE 0"


@pytest.mark.parametrize("statement", [_CUSTOMER, "UPDATE customers SET tenant_id = $1, id = $2, profile = $3"])
async def test_a_row_cannot_be_given_to_another_tenant(fresh: Fresh, pair: tuple[UUID, UUID], statement: str) -> None:
    ours, theirs = pair
    async with fresh.connect("coffer_app") as app:
        transaction = app.transaction()
        await transaction.start()
        await app.execute("SELECT FROM coffer_enter($1, NULL, true)", ours)
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
            await app.execute(statement, theirs, new_id(), None)
        await transaction.rollback()
    async with fresh.connect() as superuser:
        assert await superuser.fetchval("SELECT count(*) FROM customers WHERE tenant_id = $1", theirs) == 1


@pytest.mark.parametrize("statement", ["TRUNCATE customers", "DROP TABLE customers", "CREATE TEMP TABLE t (a int)"])
async def test_the_serving_role_cannot_go_around_the_policies(fresh: Fresh, statement: str) -> None:
    async with fresh.connect("coffer_app") as app:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await app.execute(statement)


async def test_the_platform_reads_tenants_and_no_customer(fresh: Fresh) -> None:
    async with fresh.connect("coffer_platform") as platform:
        await platform.fetch("SELECT * FROM tenants")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await platform.fetch("SELECT id FROM customers")
