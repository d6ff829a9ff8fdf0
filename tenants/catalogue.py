"""Reads Postgres' own catalogue and finds every right, policy and check that differs from what keeps tenants apart.

Start-up refuses to serve if this finds anything; `coffer doctor` prints it. The expected list comes from the tables
themselves, so a table or a right that nobody declared is found as surely as one that is missing.
"""

from collections.abc import Iterator
from importlib import import_module
from pkgutil import walk_packages
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import Mapper

import tenants
from tenants.database import Database
from tenants.errors import UnsafeDatabase
from tenants.owned import TenantOwned, places
from tenants.tenants import APP_MAY_SET

OWNER, APP, PLATFORM, RECORDER = "coffer_owner", "coffer_app", "coffer_platform", "coffer_recorder"
_OWN_ROW = "({column} = (current_setting('coffer.tenant'::text))::uuid)"
_HISTORY = "alembic_version"
_OUR_FUNCTIONS = {"coffer_enter", "coffer_touch_access", "coffer_wake"}
_PLATFORM_RIGHTS = {("issuers", "SELECT")} | {("tenants", right) for right in ("SELECT", "INSERT", "UPDATE")}

_ROLES = """
    SELECT rolname, rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolreplication AS is_mighty,
        EXISTS (SELECT FROM pg_auth_members m WHERE m.member = r.oid) AS is_member
    FROM pg_roles r WHERE rolname IN ('coffer_owner', 'coffer_app', 'coffer_platform', 'coffer_recorder')
"""
_TABLES = """
    SELECT c.relname, c.relkind::text AS kind, c.relrowsecurity AS enabled, c.relforcerowsecurity AS forced,
        pg_get_userbyid(c.relowner) AS owner
    FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
"""
_POLICIES = """
    SELECT tablename, policyname, permissive, roles::text[] AS roles, cmd, qual, with_check
    FROM pg_policies WHERE schemaname = 'public'
"""
_GRANTS = """
    SELECT c.relname, coalesce(r.rolname, 'PUBLIC') AS grantee, a.privilege_type AS privilege
    FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) a LEFT JOIN pg_roles r ON r.oid = a.grantee
    WHERE c.relnamespace = 'public'::regnamespace AND a.grantee <> c.relowner
    UNION ALL
    SELECT c.relname || '.' || t.attname, coalesce(r.rolname, 'PUBLIC'), a.privilege_type
    FROM pg_attribute t JOIN pg_class c ON c.oid = t.attrelid CROSS JOIN LATERAL aclexplode(t.attacl) a
    LEFT JOIN pg_roles r ON r.oid = a.grantee WHERE c.relnamespace = 'public'::regnamespace
"""
_FUNCTIONS = """
    SELECT p.proname, p.prosecdef AS is_definer, pg_get_userbyid(p.proowner) AS owner,
        EXISTS (
            SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a WHERE a.grantee = 0
        ) AS is_public
    FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace
"""
_CHECKS = """
    SELECT c.relname, pg_get_constraintdef(k.oid) AS definition
    FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
    WHERE k.contype = 'c' AND k.convalidated AND c.relnamespace = 'public'::regnamespace
"""
_CREATORS = """
    SELECT r.rolname FROM pg_roles r WHERE r.rolname IN ('coffer_app', 'coffer_platform', 'coffer_recorder')
    AND (has_schema_privilege(r.rolname, 'public', 'CREATE')
        OR has_database_privilege(r.rolname, current_database(), 'CREATE')
        OR has_database_privilege(r.rolname, current_database(), 'TEMP'))
"""
_SCHEMAS = """
    SELECT n.nspname, r.rolname FROM pg_namespace n CROSS JOIN pg_roles r
    WHERE r.rolname IN ('coffer_app', 'coffer_platform', 'coffer_recorder')
    AND has_schema_privilege(r.rolname, n.oid, 'USAGE')
    AND n.nspname NOT IN ('public', 'information_schema') AND n.nspname !~ '^pg_'
"""
# As Postgres spells the check that `migrations.operations.check_sealed` makes; anything softer is not it.
_SEALED = (
    "CHECK (((octet_length({c}) >= 82) AND (((octet_length({c}) - 50) % 32) = 0)"
    " AND (SUBSTRING({c} FROM 1 FOR 2) = '\\xc101'::bytea)))"
)


async def refuse_unsafe(database: Database, role: str) -> None:
    """Raises `UnsafeDatabase` naming every problem."""
    found = await problems(database, role)
    if found:
        raise UnsafeDatabase("The database does not keep tenants apart:\n" + "\n".join(f"- {p}" for p in found))


async def problems(database: Database, role: str) -> list[str]:
    """A sentence for each way in which the database that `role` reaches is not as promised; empty where all is well."""
    async with database.connection() as connection:
        found = []
        user = (await connection.execute(text("SELECT session_user"))).scalar_one()
        if user != role:
            found.append(f"connected as {user}; the service connects as {role}")
        for check in (_roles, _tables, _policies, _grants, _functions, _checks):
            found.extend([problem async for problem in _each(check, connection)])
        return found


async def _each(check: Any, connection: AsyncConnection) -> Any:
    for problem in await check(connection):
        yield problem


async def _rows(connection: AsyncConnection, query: str) -> list[Any]:
    return list((await connection.execute(text(query))).all())


