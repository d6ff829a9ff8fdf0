"""The life of a tenant's data keys: made, in force, left, and destroyed when nothing needs them.

Whatever changes a keyring here is done in a unit that fences: from the next unit on everybody works by it.
"""

from sqlalchemy import select, update

from crypto.keys import KeyState, Purpose, WrappedKey
from tenants import backups
from tenants.errors import RotationRefused
from tenants.keys import DataKeyRow, key_files, key_rows, rotating
from tenants.keys.key_rows import KEY_DESTROYED
from tenants.keys.rotations import KeyPurpose, Rotation
from tenants.unit import Unit


async def check_in(unit: Unit, made: WrappedKey) -> None:
    """Keep a new key as the NEXT one: nothing is sealed by it yet. Where one waits already, `made` is dropped.

    Raises `RotationRefused` where the one that waits is of another version, and what `key_rows.add_next` does.
    """
    waiting = select(DataKeyRow.version).where(*key_rows.of(unit, Purpose.DEK), DataKeyRow.state == KeyState.NEXT)
    if found := await unit.scalars(waiting):
        if found[0] != made.version:
            raise RotationRefused
        return
    await key_rows.add_next(unit, made)


async def put_in_force(unit: Unit, old: int, new: int) -> None:
    """`new` seals from now on, `old` only opens. Raises `RotationRefused` for other states."""
    await key_rows.replace_active(unit, Purpose.DEK, old, new)


async def retire(unit: Unit, version: int) -> None:
    """No keyring holds it any more, nor any before it that a restore took up again; it was proved that none is used.

    Raises `RotationRefused` for other states.
    """
    await key_rows.change(unit, Purpose.DEK, version, KeyState.DECRYPT_ONLY, KeyState.RETIRED)
    older = update(DataKeyRow).where(
        *key_rows.of(unit, Purpose.DEK), DataKeyRow.version < version, DataKeyRow.state == KeyState.DECRYPT_ONLY
    )
    retired = older.values(state=KeyState.RETIRED.value, changed_at=unit.now)
    await unit.run(retired.execution_options(synchronize_session=False))
    await key_rows.renew_keyrings(unit)


async def destroy_unneeded(unit: Unit) -> int:
    """How many retired data keys are gone for good: those that no backup needs and no key file lists any more.

    One that only the key file still lists goes after the file was published anew, which is enqueued here. It needs no
    fence: no keyring holds a retired key.
    """
    retired = select(DataKeyRow.version).where(*key_rows.of(unit, Purpose.DEK), DataKeyRow.state == KeyState.RETIRED)
    gone = 0
    for version in await unit.scalars(retired.order_by(DataKeyRow.version)):
        if await backups.needs_data_key(unit, version):
            continue
        if await key_files.lists_data_key(unit, version):
            await key_files.enqueue_publish(unit)
            continue
        await _destroy(unit, version)
        gone += 1
    return gone


async def _destroy(unit: Unit, version: int) -> None:
    mine = (*key_rows.of(unit, Purpose.DEK), DataKeyRow.version == version, DataKeyRow.state == KeyState.RETIRED)
    values = {"state": KeyState.DESTROYED.value, "wrapped": "", "changed_at": unit.now}
    gone = update(DataKeyRow).where(*mine).values(values).returning(DataKeyRow.id)
    keys = await unit.scalars(gone.execution_options(synchronize_session=False))
    details = {"purpose": Purpose.DEK.value, "version": version}
    unit.audit(KEY_DESTROYED, subject_type="DataKey", subjects=list(keys), details=details)
    of_key = (Rotation.purpose == KeyPurpose.DEK.value, Rotation.from_version == version, Rotation.state == "RETIRED")
    left = select(Rotation.id).where(Rotation.tenant_id == unit.tenant.id, *of_key)
    for rotation in await unit.scalars(left):
        await rotating.move(unit, rotation, "DESTROYED")
