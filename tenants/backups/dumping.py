"""A tenant's rows as records of a backup: one snapshot, as they are, sealed values sealed, no key and no token.

The records, in their order (each has at most 16 MiB; text is UTF-8)::

    coffer.rows.v1\\n{"tables": {…}, "taken": …, "revision": …, "epoch": …}
    <table>\\n<rows>
    …
    coffer.end.v1\\n{"<table>": <count>, …}

``tables`` names every table in an order that satisfies foreign keys, each with ``restore`` (``DATA`` or ``SETTINGS``)
and ``columns``; ``taken`` is a moment just before the snapshot (RFC 3339), ``revision`` the database's, ``epoch`` the
tenant's `key_epoch`. Rows are about a MiB of them, each a line: an object of JSON by column, as Postgres' `row_to_json`
makes it, with bytea as ``\\x`` and hex. A table with no rows has no such record, one with many has many, behind each
other. The last record counts the rows of every table, so that a stream that was cut off shows.

What a restored tenant must not get is left out by `LEFT_OUT`, column by column: whoever knew a password may not sign in
by a backup. Columns that look like a key, a token or a hash are refused, so that a new one can't slip in unseen.
"""

import asyncio
import inspect
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any

import orjson
from sqlalchemy import JSON, Column, LargeBinary, Table, Uuid, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession

from crypto.keys import SERVING, Purpose
from tenants.database import SCOPE, Database, translated
from tenants.errors import Unauthenticated
from tenants.owned import Backup, TenantOwned
from tenants.viewers import TenantId

HEAD, END = b"coffer.rows.v1", b"coffer.end.v1"
LEFT_OUT: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "members": frozenset({"password_hash"}),
        "sign_on_providers": frozenset({"secret"}),
        "schedules": frozenset({"last_at", "last_job"}),
    }
)
# JSON has control characters in escaped form only, so none of its lines makes COPY quote or escape anything.
_FORMAT = {"format": "csv", "delimiter": "\x02", "quote": "\x01"}
_RECORD_BYTES = 1 << 20
_AHEAD = 2  # records that wait to be taken
_HARMLESS = frozenset({"sign_on_providers.access_tokens"})  # which type of them is taken
_KEYLIKE = re.compile(r"(^|_)(key|keys|token|tokens|hash|secret|password|wrapped)(_|$)")
_STATE = text(
    """
    SELECT now() AS taken, t.key_epoch,
        ARRAY(SELECT k.version FROM data_keys k
            WHERE k.tenant_id = t.id AND k.purpose = :purpose AND k.state = ANY(:states) ORDER BY 1) AS dek_versions
    FROM tenants t WHERE t.id = :tenant
    """
).bindparams(bindparam("tenant", type_=Uuid))


@dataclass(frozen=True, slots=True)
class Dumped:
    """A table and what of it goes into a backup."""

    table: Table
    restore: Backup
    columns: tuple[str, ...]

    @property
    def name(self) -> str:
        return str(self.table.name)


@dataclass(slots=True)
class Dump:
    """One snapshot of one tenant. `records` can be read once; `rows` counts those of each table meanwhile."""

    taken: datetime
    epoch: int
    dek_versions: tuple[int, ...]
    total: int
    records: AsyncGenerator[bytes]
    rows: dict[str, int] = field(default_factory=dict)


def dumped() -> list[Dumped]:
    """All tables of DATA and SETTINGS, parents first. Raises `TypeError` for a column that looks like a key."""
    policies = {mapper.local_table: mapper.class_.backup for mapper in TenantOwned.registry.mappers}
    wanted = [
        table for table in TenantOwned.metadata.sorted_tables if policies.get(table, Backup.NEVER) != Backup.NEVER
    ]
    return [Dumped(table, policies[table], columns_of(table)) for table in wanted]


def columns_of(table: Table) -> tuple[str, ...]:
    """Those that go into a backup. Raises `TypeError` for one that looks like a key, a token or a hash."""
    left_out = LEFT_OUT.get(table.name, frozenset())
    if unknown := left_out - {column.name for column in table.columns}:
        raise TypeError(f"{table.name} has no column {', '.join(sorted(unknown))} that could be left out")
    kept = [column for column in table.columns if column.name not in left_out]
    for column in kept:
        if _is_keylike(column):
            raise TypeError(f"{table.name}.{column.name} looks like a key; leave it out of backups, or seal it")
    return tuple(str(column.name) for column in kept)


