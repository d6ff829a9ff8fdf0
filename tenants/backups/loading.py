"""A backup's rows back into their tables: page by page, as one statement each, inside the unit that restores.

A row is an object of JSON by column, as `tenants.backups.dumping` writes it. Columns are named explicitly: one that
came since gets its default, one that is gone is left out. What a row refers to must be there by then, in the unit's own
tenant: a reference that can be NULL becomes NULL, and a row that can't be without it is dropped; both are counted.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Executable,
    ForeignKeyConstraint,
    LargeBinary,
    Table,
    Text,
    Uuid,
    all_,
    bindparam,
    delete,
    func,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.exc import IntegrityError

from tenants.database import SCOPE, Database, translated
from tenants.errors import Unrestorable
from tenants.owned import Backup, Place, TenantOwned
from tenants.subjects import Subject
from tenants.unit import Unit
from tenants.viewers import TenantId

Row = dict[str, Any]
_SECRETS = text(
    """
    WITH given AS (SELECT * FROM unnest(:subjects, :secrets) AS g (id, secret)),
    made AS (
        INSERT INTO subjects (tenant_id, id, secret, created_at)
        SELECT :tenant, g.id, g.secret, :now FROM given g ON CONFLICT DO NOTHING RETURNING id
    )
    SELECT (SELECT count(*) FROM made) AS made,
        (SELECT count(*) FROM given g WHERE g.secret <>
            (SELECT s.secret FROM subjects s WHERE s.tenant_id = :tenant AND s.id = g.id)) AS differing
    """
).bindparams(
    bindparam("tenant", type_=Uuid),
    bindparam("subjects", type_=ARRAY(Uuid)),
    bindparam("secrets", type_=ARRAY(LargeBinary)),
    bindparam("now", type_=TIMESTAMP(timezone=True)),
)


@dataclass(frozen=True, slots=True)
class Reference:
    """What a row names of another table, beside the tenant: its own columns, and theirs."""

    parent: str
    columns: tuple[str, ...]
    theirs: tuple[str, ...]
    is_needed: bool


@dataclass(frozen=True)
class Target:
    """A table of a backup as it is here. `columns` are those that both know, `gone` those that only the backup has."""

    table: Table
    policy: Backup
    columns: tuple[str, ...]
    gone: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.table.name

    @cached_property
    def places(self) -> Mapping[str, Place[Any]]:
        """Of its sealed columns."""
        return {name: self.table.columns[name].info["place"] for name in self.columns if self._is_sealed(name)}

    @cached_property
    def key(self) -> tuple[str, ...]:
        """The columns that name a row of a tenant."""
        return tuple(column.name for column in self.table.primary_key if column.name != "tenant_id")

    @cached_property
    def references(self) -> tuple[Reference, ...]:
        found = [each for each in self.table.constraints if isinstance(each, ForeignKeyConstraint)]
        made = [self._reference(each) for each in found]
        return tuple(sorted((each for each in made if set(each.columns) <= set(self.columns)), key=lambda r: r.columns))

    def _is_sealed(self, name: str) -> bool:
        return "place" in self.table.columns[name].info

    def _reference(self, constraint: ForeignKeyConstraint) -> Reference:
        pairs = [(e.parent.name, e.column.name) for e in constraint.elements if e.parent.name != "tenant_id"]
        own = tuple(name for name, _ in pairs)
        is_needed = not any(self.table.columns[name].nullable for name in own)
        return Reference(constraint.referred_table.name, own, tuple(theirs for _, theirs in pairs), is_needed)


Standing = Callable[[Target, Sequence[Row]], Awaitable[dict[tuple[str, ...], Row]]]


@dataclass(frozen=True, slots=True)
class Loaded:
    """Of one page: rows written, references that were made NULL, rows dropped for want of what they refer to."""

    written: int
    cleared: int
    dropped: int


def targets(said: Mapping[str, Any]) -> list[Target]:
    """The tables that a dump's head names, in its order. Raises `Unrestorable` for one that is not here any more.

    What this release keeps out of backups is not taken from an older one either.
    """
    policies = {mapper.local_table: mapper.class_.backup for mapper in TenantOwned.registry.mappers}
    found = []
    for name, table in said.items():
        known = TenantOwned.metadata.tables.get(name)
        if known is None or policies.get(known, Backup.NEVER) is Backup.NEVER:
            raise Unrestorable(f"The table {name} of the backup is no table of this release.")
        named = [column for column in table["columns"] if column in known.columns]
        gone = tuple(column for column in table["columns"] if column not in known.columns)
        found.append(Target(known, policies[known], tuple(named), gone))
    return found


def data_tables() -> list[Target]:
    """What a restore into the same tenant replaces, parents first; also tables that a backup may not know yet."""
    policies = {mapper.local_table: mapper.class_.backup for mapper in TenantOwned.registry.mappers}
    tables = [table for table in TenantOwned.metadata.sorted_tables if policies.get(table) is Backup.DATA]
    return [Target(table, Backup.DATA, tuple(table.columns.keys())) for table in tables]


async def empty(unit: Unit, target: Target, *, keep: Iterable[UUID] = (), by: str = "id") -> int:
    """Delete the tenant's rows of a table, but those that name one of `keep` in the column `by`. How many went."""
    columns = target.table.columns
    gone = delete(target.table).where(columns.tenant_id == unit.tenant.id)
    if kept := list(keep):
        gone = gone.where(is_none_of(columns[by], kept))
    counted = gone.returning(columns.tenant_id).cte("gone")
    return int((await unit.scalars(select(func.count()).select_from(counted)))[0])


