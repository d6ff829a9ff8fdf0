"""What an operator sees of the backups of all tenants: how old they are and how many are not as they should be."""

from sqlalchemy import func, or_, select

from tenants.backups import BackupRow, BackupState
from tenants.database import Database
from tenants.tenants import tenants

DAMAGED = "DAMAGED"


async def of_fleet(platform: Database) -> tuple[float, dict[str, int]]:
    """Seconds since the last verified backup, or since it came, of the tenant that waits longest; and counts by state.

    DAMAGED are those among them of which the last check missed something, or found it rotten.
    """
    good = (BackupRow.tenant_id == tenants.c.id, BackupRow.state == BackupState.VERIFIED)
    last = select(func.max(BackupRow.created_at)).where(*good).scalar_subquery()
    since = func.min(func.coalesce(last, tenants.c.created_at))
    age = select(func.extract("epoch", func.now() - since)).where(tenants.c.status == "ACTIVE")
    states = select(BackupRow.state, func.count()).group_by(BackupRow.state)
    damaged = select(func.count()).where(or_(BackupRow.missing > 0, BackupRow.rotten > 0))
    there = BackupRow.state != BackupState.EXPIRED
    async with platform.session(write=False) as session:
        seconds = (await session.execute(age)).scalar_one()
        counts = {row[0]: row[1] for row in await session.execute(states.where(there))}
        counts[DAMAGED] = (await session.execute(damaged.where(there))).scalar_one()
    return float(seconds or 0), counts


async def drills_of_fleet(platform: Database) -> tuple[float, dict[str, int]]:
    """Seconds since the last good drill, or since it came, of the tenant that waits longest; counts by last outcome."""
    good = (BackupRow.tenant_id == tenants.c.id, BackupRow.drill_outcome == "OK")
    last = select(func.max(BackupRow.drilled_at)).where(*good).scalar_subquery()
    since = func.min(func.coalesce(last, tenants.c.created_at))
    age = select(func.extract("epoch", func.now() - since)).where(tenants.c.status == "ACTIVE")
    there = (BackupRow.state != BackupState.EXPIRED, BackupRow.drill_outcome.is_not(None))
    outcomes = select(BackupRow.drill_outcome, func.count()).where(*there).group_by(BackupRow.drill_outcome)
    async with platform.session(write=False) as session:
        seconds = (await session.execute(age)).scalar_one()
        counts = {str(row[0]): row[1] for row in await session.execute(outcomes)}
    return float(seconds or 0), counts
