"""Restores and drills: who may ask for one, and what is told of them; the rows are in `domain.restored_pages`."""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from domain import backups as asked
from domain import step_ups
from domain.errors import Forbidden, Refused, UserError
from tenants import backups
from tenants.access import Permission, Role
from tenants.backups import BackupKind, BackupState, freezes
from tenants.events import EventKind
from tenants.jobs import JobId, JobKind, NoArguments, Priority
from tenants.unit import Unit

RESTORED = EventKind(
    "backup.restored", "Backup", "The tenant's data were replaced by those of a backup; read anew what you keep of it."
)
DRILL_FAILED = EventKind("backup.drill_failed", "Backup", "A backup could not be restored on trial.")
DRILL_OK = "OK"
_GONE = UserError("BACKUP_REFUSED", ("backup",), "This backup is not finished, or it is gone.")


@dataclass(frozen=True, slots=True)
class Restore:
    """`dry_run` changes nothing; `without_safety` makes no backup of what is replaced."""

    backup: UUID
    dry_run: bool = True
    without_safety: bool = False


@dataclass(frozen=True, slots=True)
class DrillBackup:
    backup: UUID


RESTORE = JobKind(freezes.RESTORE, Restore, "Replace the tenant's data by those of a backup.", priority=Priority.URGENT)
DRILL = JobKind("drill", NoArguments, "Restore the newest backup on trial, into nothing.", priority=Priority.IDLE)
DRILL_BACKUP = JobKind("drill_backup", DrillBackup, "Restore one backup on trial, into nothing.")


async def start(unit: Unit, wanted: Restore) -> JobId:
    """The job that restores; of a tenant one at a time. Takes a fresh proof of who asks, and unless dry an OWNER.

    Raises `Forbidden`; `Refused`: STEP_UP_REQUIRED, NOT_FOUND, BACKUP_REFUSED.
    """
    if unit.viewer.principal is not None:  # else the operator's own command
        may_go_on(unit, wanted)
        await step_ups.require(unit)
    await _check(unit, wanted.backup)
    job = await unit.enqueue(RESTORE, wanted, once=f"dry {wanted.backup}" if wanted.dry_run else RESTORE.name)
    if not wanted.dry_run and job not in unit.enqueued:
        raise Refused([UserError("BACKUP_REFUSED", ("backup",), "Another restore has not ended yet.")])
    await _use(unit, wanted.backup, job)
    details = {"job": str(job), "dry": int(wanted.dry_run)}
    unit.audit("backup.restore_asked", subject_type="Backup", subjects=[wanted.backup], details=details)
    return job


async def start_drill(unit: Unit, backup: UUID) -> JobId:
    """Raises `Refused`: STEP_UP_REQUIRED, NOT_FOUND, BACKUP_REFUSED."""
    if unit.viewer.principal is not None:
        await step_ups.require(unit)
    await _check(unit, backup)
    job = await unit.enqueue(DRILL_BACKUP, DrillBackup(backup), once=str(backup))
    await _use(unit, backup, job)
    unit.audit("backup.drill_asked", subject_type="Backup", subjects=[backup], details={"job": str(job)})
    return job


def may_go_on(unit: Unit, wanted: Restore) -> None:
    """Whoever asked must still have the right when it happens. Raises `Forbidden`."""
    viewer = unit.viewer
    if viewer.principal is None:
        return
    if not viewer.may(Permission.BACKUPS_MANAGE) or not (wanted.dry_run or Role.OWNER in viewer.roles):
        raise Forbidden("Only an OWNER may restore; a dry run takes BACKUPS_MANAGE.")


async def keep_one_safety(unit: Unit, job: UUID, newest: UUID) -> None:
    """Of the backups that a restore made of what it would replace only the newest stays, and those that are held."""
    for row in await backups.lock_all(unit, BackupState.WRITTEN, BackupState.VERIFIED, BackupState.BROKEN):
        if (row.job_id, row.kind) != (job, BackupKind.BEFORE_RESTORE) or row.id == newest:
            continue
        row.used_by = [each for each in row.used_by if each != job]  # which verified it
        if await asked.why_kept(unit, row) is None:
            row.state = BackupState.EXPIRED
            await unit.enqueue(asked.RETIRE_BACKUPS, NoArguments(), once=asked.RETIRE_BACKUPS.name, by_house=True)


async def choose_drill(unit: Unit, named: UUID | None, job: UUID) -> UUID | None:
    """The named backup, else the newest that counts, kept for the job; None where there is none."""
    newest = await backups.newest(unit) if named is None else None
    backup = newest.id if newest is not None else named
    if backup is not None:
        await backups.use(unit, backup, job)
    return backup


async def drilled(unit: Unit, backup: UUID, outcome: str, counts: Mapping[str, int]) -> None:
    """What came of restoring it on trial: `DRILL_OK`, or the code of what kept it from being restored."""
    row = await backups.lock(unit, backup)
    if row is None:
        return
    row.drilled_at, row.drill_outcome = unit.now, outcome
    if outcome != DRILL_OK:
        unit.publish(DRILL_FAILED, [backup], details={"reason": outcome})
    unit.audit("backup.drilled", subject_type="Backup", subjects=[backup], outcome=outcome, details=dict(counts))


async def _use(unit: Unit, backup: UUID, job: JobId) -> None:
    if not await backups.use(unit, backup, job):  # somebody deleted it since it was looked at
        raise Refused([_GONE])


async def _check(unit: Unit, backup: UUID) -> None:
    row = await backups.find(unit, backup)
    if row is None:
        raise Refused([UserError("NOT_FOUND", ("backup",), "There is no backup of that id.")])
    if row.state in (BackupState.WRITING, BackupState.EXPIRED):
        raise Refused([_GONE])