def is_none_of(column: Any, ids: Sequence[UUID]) -> ColumnElement[bool]:
    """However many ids there are, they are one parameter: Postgres takes no more than 32,767."""
    found: ColumnElement[bool] = column != all_(bindparam(None, list(ids), type_=ARRAY(Uuid)))
    return found


async def load(unit: Unit, target: Target, rows: Sequence[Row]) -> Loaded:
    """Write a page of rows, whose sealed columns are hex as Postgres writes it; what is in `gone` is ignored."""
    if not rows:
        return Loaded(0, 0, 0)
    statement = text(_loading(target)).bindparams(bindparam("tenant", type_=Uuid), bindparam("rows", type_=Text))
    given = {"tenant": unit.tenant.id, "rows": orjson.dumps(rows).decode()}
    with fitting(target.name):
        (made,) = await unit.rows(statement.bindparams(**given))
    return Loaded(made.written, made.cleared, len(rows) - made.written)


@contextmanager
def fitting(table: str) -> Iterator[None]:
    """Raises `Unrestorable` for rows that break a rule of the table's; which, would say what they hold."""
    try:
        yield
    except IntegrityError:
        raise Unrestorable(f"Rows of {table} in the backup can't stand beside each other, or beside others.") from None


@asynccontextmanager
async def standing(database: Database, tenant: TenantId) -> AsyncIterator[Standing]:
    """Tells of rows' clear columns as they stood when this began, whatever has been done to them elsewhere since."""
    async with database.session(write=False) as session:
        await session.execute(SCOPE, {"tenant": tenant})

        async def read(statement: Executable) -> Sequence[Any]:
            async with translated():
                return (await session.execute(statement)).scalars().all()

        async def stood(target: Target, rows: Sequence[Row]) -> dict[tuple[str, ...], Row]:
            clear = [name for name in target.columns if name not in target.places]
            return await _current(read, tenant, target, clear, rows)

        yield stood


async def current(unit: Unit, target: Target, rows: Sequence[Row]) -> dict[tuple[str, ...], Row]:
    """What stands under the same keys now, by key, in the form of a dump."""
    return await _current(unit.scalars, unit.tenant.id, target, target.columns, rows)


