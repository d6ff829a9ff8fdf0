"""Backups as people see them: listed, made, verified, repaired, held and thrown away. What jobs do stands beside it.

Whoever may do any of it holds BACKUPS_MANAGE; the fields that lead here ask for it.
"""

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert

from domain import retention
from domain.errors import Refused, UserError
from domain.paging import Page, Window, cut, windowed
from domain.retention import Retention
from tenants import backups
from tenants.backups import BackupKind, BackupRow, BackupSettings, BackupState
from tenants.jobs import JobId, JobKind, NoArguments, Priority
from tenants.unit import Unit


class Depth(StrEnum):
    """How deep a backup is looked into: its shards without any key, or its chunks with the keys as well."""

    SHARDS = "SHARDS"
    CHUNKS = "CHUNKS"


@dataclass(frozen=True, slots=True)
class MakeBackup:
    kind: BackupKind


@dataclass(frozen=True, slots=True)
class VerifyBackup:
    backup: UUID
    depth: Depth


@dataclass(frozen=True, slots=True)
class RepairBackup:
    backup: UUID


BACK_UP = JobKind("back_up", NoArguments, "Back up the tenant's data, and verify the backup.")
MAKE_BACKUP = JobKind("make_backup", MakeBackup, "Back up the tenant's data out of turn, and verify the backup.")
CHECK_BACKUPS = JobKind(
    "check_backups", NoArguments, "Verify all backups, and repair those that need it.", priority=Priority.IDLE
)
VERIFY_BACKUP = JobKind("verify_backup", VerifyBackup, "Verify one backup.")
REPAIR_BACKUP = JobKind("repair_backup", RepairBackup, "Make lost and rotten shards anew, and verify the backup.")
RETIRE_BACKUPS = JobKind(
    "retire_backups", NoArguments, "Delete the backups that retention no longer keeps.", priority=Priority.IDLE
)
KINDS = (BACK_UP, MAKE_BACKUP, CHECK_BACKUPS, VERIFY_BACKUP, REPAIR_BACKUP, RETIRE_BACKUPS)
_NOT_THERE = UserError("NOT_FOUND", ("id",), "There is no backup of that id.")


async def page(unit: Unit, window: Window) -> Page[BackupRow]:
    """Newest first, also those that are gone: they are links of the chain."""
    statement = windowed(_all(unit), (BackupRow.created_at, BackupRow.id), window, descending=True)
    return Page(*cut(await unit.scalars(statement), window))


async def count(unit: Unit) -> int:
    mine = BackupRow.tenant_id == unit.tenant.id
    return int((await unit.scalars(select(func.count()).select_from(BackupRow).where(mine)))[0])


async def get_many(unit: Unit, ids: Collection[UUID]) -> dict[UUID, BackupRow]:
    """By id, without those that are not there."""
    return {row.id: row for row in await unit.scalars(_all(unit).where(BackupRow.id.in_(set(ids))))}


async def make(unit: Unit, kind: BackupKind = BackupKind.ASKED) -> JobId:
    """The job that makes a backup now; one that waits or runs already, if there is one."""
    job = await unit.enqueue(MAKE_BACKUP, MakeBackup(kind), once=kind)
    unit.audit("backup.asked", subject_type="Job", subjects=[job], details={"kind": kind})
    return job


async def verify(unit: Unit, backup: UUID, depth: Depth) -> JobId:
    """Raises `Refused`: NOT_FOUND, BACKUP_REFUSED."""
    await _get_finished(unit, backup)
    job = await unit.enqueue(VERIFY_BACKUP, VerifyBackup(backup, depth), once=f"{backup} {depth}")
    unit.audit("backup.verification_asked", subject_type="Backup", subjects=[backup], details={"depth": depth})
    return job


async def repair(unit: Unit, backup: UUID) -> JobId:
    """Raises `Refused`: NOT_FOUND, BACKUP_REFUSED."""
    await _get_finished(unit, backup)
    job = await unit.enqueue(REPAIR_BACKUP, RepairBackup(backup), once=str(backup))
    unit.audit("backup.repair_asked", subject_type="Backup", subjects=[backup])
    return job


