"""What Postgres holds wrapped by a tenant's key in the key store: under which of its versions, and brought to another.

A rewrapped key is the same key: whoever has it open goes on with it, so no keyring is told.
"""

from collections.abc import Mapping
from uuid import UUID

from sqlalchemy import ColumnElement, Integer, cast, func, select, update
from sqlalchemy.orm import InstrumentedAttribute

from crypto.keys import KeyState, Purpose, WrappedKey
from tenants.backups import BackupRow
from tenants.keys import DataKeyRow
from tenants.unit import Unit

PAGE = 100  # what the key store takes at once
# Every column that holds ``vault:vN:...``, empty where a key was destroyed.
WRAPPED: tuple[InstrumentedAttribute[str], ...] = (DataKeyRow.wrapped, BackupRow.wrapped_key)
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


async def replace(unit: Unit, key: WrappedKey, wrapped: str) -> None:
    """Unless it has changed since: a key that was destroyed meanwhile stays destroyed."""
    mine = (DataKeyRow.tenant_id == unit.tenant.id, DataKeyRow.id == key.id, DataKeyRow.wrapped == key.wrapped)
    change = update(DataKeyRow).where(*mine).values(wrapped=wrapped)
    await unit.run(change.execution_options(synchronize_session=False))


async def counts(unit: Unit) -> Counts:
    """How many wrapped keys there are of each version, in each column; the proof of a rotation."""
    return {f"{column.class_.__tablename__}.{column.key}": await _counted(unit, column) for column in WRAPPED}


def is_older(found: Counts, version: int) -> bool:
    return any(int(each) < version for by_version in found.values() for each in by_version)


async def _counted(unit: Unit, column: InstrumentedAttribute[str]) -> dict[str, int]:
    table = column.class_
    version = _version(column).label("version")
    mine = (table.tenant_id == unit.tenant.id, column != "")
    rows = await unit.rows(select(version, func.count().label("keys")).where(*mine).group_by(version).order_by(version))
    return {str(row.version): row.keys for row in rows}


def _version(column: InstrumentedAttribute[str]) -> ColumnElement[int]:
    return cast(func.substring(column, "^vault:v([0-9]+):"), Integer)
