"""A tenant that is frozen for a restore: everybody reads on, nobody writes, until it ends in whatever way.

Each freeze has a key epoch of its own. Whoever restores goes on only while that epoch stands, and thaws only that one:
so a freeze that somebody else has ended, and begun anew, is not taken for one's own.
"""

from sqlalchemy import func, select, text, update

from tenants.database import Database
from tenants.errors import Conflict, TenantFrozen
from tenants.tenants import tenants
from tenants.unit import Unit
from tenants.viewers import TenantId

RESTORE = "restore"  # the kind of job that freezes
_REASON = "RESTORE"
# One that restores is RUNNING from before it freezes until after it has thawed.
_ABANDONED = text(
    """
    UPDATE tenants t SET frozen = NULL, key_epoch = key_epoch + 1
    WHERE t.frozen = :reason AND NOT EXISTS (
        SELECT FROM jobs j WHERE j.tenant_id = t.id AND j.kind = :kind AND j.state = 'RUNNING'
    ) RETURNING t.id
    """
)


async def freeze(unit: Unit) -> int:
    """From now on nobody writes but who thaws; the freeze's epoch. `unit` fences and thaws.

    Raises `TenantFrozen` for a tenant that is frozen because it leaves.
    """
    if unit.tenant.frozen not in (None, _REASON):
        raise TenantFrozen
    change = update(tenants).where(tenants.c.id == unit.tenant.id)
    change = change.values(frozen=_REASON, key_epoch=tenants.c.key_epoch + 1)
    return int((await unit.scalars(change.returning(tenants.c.key_epoch)))[0])


def refuse_restoring(unit: Unit) -> None:
    """For who `thaws` where a tenant leaves: what is being replaced is nobody's to change. Raises `TenantFrozen`."""
    if unit.tenant.frozen == _REASON:
        raise TenantFrozen


async def still(unit: Unit, epoch: int) -> None:
    """Raises `Conflict` where the freeze of that epoch does not stand any more: somebody may have written meanwhile."""
    mine = select(tenants.c.frozen, tenants.c.key_epoch).where(tenants.c.id == unit.tenant.id)
    (row,) = await unit.rows(mine)
    if (row.frozen, row.key_epoch) != (_REASON, epoch):
        raise Conflict


async def thaw(unit: Unit, epoch: int, *, access_changed: bool = False) -> None:
    """End the freeze of that epoch; another is left as it is. What was cached of keys, and of rights, goes stale."""
    mine = (tenants.c.id == unit.tenant.id, tenants.c.frozen == _REASON, tenants.c.key_epoch == epoch)
    access = tenants.c.access_epoch + int(access_changed)
    await unit.run(update(tenants).where(*mine).values(frozen=None, key_epoch=epoch + 1, access_epoch=access))


async def thaw_abandoned(platform: Database) -> list[TenantId]:
    """End the freezes that no running job stands behind: its worker died, and it waits, was parked or cancelled."""
    waiting = select(func.count()).where(tenants.c.frozen == _REASON)
    async with platform.connection() as connection:
        if not (await connection.execute(waiting)).scalar_one():
            return []
        rows = await connection.execute(_ABANDONED, {"reason": _REASON, "kind": RESTORE})
        return [TenantId(row.id) for row in rows]