async def hold(unit: Unit, backup: UUID, held: bool) -> BackupRow:
    """What is held no retention and no member deletes. Raises `Refused`: NOT_FOUND, BACKUP_REFUSED."""
    row = await _get_finished(unit, backup)
    if row.held != held:
        row.held = held
        if held:
            unit.audit("backup.held", subject_type="Backup", subjects=[backup])
        else:
            unit.audit("backup.released", subject_type="Backup", subjects=[backup])
    return row


async def delete(unit: Unit, backup: UUID) -> JobId:
    """From now on nobody restores from it; the job deletes what lies on the stores, and then its key.

    Raises `Refused`: NOT_FOUND, BACKUP_REFUSED for one that is held, in use or the last good one.
    """
    await backups.lock_all(unit, BackupState.VERIFIED, BackupState.BROKEN)
    row = await _get_finished(unit, backup)
    if reason := await why_kept(unit, row):
        raise Refused([UserError("BACKUP_REFUSED", ("id",), reason)])
    row.state = BackupState.EXPIRED
    unit.audit("backup.deletion_asked", subject_type="Backup", subjects=[backup])
    return await unit.enqueue(RETIRE_BACKUPS, NoArguments(), once=f"{RETIRE_BACKUPS.name} {backup}")


async def why_kept(unit: Unit, row: BackupRow) -> str | None:
    """A sentence, where the backup may not be deleted now."""
    if row.held:
        return "Somebody holds this backup."
    if await backups.is_in_use(unit, row):
        return "A job reads this backup; wait until it has ended."
    newest = await backups.newest(unit)
    if newest is not None and newest.id == row.id and not await _another_good_one(unit, row.id):
        return "This is the last good backup."
    return None


async def settings(unit: Unit) -> Retention:
    """The tenant's own, or the house's."""
    rows = await unit.scalars(select(BackupSettings).where(BackupSettings.tenant_id == unit.tenant.id))
    return Retention(rows[0].daily, rows[0].weekly, rows[0].monthly) if rows else retention.DEFAULT


async def set_settings(unit: Unit, wanted: Retention) -> Retention:
    """Raises `Refused`: INVALID."""
    least = {"daily": 1, "weekly": 0, "monthly": 0}
    errors = [
        UserError("INVALID", (name,), f"{name} is a number from {low} to {retention.MOST}.")
        for name, low in least.items()
        if not low <= getattr(wanted, name) <= retention.MOST
    ]
    if errors:
        raise Refused(errors)
    kept: dict[str, Any] = {"daily": wanted.daily, "weekly": wanted.weekly, "monthly": wanted.monthly}
    change = kept | {"updated_at": unit.now}
    adding = insert(BackupSettings).values(tenant_id=unit.tenant.id, **change)
    await unit.run(adding.on_conflict_do_update(index_elements=["tenant_id"], set_=change))
    unit.audit("backup.retention_set", subject_type="Tenant", subjects=[unit.tenant.id], details=kept)
    return wanted


async def _get_finished(unit: Unit, backup: UUID) -> BackupRow:
    """Locked."""
    row = await backups.lock(unit, backup)
    if row is None:
        raise Refused([_NOT_THERE])
    if row.state in (BackupState.WRITING, BackupState.EXPIRED):
        raise Refused([UserError("BACKUP_REFUSED", ("id",), "This backup is not finished, or it is gone.")])
    return row


async def _another_good_one(unit: Unit, backup: UUID) -> bool:
    good = (BackupRow.tenant_id == unit.tenant.id, BackupRow.state == BackupState.VERIFIED)
    return bool(await unit.scalars(select(BackupRow.id).where(*good, BackupRow.id != backup).limit(1)))


def _all(unit: Unit) -> Any:
    return select(BackupRow).where(BackupRow.tenant_id == unit.tenant.id)