def _owned() -> Iterator[type[TenantOwned]]:
    for module in walk_packages(tenants.__path__, "tenants."):  # a table that nobody imported is expected as well
        import_module(module.name)
    mapper: Mapper[Any]
    for mapper in TenantOwned.registry.mappers:
        yield mapper.class_


def _expected_tables() -> set[str]:
    return {"issuers", "tenants", *(owned.__tablename__ for owned in _owned())}


async def _roles(connection: AsyncConnection) -> list[str]:
    rows = {row.rolname: row for row in await _rows(connection, _ROLES)}
    found = [f"role {name} is missing" for name in (OWNER, APP, PLATFORM, RECORDER) if name not in rows]
    found += [f"role {r.rolname} has superuser, BYPASSRLS or CREATE rights" for r in rows.values() if r.is_mighty]
    found += [f"role {r.rolname} is a member of another role" for r in rows.values() if r.is_member]
    found += [f"schema {r.nspname} is open to {r.rolname}" for r in await _rows(connection, _SCHEMAS)]
    found += [f"role {row.rolname} may create objects" for row in await _rows(connection, _CREATORS)]
    return found


async def _tables(connection: AsyncConnection) -> list[str]:
    rows = await _rows(connection, _TABLES)
    expected = _expected_tables()
    found = [f"table {name} is missing; run `coffer migrate`" for name in expected - {row.relname for row in rows}]
    for row in rows:
        if row.kind != "r":
            found.append(f"{row.relname} is a view, sequence or foreign table; it would escape row-level security")
        elif row.relname not in expected | {_HISTORY}:
            found.append(f"table {row.relname} belongs to nobody's declaration")
        elif row.relname in expected and not (row.enabled and row.forced):
            found.append(f"table {row.relname} lacks ENABLE or FORCE ROW LEVEL SECURITY")
        if row.owner != OWNER:
            found.append(f"{row.relname} is owned by {row.owner}, not {OWNER}")
    return found


async def _policies(connection: AsyncConnection) -> list[str]:
    expected: set[tuple[str | tuple[str, ...] | None, ...]] = {
        ("tenants", "all_tenants", "PERMISSIVE", (PLATFORM,), "ALL", "true", "true"),
        ("issuers", "all_issuers", "PERMISSIVE", (PLATFORM,), "SELECT", "true", None),
    }
    for table in _expected_tables():
        own = _OWN_ROW.format(column="id" if table == "tenants" else "tenant_id")
        expected.add((table, "own_tenant", "PERMISSIVE", (APP,), "ALL", own, own))
    for owned in _owned():
        if owned.fleet:
            expected.add((owned.__tablename__, "fleet_reads", "PERMISSIVE", (PLATFORM,), "SELECT", "true", None))
        if owned.fleet_inserts:
            expected.add((owned.__tablename__, "fleet_inserts", "PERMISSIVE", (PLATFORM,), "INSERT", None, "true"))
        if owned.is_recorded:
            expected.add((owned.__tablename__, "recorder", "PERMISSIVE", (RECORDER,), "INSERT", None, "true"))
    actual = {
        (r.tablename, r.policyname, r.permissive, tuple(r.roles), r.cmd, r.qual, r.with_check)
        for r in await _rows(connection, _POLICIES)
    }
    return [f"policy {p[1]} on {p[0]} is missing or changed" for p in sorted(expected - actual, key=str)] + [
        f"policy {p[1]} on {p[0]} is not ours" for p in sorted(actual - expected, key=str)
    ]


async def _grants(connection: AsyncConnection) -> list[str]:
    expected = {(owned.__tablename__, APP, right) for owned in _owned() for right in owned.rights}
    expected |= {
        (f"{owned.__tablename__}.{column}", PLATFORM, right)
        for owned in _owned()
        for right, columns in (("SELECT", owned.fleet), ("INSERT", owned.fleet_inserts))
        for column in columns
    }
    expected |= {(owned.__tablename__, RECORDER, "INSERT") for owned in _owned() if owned.is_recorded}
    expected |= {(f"tenants.{column}", APP, "UPDATE") for column in APP_MAY_SET}
    expected |= {("issuers", APP, right) for right in ("SELECT", "INSERT", "DELETE")}
    expected |= {("tenants", APP, "SELECT")} | {(table, PLATFORM, right) for table, right in _PLATFORM_RIGHTS}
    actual = {(row.relname, row.grantee, row.privilege) for row in await _rows(connection, _GRANTS)}
    return [f"{who} lacks {what} on {table}" for table, who, what in sorted(expected - actual)] + [
        f"{who} has {what} on {table}, one right too many" for table, who, what in sorted(actual - expected)
    ]


async def _functions(connection: AsyncConnection) -> list[str]:
    found = []
    for row in await _rows(connection, _FUNCTIONS):
        if row.proname not in _OUR_FUNCTIONS:
            found.append(f"function {row.proname} belongs to nobody's declaration")
        if row.owner != OWNER:
            found.append(f"function {row.proname} is owned by {row.owner}, not {OWNER}")
        if row.is_definer:
            found.append(f"function {row.proname} runs with its owner's rights")
        if row.is_public:
            found.append(f"function {row.proname} is granted to PUBLIC")
    return found


async def _checks(connection: AsyncConnection) -> list[str]:
    definitions = [(row.relname, row.definition) for row in await _rows(connection, _CHECKS)]
    return [
        f"{owned.__tablename__}.{column} may hold plaintext: its CHECK is missing"
        for owned in _owned()
        for column in places(owned)
        if (owned.__tablename__, _SEALED.format(c=column)) not in definitions
    ]