async def _current(
    read: Callable[[Executable], Awaitable[Sequence[Any]]],
    tenant: TenantId,
    target: Target,
    columns: Sequence[str],
    rows: Sequence[Row],
) -> dict[tuple[str, ...], Row]:
    pairs = " AND ".join(f't."{name}" = g."{name}"' for name in target.key)
    named = ", ".join(f't."{name}"' for name in columns)
    statement = text(
        f"""
        SELECT CAST(row_to_json(r) AS text) AS line
        FROM (
            SELECT {named} FROM json_populate_recordset(NULL::{target.name}, CAST(:rows AS json)) g
            JOIN {target.name} t ON t.tenant_id = :tenant AND {pairs}
        ) r
        """  # noqa: S608  # names of ours
    ).bindparams(bindparam("tenant", type_=Uuid), bindparam("rows", type_=Text))
    keys = [{name: row[name] for name in target.key} for row in rows]
    found = await read(statement.bindparams(tenant=tenant, rows=orjson.dumps(keys).decode()))
    return {key_of(target, row): row for row in map(orjson.loads, found)}


def key_of(target: Target, row: Row) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in target.key)


async def count(unit: Unit, target: Target) -> int:
    mine = select(func.count()).select_from(target.table).where(target.table.columns.tenant_id == unit.tenant.id)
    return int((await unit.scalars(mine))[0])


async def add_secrets(unit: Unit, secrets: Mapping[UUID, bytes]) -> int:
    """Give subjects that have none their secrets, 32 bytes each; how many had none.

    Raises `Unrestorable` where one has another: values sealed under either would not open under the other.
    """
    given = {"tenant": unit.tenant.id, "subjects": list(secrets), "secrets": list(secrets.values()), "now": unit.now}
    (made,) = await unit.rows(_SECRETS.bindparams(**given))
    if made.differing:
        raise Unrestorable("A subject's secret is not the one that the key file has.")
    return int(made.made)


async def secrets_of(unit: Unit, subjects: Iterable[UUID]) -> dict[UUID, bytes]:
    """Of those that have one here."""
    mine = (Subject.tenant_id == unit.tenant.id, Subject.id.in_(list(subjects)))
    return {row.id: row.secret for row in await unit.rows(select(Subject.id, Subject.secret).where(*mine))}


def _loading(target: Target) -> str:
    """One statement: rows as JSON, joined to what they refer to, written as far as they can be."""
    cleared: dict[str, int] = {}
    joins, needed = [], ["true"]
    for place, each in enumerate(target.references):
        pairs = zip(each.columns, each.theirs, strict=True)
        matches = " AND ".join(f'p."{theirs}" = g."{own}"' for own, theirs in pairs)
        # OFFSET keeps planners from reading all of the tenant's parents for the sake of one page.
        parent = f"SELECT p.tenant_id FROM {each.parent} p WHERE p.tenant_id = :tenant AND {matches} OFFSET 0"  # noqa: S608
        joins.append(f"LEFT JOIN LATERAL ({parent}) p{place} ON true")
        if each.is_needed:
            needed.append(f"p{place}.tenant_id IS NOT NULL")
        else:
            cleared |= {name: place for name in each.columns if target.table.columns[name].nullable}
    names = [name for name in target.columns if name != "tenant_id"]
    named = "".join(f', "{name}"' for name in names)
    values = [_value(name, cleared) for name in names]
    lost = [f'(g."{name}" IS NOT NULL AND p{place}.tenant_id IS NULL)' for name, place in cleared.items()]
    return f"""
        WITH linked AS MATERIALIZED (
            SELECT {", ".join([*values, f"({' OR '.join(lost) or 'false'}) AS was_cleared"])}
            FROM json_populate_recordset(NULL::{target.name}, CAST(:rows AS json)) g {" ".join(joins)}
            WHERE {" AND ".join(needed)}
        ), made AS (
            INSERT INTO {target.name} (tenant_id{named})
            SELECT :tenant{named} FROM linked RETURNING 1
        )
        SELECT (SELECT count(*) FROM made) AS written, (SELECT count(*) FROM linked WHERE was_cleared) AS cleared
        """  # noqa: S608  # names of ours


def _value(name: str, cleared: Mapping[str, int]) -> str:
    if name not in cleared:
        return f'g."{name}"'
    return f'CASE WHEN p{cleared[name]}.tenant_id IS NOT NULL THEN g."{name}" END AS "{name}"'
