"""Proves that a data key is left: reads the header of every value of bytes that Postgres' own catalogue knows of.

What is declared is not asked: a value that somebody sealed by hand into a column or table of their own is found too.
Not found is one that was copied as something else than bytes: as text (base64, hex) or within JSON.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import ARRAY, Row, Text, bindparam, text
from sqlalchemy.sql.base import Executable
from sqlalchemy.sql.elements import TextClause

from tenants.database import Database, Read
from tenants.errors import ColumnUnreadable, KeyStillUsed
from tenants.owned import TenantOwned
from tenants.unit import Unit

# Values of bytes (V), arrays of them (A), and what else holds bytes somewhere (X: rows, ranges and what is made of
# them), which nothing here can read; nor large objects, of which Coffer has none.
_COLUMNS = text(
    """
    WITH RECURSIVE kinds (type, form) AS (
        SELECT 'pg_catalog.bytea'::regtype::oid, 'V'
        UNION
        SELECT t.oid, CASE WHEN t.typbasetype = k.type THEN k.form
            WHEN t.typcategory = 'A' AND t.typelem = k.type AND k.form = 'V' THEN 'A' ELSE 'X' END
        FROM kinds k JOIN pg_type t ON t.typbasetype = k.type OR (t.typcategory = 'A' AND t.typelem = k.type)
            OR (t.typtype = 'c' AND EXISTS (
                SELECT FROM pg_attribute p WHERE p.attrelid = t.typrelid AND p.atttypid = k.type AND NOT p.attisdropped
            ))
            OR (t.typtype IN ('r', 'm') AND EXISTS (
                SELECT FROM pg_range g WHERE (g.rngtypid = t.oid AND g.rngsubtype = k.type)
                    OR (g.rngmultitypid = t.oid AND g.rngtypid = k.type)
            ))
    )
    SELECT EXISTS (SELECT FROM pg_attribute o WHERE o.attrelid = c.oid AND o.attname = 'tenant_id'
            AND o.atttypid = 'pg_catalog.uuid'::regtype AND NOT o.attisdropped
            AND has_column_privilege(c.oid, o.attnum, 'SELECT')) AS is_owned,
        n.nspname = 'public' AND c.relname = ANY (:ours) AS is_ours,
        CASE n.nspname WHEN 'public' THEN '' ELSE n.nspname || '.' END || c.relname || '.' || a.attname AS place,
        format('%I.%I', n.nspname, c.relname) AS relation, quote_ident(a.attname) AS name, k.form,
        k.form <> 'X' AND c.relkind <> 'f' AND has_schema_privilege(n.oid, 'USAGE')
            AND has_column_privilege(c.oid, a.attnum, 'SELECT')
            AND (NOT c.relrowsecurity OR (n.nspname = 'public' AND c.relname = ANY (:ours))) AS is_readable
    FROM pg_attribute a JOIN kinds k ON k.type = a.atttypid
    JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'm', 'f') AND c.relispopulated
        AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
    UNION ALL
    SELECT false, false, 'pg_largeobject.data', 'pg_catalog.pg_largeobject', 'data', 'V', false
    WHERE EXISTS (SELECT FROM pg_largeobject_metadata)
    ORDER BY relation, place
    """
).bindparams(bindparam("ours", type_=ARRAY(Text)))
# Magic, suite and length of `crypto.envelopes`.
_IS_SEALED = (
    "octet_length(v.value) >= 82 AND (octet_length(v.value) - 50) % 32 = 0"
    " AND substring(v.value FROM 1 FOR 2) = '\\xc101'"
)
_VERSION = " + ".join(f"CAST(get_byte(v.value, {2 + n}) AS bigint) * {256 ** (3 - n)}" for n in range(4))


@dataclass(frozen=True, slots=True)
class Coverage:
    """How many values of a place were sealed by a version of the data key.

    `place` is table.column, with the schema in front where that is not `public`.
    """

    place: str
    version: int
    rows: int


@dataclass(frozen=True, slots=True)
class Column:
    """`relation` and `name` are quoted for SQL. One that `is_owned` says by row, which tenant's it is."""

    place: str
    relation: str
    name: str
    form: str
    is_readable: bool
    is_owned: bool
    is_ours: bool


@dataclass(frozen=True, slots=True)
class Obstacle:
    """A column that nothing can read, or one that holds sealed values although nobody declared it."""

    place: str
    is_readable: bool


