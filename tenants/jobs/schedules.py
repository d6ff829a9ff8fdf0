"""Schedules: when a tenant's recurring jobs are due, set by the tenant, started by whichever worker comes first."""

import random
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import and_, func, select, update
from sqlalchemy.dialects.postgresql import insert

from tenants.database import SCOPE, Database
from tenants.ids import new_id
from tenants.jobs import Job, JobId, JobKind, JobState, NoArguments, Schedule
from tenants.jobs.crons import next_moment
from tenants.tenants import tenants
from tenants.unit import Unit
from tenants.viewers import TenantId

_IS_SERVED = and_(tenants.c.id == Schedule.tenant_id, tenants.c.status == "ACTIVE")


async def find_due(platform: Database, most: int = 100) -> list[tuple[TenantId, str]]:
    """Tenant and kind, the longest overdue first. A suspended tenant's wait, and are caught up with once."""
    due = select(Schedule.tenant_id, Schedule.kind).join(tenants, _IS_SERVED).where(Schedule.next_at <= func.now())
    async with platform.session(write=False) as session:
        rows = await session.execute(due.order_by(Schedule.next_at, Schedule.tenant_id).limit(most))
        return [(TenantId(row.tenant_id), row.kind) for row in rows]


async def find_without(platform: Database, kind: str, most: int = 100) -> list[TenantId]:
    """Tenants that are served and have no schedule of this kind, not even one that is switched off."""
    has = select(Schedule.kind).where(Schedule.tenant_id == tenants.c.id, Schedule.kind == kind).exists()
    missing = select(tenants.c.id).where(tenants.c.status == "ACTIVE", ~has).order_by(tenants.c.id).limit(most)
    async with platform.session(write=False) as session:
        return [TenantId(row.id) for row in await session.execute(missing)]


async def start(app: Database, tenant: TenantId, kind: JobKind[NoArguments]) -> JobId | None:
    """Enqueue the job and move on to the next future moment, both or neither; missed runs become one.

    None where another worker did it, or the last run is still open.
    """
    due = select(Schedule.cron, Schedule.time_zone).where(*_mine(tenant, kind.name), Schedule.next_at <= func.now())
    async with app.session(write=True) as session:
        await session.execute(SCOPE, {"tenant": tenant})
        row = (await session.execute(due.with_for_update(skip_locked=True))).one_or_none()
        if row is None:
            return None
        now = datetime.now(UTC)
        once = insert(Job).values(_job(tenant, kind, now)).on_conflict_do_nothing().returning(Job.id)
        made: UUID | None = (await session.execute(once)).scalars().first()
        moved: dict[str, Any] = {"next_at": next_moment(row.cron, row.time_zone, now)}
        if made is not None:
            moved |= {"last_at": now, "last_job": made}
        await session.execute(update(Schedule).where(*_mine(tenant, kind.name)).values(moved))
    return None if made is None else JobId(made)


async def add_nightly(app: Database, tenant: TenantId, kind: JobKind[NoArguments]) -> None:
    """Once a day between midnight and five, UTC; each tenant at a minute of its own, so that they don't come at once.

    A schedule that is there stays as it is.
    """
    chance = random.Random(tenant.int)  # noqa: S311  # spreads load only
    await _add(app, tenant, kind, f"{chance.randrange(60)} {chance.randrange(5)} * * *")


async def add_weekly(app: Database, tenant: TenantId, kind: JobKind[NoArguments]) -> None:
    """As `add_nightly`, on a day of the tenant's own, between five and midnight."""
    chance = random.Random(tenant.int)  # noqa: S311  # spreads load only
    cron = f"{chance.randrange(60)} {chance.randrange(5, 24)} * * {chance.randrange(7)}"
    await _add(app, tenant, kind, cron)


async def _add(app: Database, tenant: TenantId, kind: JobKind[NoArguments], cron: str) -> None:
    now = datetime.now(UTC)
    async with app.session(write=True) as session:
        await session.execute(SCOPE, {"tenant": tenant})
        row = _schedule(tenant, kind, cron, "UTC", now)
        await session.execute(insert(Schedule).values(row).on_conflict_do_nothing())


async def set_(unit: Unit, kind: JobKind[NoArguments], cron: str, time_zone: str) -> Schedule:
    """Raises `ScheduleRefused`."""
    row = _schedule(unit.tenant.id, kind, cron, time_zone, unit.now)
    change = {name: row[name] for name in ("cron", "time_zone", "next_at", "updated_at")}
    statement = insert(Schedule).values(row).on_conflict_do_update(index_elements=["tenant_id", "kind"], set_=change)
    (made,) = await unit.scalars(statement.returning(Schedule).execution_options(populate_existing=True))
    unit.audit("schedule.set", subject_type="Schedule", details={"kind": kind.name})
    found: Schedule = made
    return found


async def switch_off(unit: Unit, kind: JobKind[NoArguments]) -> None:
    off = update(Schedule).where(*_mine(unit.tenant.id, kind.name)).values(next_at=None, updated_at=unit.now)
    await unit.run(off.execution_options(synchronize_session=False))
    unit.audit("schedule.switched_off", subject_type="Schedule", details={"kind": kind.name})


async def every(unit: Unit) -> Sequence[Schedule]:
    """By kind; there is at most one of each."""
    mine = select(Schedule).where(Schedule.tenant_id == unit.tenant.id).order_by(Schedule.kind)
    found: Sequence[Schedule] = await unit.scalars(mine.execution_options(populate_existing=True))
    return found


def _mine(tenant: UUID, kind: str) -> tuple[Any, Any]:
    return Schedule.tenant_id == tenant, Schedule.kind == kind


def _schedule(tenant: UUID, kind: JobKind[Any], cron: str, time_zone: str, now: datetime) -> dict[str, Any]:
    return {
        "tenant_id": tenant,
        "kind": kind.name,
        "cron": cron,
        "time_zone": time_zone,
        "next_at": next_moment(cron, time_zone, now),
        "updated_at": now,
    }


def _job(tenant: UUID, kind: JobKind[NoArguments], now: datetime) -> dict[str, Any]:
    return {
        "tenant_id": tenant,
        "id": new_id(),
        "kind": kind.name,
        "state": JobState.READY,
        "priority": kind.priority,
        "arguments": kind.dump(NoArguments()),
        "once": kind.name,
        "due_at": now,
        "created_at": now,
    }
