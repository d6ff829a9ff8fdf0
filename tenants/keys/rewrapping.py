"""What Postgres holds wrapped by a tenant's key in the key store: under which of its versions, and brought to another.

A rewrapped key is the same key: whoever has it open goes on with it, so no keyring is told.
"""

from collections.abc import Mapping, Sequence
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Integer,
    Select,
    Text,
    Uuid,
    bindparam,
    cast,
    func,
    literal,
    select,
    text,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import InstrumentedAttribute

from crypto.keys import KeyState, Purpose, WrappedKey
from tenants.backups import BackupRow
from tenants.keys import DataKeyRow
from tenants.unit import Unit

PAGE = 100  # what the key store takes at once
# Every column that holds ``vault:vN:...``, empty where a key was destroyed.
WRAPPED: tuple[InstrumentedAttribute[str], ...] = (DataKeyRow.wrapped, BackupRow.wrapped_key)
_REPLACE = text(
    """
    UPDATE data_keys SET wrapped = new.wrapped FROM unnest(:ids, :before, :new) AS new (id, before, wrapped)
    WHERE data_keys.tenant_id = :tenant AND data_keys.id = new.id AND data_keys.wrapped = new.before
    """
).bindparams(
    *(bindparam("tenant", type_=Uuid), bindparam("ids", type_=ARRAY(Uuid))),
    *(bindparam("before", type_=ARRAY(Text)), bindparam("new", type_=ARRAY(Text))),
)
Counts = Mapping[str, Mapping[str, int]]  # by table and column, then by version: both text, as in JSON


async def find_outdated(unit: Unit, version: int, after: UUID | None = None) -> list[WrappedKey]:
    """Up to `PAGE` data keys of any purpose and state, by id, that are wrapped by an older version."""
    mine = (DataKeyRow.tenant_id == unit.tenant.id, DataKeyRow.wrapped != "", _version(DataKeyRow.wrapped) < version)
    behind = () if after is None else (DataKeyRow.id > after,)
    rows = await unit.scalars(
        select(DataKeyRow)
        .where(*mine, *behind)
        .order_by(DataKeyRow.id)
        .limit(PAGE)
        .execution_options(populate_existing=True)
    )
    return [
        WrappedKey(
            row.tenant_id,
            row.id,
            Purpose(row.purpose),
            row.version,
            row.wrapped,
            row.check_value,
            KeyState(row.state),
        )
        for row in rows
    ]


async def replace(unit: Unit, rewrapped: Sequence[tuple[WrappedKey, str]]) -> None:
    """Each unless it has changed since: a key that was destroyed meanwhile stays destroyed."""
    if rewrapped:
        ids, before = [key.id for key, _ in rewrapped], [key.wrapped for key, _ in rewrapped]
        new = [wrapped for _, wrapped in rewrapped]
        await unit.run(_REPLACE, {"tenant": unit.tenant.id, "ids": ids, "before": before, "new": new})


async def counts(unit: Unit) -> Counts:
    """How many wrapped keys there are of each version, in each column; the proof of a rotation."""
    found: dict[str, dict[str, int]] = {_place(column): {} for column in WRAPPED}
    for row in await unit.rows(union_all(*(_counted(unit, column) for column in WRAPPED)).order_by("place", "version")):
        found[row.place][str(row.version)] = row.keys
    return found


def is_older(found: Counts, version: int) -> bool:
    return any(int(each) < version for by_version in found.values() for each in by_version)


def _counted(unit: Unit, column: InstrumentedAttribute[str]) -> Select[str, int, int]:
    place, version = literal(_place(column), Text).label("place"), _version(column).label("version")
    mine = (column.class_.tenant_id == unit.tenant.id, column != "")
    return select(place, version, func.count().label("keys")).where(*mine).group_by(version)


def _place(column: InstrumentedAttribute[str]) -> str:
    return f"{column.class_.__tablename__}.{column.key}"


def _version(column: InstrumentedAttribute[str]) -> ColumnElement[int]:
    return cast(func.substring(column, "^vault:v([0-9]+):"), Integer)