@asynccontextmanager
async def snapshot(database: Database, tenant: TenantId, revision: str) -> AsyncIterator[Dump]:
    """One REPEATABLE READ READ ONLY transaction of the serving role, whose row-level security decides what is seen.

    It needs no key. `revision` is the database's own. Raises `DatabaseUnavailable`.
    """
    tables = dumped()
    async with database.session(write=False) as session:
        await session.execute(SCOPE, {"tenant": tenant})
        asked = {"tenant": tenant, "purpose": Purpose.DEK.value, "states": [state.value for state in SERVING]}
        row = (await session.execute(_STATE, asked)).one_or_none()
        if row is None:
            raise Unauthenticated
        rows = dict.fromkeys((each.name for each in tables), 0)
        head = _head(tables, row.taken, revision, row.key_epoch)
        total = (await session.execute(text(_total(tables)))).scalar_one()
        records = _records(session, tables, head, rows)
        try:
            yield Dump(row.taken, row.key_epoch, tuple(row.dek_versions), total, records, rows)
        finally:
            is_cut_off = inspect.isasyncgen(records) and records.ag_frame is not None
            await records.aclose()
            if is_cut_off:  # Postgres may be in the middle of sending rows, which nobody takes any more
                await session.invalidate()


def _is_keylike(column: "Column[Any]") -> bool:
    if "place" in column.info or f"{column.table.name}.{column.name}" in _HARMLESS:
        return False
    return isinstance(column.type, LargeBinary) or _KEYLIKE.search(column.name) is not None


def _head(tables: list[Dumped], taken: datetime, revision: str, epoch: int) -> bytes:
    said = {each.name: {"restore": each.restore.value, "columns": list(each.columns)} for each in tables}
    return HEAD + b"\n" + orjson.dumps({"tables": said, "taken": taken, "revision": revision, "epoch": epoch})


def _total(tables: list[Dumped]) -> str:
    return "SELECT " + " + ".join(f"(SELECT count(*) FROM {each.name})" for each in tables)  # noqa: S608  # ours


async def _records(
    session: AsyncSession, tables: list[Dumped], head: bytes, rows: dict[str, int]
) -> AsyncGenerator[bytes]:
    yield head
    for each in tables:
        name = each.name.encode()
        async with aclosing(_lines(session, _query(each))) as found:
            async for lines in found:
                rows[each.name] += lines.count(b"\n")
                yield name + b"\n" + lines
    yield END + b"\n" + orjson.dumps(rows)


def _query(each: Dumped) -> str:
    columns = ", ".join(_expression(each.table.columns[name]) for name in each.columns)
    return f"SELECT row_to_json(r) FROM (SELECT {columns} FROM {each.name}) r"  # noqa: S608  # names of ours


def _expression(column: "Column[Any]") -> str:
    is_text = isinstance(column.type, JSON) and not isinstance(column.type, JSONB)
    return f'CAST("{column.name}" AS jsonb) AS "{column.name}"' if is_text else f'"{column.name}"'


async def _lines(session: AsyncSession, query: str) -> AsyncGenerator[bytes]:
    """Whole lines, about a MiB at a time; Postgres is read no faster than they are taken."""
    taken: asyncio.Queue[bytes | None] = asyncio.Queue(_AHEAD)
    copying = asyncio.create_task(_copy(session, query, taken))
    try:
        while (lines := await taken.get()) is not None:
            yield lines
        await copying
    finally:
        copying.cancel()
        await asyncio.gather(copying, return_exceptions=True)


async def _copy(session: AsyncSession, query: str, taken: "asyncio.Queue[bytes | None]") -> None:
    cutting = _Cutting(taken.put)
    try:
        async with translated():
            driver: Any = (await (await session.connection()).get_raw_connection()).driver_connection
            await driver.copy_from_query(query, output=cutting.take, **_FORMAT)
        await cutting.end()
    except Exception:  # whoever takes shall wait no longer, and then learns of it; who cancels takes no more
        await taken.put(None)
        raise
    await taken.put(None)


class _Cutting:
    """Blocks of any length in, records of whole lines out."""

    def __init__(self, give: Callable[[bytes], Awaitable[None]]) -> None:
        self._give = give
        self._left = bytearray()

    async def take(self, block: bytes) -> None:
        self._left += block
        if len(self._left) >= _RECORD_BYTES:
            for lines in self._cut():
                await self._give(lines)

    async def end(self) -> None:
        if self._left:
            await self._give(bytes(self._left))

    def _cut(self) -> Iterator[bytes]:
        while len(self._left) >= _RECORD_BYTES:
            end = self._left.rfind(b"\n", 0, _RECORD_BYTES) + 1 or self._left.find(b"\n") + 1
            if not end:
                return
            yield bytes(self._left[:end])
            del self._left[:end]