async def count_versions(unit: Unit) -> list[Coverage]:
    """What the tenant has sealed, by place and version of the key, in every column that can be read. Reads all rows."""
    return await _counted(unit, await columns(unit.rows))


async def prove(unit: Unit, rotation: UUID, old: int, new: int) -> dict[str, Any]:
    """That nothing which a key older than `new` sealed is left: JSON of counts, to be signed.

    Raises `KeyStillUsed` where there is, and `ColumnUnreadable` where nobody can know.
    """
    found = await columns(unit.rows)
    for column in found:
        if not column.is_readable:
            raise ColumnUnreadable(column.place)
    coverage = await _counted(unit, found)
    for each in coverage:
        if each.version < new:
            raise KeyStillUsed(each.place)
    return {
        "rotation": str(rotation),
        "purpose": "DEK",
        "fromVersion": old,
        "toVersion": new,
        "at": unit.now.isoformat(),
        "columns": len(found),
        "catalogue": hashlib.sha256(orjson.dumps([[each.place, each.form] for each in found])).hexdigest(),
        "values": _by_place(coverage),
    }


async def columns(read: Read) -> list[Column]:
    """All that hold bytes, in every schema but Postgres' own."""
    ours = [table.name for table in TenantOwned.metadata.tables.values()]
    return [
        Column(row.place, row.relation, row.name, row.form, row.is_readable, row.is_owned, row.is_ours)
        for row in await read(_COLUMNS.bindparams(ours=ours))
    ]


async def obstacles(database: Database) -> list[Obstacle]:
    """Columns by which a data key's rotation will be stopped. Reads what nobody declared, until a value is found."""
    async with database.connection() as connection:

        async def read(statement: Executable) -> Sequence[Row[Any]]:
            return (await connection.execute(statement)).all()

        found = await columns(read)
        undeclared = [each for each in found if each.is_readable and not each.is_ours]
        sealed = [each for each in undeclared if await read(_asking(_any(each)))]
    hidden = [each for each in found if not each.is_readable]
    return [Obstacle(each.place, each.is_readable) for each in hidden + sealed]


async def _counted(unit: Unit, found: Iterable[Column]) -> list[Coverage]:
    coverage: list[Coverage] = []
    for relation, its in groupby((each for each in found if each.is_readable), key=lambda column: column.relation):
        held = list(its)
        counted = await unit.rows(_asking(_count(relation, held, unit.tenant.id)))
        coverage += [Coverage(held[row.number].place, row.version, row.values_) for row in counted]
    return sorted(coverage, key=lambda each: (each.place, each.version))


def _count(relation: str, held: Sequence[Column], tenant: UUID) -> str:
    """A row that says of which tenant it is, is that one's alone; one that says nothing is everybody's."""
    mine = f" AND coalesce(r.tenant_id, '{tenant}') = '{tenant}'" if held[0].is_owned and not held[0].is_ours else ""
    return (
        f"SELECT v.number, {_VERSION} AS version, count(*) AS values_ FROM {_sealed(relation, held)}{mine}"  # noqa: S608
        " GROUP BY 1, 2"
    )


def _any(column: Column) -> str:
    return f"SELECT 1 FROM {_sealed(column.relation, [column])} LIMIT 1"  # noqa: S608  # quoted


def _sealed(relation: str, held: Sequence[Column]) -> str:
    """Only the relation itself: those that inherit from it are in the catalogue as well."""
    values = " UNION ALL ".join(
        f"SELECT {n}, CAST(r.{each.name} AS bytea)"
        if each.form == "V"
        else f"SELECT {n}, unnest(CAST(r.{each.name} AS bytea[]))"
        for n, each in enumerate(held)
    )
    return f"ONLY {relation} r CROSS JOIN LATERAL ({values}) AS v (number, value) WHERE {_IS_SEALED}"


def _asking(statement: str) -> TextClause:
    """Names in it are quoted for SQL; a colon in one is no parameter."""
    return text(statement.replace(":", "\\:"))


def _by_place(coverage: Iterable[Coverage]) -> dict[str, dict[str, int]]:
    """Names in ASCII, as a proof wants them."""
    counted: dict[str, dict[str, int]] = {}
    for each in coverage:
        place = each.place.encode("ascii", "backslashreplace").decode()
        counted.setdefault(place, {})[str(each.version)] = each.rows
    return counted
