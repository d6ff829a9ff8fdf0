"""What all acts on the rows of a tenant's keys have in common.

Whatever changes a keyring is done in a unit that fences, and ends in `renew_keyrings`: from the next unit on everybody
works by it.
"""

from sqlalchemy import ColumnElement, insert, select, update

from crypto.keys import KeyState, Purpose, WrappedKey
from crypto.transit import wrapped_version
from tenants.errors import Conflict, RotationRefused
from tenants.keys import DataKeyRow
from tenants.tenants import tenants
from tenants.unit import Unit

KEY_DESTROYED = "key.destroyed"


def of(unit: Unit, purpose: Purpose) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return DataKeyRow.tenant_id == unit.tenant.id, DataKeyRow.purpose == purpose.value


async def add_next(unit: Unit, made: WrappedKey) -> None:
    """Keep a new key, as the NEXT one.

    Raises `Conflict` for one that was wrapped before the tenant's key in the key store turned over: make another.
    """
    await _refuse_overtaken(unit, made)
    row = {
        "tenant_id": unit.tenant.id,
        "id": made.id,
        "purpose": made.purpose.value,
        "version": made.version,
        "wrapped": made.wrapped,
        "check_value": made.check_value,
        "state": KeyState.NEXT.value,
        "created_at": unit.now,
        "changed_at": unit.now,
    }
    await unit.run(insert(DataKeyRow), [row])


async def replace_active(unit: Unit, purpose: Purpose, old: int, new: int) -> None:
    """`new`, which was the NEXT one, is in force; `old` only opens. Raises `RotationRefused` for other states."""
    await change(unit, purpose, old, KeyState.ACTIVE, KeyState.DECRYPT_ONLY)
    await change(unit, purpose, new, KeyState.NEXT, KeyState.ACTIVE)
    await renew_keyrings(unit)


async def change(unit: Unit, purpose: Purpose, version: int, state: KeyState, to: KeyState) -> None:
    """Raises `RotationRefused` where it is in another state."""
    mine = (*of(unit, purpose), DataKeyRow.version == version, DataKeyRow.state == state.value)
    changed = update(DataKeyRow).where(*mine).values(state=to.value, changed_at=unit.now).returning(DataKeyRow.id)
    if not await unit.rows(changed.execution_options(synchronize_session=False)):
        raise RotationRefused


async def renew_keyrings(unit: Unit) -> None:
    """Whoever has the tenant's keys open reads them anew."""
    mine = update(tenants).where(tenants.c.id == unit.tenant.id)
    await unit.run(mine.values(key_epoch=tenants.c.key_epoch + 1))


async def _refuse_overtaken(unit: Unit, made: WrappedKey) -> None:
    """Whoever turns over the tenant's key has wrapped the others anew, and soon none opens that was not."""
    mine = (DataKeyRow.tenant_id == unit.tenant.id, DataKeyRow.state != KeyState.DESTROYED.value)
    others = await unit.scalars(select(DataKeyRow.wrapped).where(*mine))
    if any(wrapped_version(wrapped) > wrapped_version(made.wrapped) for wrapped in others):
        raise Conflict
