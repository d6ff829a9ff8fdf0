"""The life of a tenant's index keys: made, known to all writers, in force, left, and destroyed when nothing needs it.

Whatever changes a keyring here is done in a unit that fences: from the next unit on everybody works by it.
"""

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, select, update

from crypto.keys import KeyState, Purpose, WrappedKey
from tenants.keys import DataKeyRow, key_rows
from tenants.keys.key_rows import KEY_DESTROYED
from tenants.keys.rotations import KeyPurpose, Rotation
from tenants.unit import Unit

# As long as what it authenticated is asked for: idempotency keys are kept for 24 hours, and clocks differ a little.
GRACE = timedelta(hours=25)


async def announce(unit: Unit, made: WrappedKey) -> None:
    """Let all writers write tokens of this new key too: it is the NEXT one. It must be of a version that none had.

    Raises `Conflict` for one that was wrapped before the tenant's key in the key store turned over: make another.
    """
    await key_rows.add_next(unit, made)
    await key_rows.renew_keyrings(unit)


async def switch(unit: Unit, old: int, new: int) -> None:
    """Readers search by `new` from now on, and nobody writes by `old`. Raises `RotationRefused` for other states."""
    await key_rows.replace_active(unit, Purpose.BIK, old, new)


async def has_outlived(unit: Unit) -> bool:
    """Whether `destroy_after_grace` would find something to do."""
    return bool(await unit.scalars(select(DataKeyRow.version).where(*_outlived(unit)).limit(1)))


async def destroy_after_grace(unit: Unit) -> int:
    """How many index keys are gone for good: those that left force longer than `GRACE` ago, in no open rotation.

    Their tokens are gone by then, no backup holds any, and what they authenticated has expired.
    """
    gone = update(DataKeyRow).where(*_outlived(unit)).returning(DataKeyRow.version, DataKeyRow.id)
    gone = gone.values(state=KeyState.DESTROYED.value, wrapped="", changed_at=unit.now)
    rows = await unit.rows(gone.execution_options(synchronize_session=False))
    for row in rows:
        details = {"purpose": Purpose.BIK.value, "version": row.version}
        unit.audit(KEY_DESTROYED, subject_type="DataKey", subjects=[row.id], details=details)
    if rows:
        await key_rows.renew_keyrings(unit)
    return len(rows)


def _outlived(unit: Unit) -> list[ColumnElement[bool]]:
    latest: datetime = unit.now - GRACE
    is_open = (
        select(Rotation.id)
        .where(
            Rotation.tenant_id == unit.tenant.id,
            Rotation.purpose == KeyPurpose.BIK.value,
            Rotation.ended_at.is_(None),
            Rotation.from_version == DataKeyRow.version,
        )
        .exists()
    )
    return [
        *key_rows.of(unit, Purpose.BIK),
        DataKeyRow.state == KeyState.DECRYPT_ONLY,
        DataKeyRow.changed_at < latest,
        ~is_open,
    ]
