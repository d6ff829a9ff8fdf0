"""Seals what an older data key sealed anew, a page of rows at a time, and touches nothing else of a row.

Every table that declares a sealed column is visited; a page takes only rows that nobody else holds.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import Integer, LargeBinary, Row, Uuid, bindparam, text
from sqlalchemy.orm import Mapper
from sqlalchemy.sql.elements import TextClause

from crypto.envelopes import Column
from crypto.errors import CannotOpen
from crypto.keyring import Keyring
from tenants.errors import ValueDamaged
from tenants.owned import Place, TenantOwned, places
from tenants.unit import Unit

_FIRST = UUID(int=0)
_PART = 100  # rows that are written by one statement, while those behind them are sealed


@dataclass(frozen=True, slots=True)
class Page:
    """`last` is the row to go on behind."""

    last: UUID
    rows: int


@dataclass(frozen=True, slots=True)
class Shelf:
    """A table with sealed columns, and the statements that turn its pages.

    `owners` says by place where a found row has the id of its subject, behind which the secret stands.
    """

    table: str
    columns: tuple[str, ...]
    places: tuple[Place[Any], ...]
    owners: tuple[int, ...]
    find: TextClause
    write: TextClause
    count: str


def shelves() -> list[Shelf]:
    """Of every table that is declared, by name."""
    mappers = TenantOwned.registry.mappers
    return sorted((_shelf(each) for each in mappers if places(each.class_)), key=lambda shelf: shelf.table)


async def count_old(unit: Unit, version: int) -> int:
    """How many rows hold a value sealed by a key older than that; also those that somebody holds now."""
    counts = " + ".join(f"({shelf.count})" for shelf in shelves())
    asked = _asking(f"SELECT {counts}").bindparams(tenant=unit.tenant.id, version=_header(version))
    (count,) = await unit.scalars(asked)
    return int(count)


async def reseal_page(unit: Unit, shelf: Shelf, version: int, after: UUID | None, most: int) -> Page:
    """Seal up to `most` rows behind `after` anew, which hold a value sealed by a key older than `version`.

    Rows that another transaction holds are left for another pass. `version` is the active key. Raises `ValueDamaged`.
    """
    asked = {"tenant": unit.tenant.id, "version": _header(version), "after": after or _FIRST, "most": most}
    rows = await unit.rows(shelf.find.bindparams(**asked))
    writing: asyncio.Task[None] | None = None
    try:
        for start in range(0, len(rows), _PART):
            part = rows[start : start + _PART]
            given = await asyncio.to_thread(_sealed_anew, unit, shelf, part)
            if writing is not None:
                await writing
            writing = asyncio.create_task(unit.run(shelf.write.bindparams(tenant=unit.tenant.id, **given)))
        if writing is not None:
            await writing
    finally:
        if writing is not None:  # nothing of the unit runs on behind a value that does not open
            await asyncio.gather(writing, return_exceptions=True)
    return Page(rows[-1][0] if rows else after or _FIRST, len(rows))


def _sealed_anew(unit: Unit, shelf: Shelf, rows: Sequence[Row[Any]]) -> dict[str, Any]:
    """What `_write` asks for: by column a value for each row, None where what stands there stays."""
    found: list[Sequence[Any]] = list(zip(*rows, strict=True))
    ids = found[0]
    columns = [
        Column(place.label, found[1 + number], found[owner + 1], found[owner], ids)
        for number, (place, owner) in enumerate(zip(shelf.places, shelf.owners, strict=True))
    ]
    resealed = {f"c{number}": values for number, values in enumerate(_resealed(unit.keyring, columns))}
    return {"ids": ids, "first": ids[0], "last": ids[-1], **resealed}


def _resealed(keyring: Keyring, columns: Sequence[Column]) -> list[list[bytes | None]]:
    try:
        return keyring.reseal_many(columns)
    except CannotOpen:
        for row in range(len(columns[0].rows)):
            for column in columns:
                _refuse_damaged(keyring, column.of(row))
        raise


def _refuse_damaged(keyring: Keyring, value: Column) -> None:
    try:
        keyring.reseal_many([value])
    except CannotOpen:
        raise ValueDamaged(value.label, str(value.rows[0])) from None


@cache
def _shelf(mapper: Mapper[Any]) -> Shelf:
    owner: type[TenantOwned] = mapper.class_
    table, sealed = owner.__tablename__, places(owner)
    columns = tuple(owner.__table__.columns[key].name for key in sealed)
    subjects = list(dict.fromkeys(place.subject for place in sealed.values()))
    owners = [1 + len(columns) + 2 * subjects.index(place.subject) for place in sealed.values()]
    return Shelf(
        table=table,
        columns=columns,
        places=tuple(sealed.values()),
        owners=tuple(owners),
        find=_find(table, columns, subjects),
        write=_write(table, columns),
        count=_count(table, columns),
    )


# Names below are those of declared tables and columns.


def _find(table: str, columns: Sequence[str], subjects: Sequence[str]) -> TextClause:
    """The row's id, its sealed columns (NULL where they stay as they are), and each subject's id and secret."""
    values = "".join(f', CASE WHEN {_is_old(column)} THEN r."{column}" END' for column in columns)
    # No joins: planners read all subjects of the tenant for the sake of one page.
    values += "".join(
        f', r."{subject}", (SELECT s.secret FROM subjects s WHERE s.tenant_id = :tenant AND s.id = r."{subject}")'  # noqa: S608
        for subject in subjects
    )
    statement = (
        f'SELECT r.id{values} FROM "{table}" r WHERE r.tenant_id = :tenant AND r.id > :after'  # noqa: S608
        f" AND ({_any_old(columns)}) ORDER BY r.id LIMIT :most FOR UPDATE OF r SKIP LOCKED"
    )
    return _asking(statement).bindparams(bindparam("after", type_=Uuid), bindparam("most", type_=Integer))


def _write(table: str, columns: Sequence[str]) -> TextClause:
    numbers = range(len(columns))
    names = ", ".join(f"c{n}" for n in numbers)
    arrays = ", ".join(f"CAST(:c{n} AS bytea[])" for n in numbers)
    news = ", ".join(f'"{column}" = coalesce(u.c{n}, r."{column}")' for n, column in enumerate(columns))
    statement = (
        f'UPDATE "{table}" r SET {news} FROM unnest(CAST(:ids AS uuid[]), {arrays}) AS u (id, {names})'  # noqa: S608
        # The range says what the join says already, or planners read all rows of the tenant for the sake of these.
        " WHERE r.tenant_id = :tenant AND r.id = u.id AND r.id BETWEEN :first AND :last"
    )
    # The arrays have no type here: nothing needs to look at each of their values again.
    return text(statement).bindparams(*(bindparam(name, type_=Uuid) for name in ("tenant", "first", "last")))


def _count(table: str, columns: Sequence[str]) -> str:
    return f'SELECT count(*) FROM "{table}" r WHERE r.tenant_id = :tenant AND ({_any_old(columns)})'  # noqa: S608


def _asking(statement: str) -> TextClause:
    return text(statement).bindparams(bindparam("tenant", type_=Uuid), bindparam("version", type_=LargeBinary))


def _any_old(columns: Sequence[str]) -> str:
    return " OR ".join(map(_is_old, columns))


def _is_old(column: str) -> str:
    return f'substring(r."{column}" FROM 3 FOR 4) < :version'


def _header(version: int) -> bytes:
    """As it stands in a sealed value: bytes compare as the numbers do."""
    return version.to_bytes(4, "big")
