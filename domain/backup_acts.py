"""What jobs do to the rows of backups: claimed, written, judged, retired. Bytes and stores are their own matter."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert

from crypto.keys import SERVING, Purpose
from domain import backups as asked
from domain import retention
from domain.backups import Depth
from tenants import backups
from tenants.backups import BackupKind, BackupRow, BackupState
from tenants.errors import Conflict
from tenants.events import EventKind
from tenants.jobs import Job
from tenants.keys import DataKeyRow, key_files
from tenants.unit import Unit

MADE = EventKind("backup.made", "Backup", "A backup was made and verified.")
FAILED = EventKind("backup.failed", "Backup", "A backup could not be made, or one that was good is broken.")
REPAIRED = EventKind("backup.repaired", "Backup", "Lost or rotten parts of a backup were made anew.")
DELETED = EventKind("backup.deleted", "Backup", "A backup is gone from every store, and so is its key.")


@dataclass(frozen=True, slots=True)
class Claimed:
    """The backup that a job makes; `previous` is the identity of the one before it."""

    id: UUID
    number: int
    kind: BackupKind
    wrapped_key: str
    previous: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What the manifest says of a finished backup."""

    identity: str
    generation: int
    key_file: int
    coding: str
    places: Sequence[str]
    bytes: int
    record_bytes: int
    records: int
    tables: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """Of one check: objects that are not there, and that are damaged; and whether every chunk can still be read.

    `reason` is the code of the error where the check could not even begin.
    """

    depth: Depth
    missing: int = 0
    rotten: int = 0
    is_readable: bool = True
    reason: str | None = None

    @property
    def is_whole(self) -> bool:
        return self.is_readable and not self.missing and not self.rotten


@dataclass(frozen=True, slots=True)
class Live:
    """A backup that lies on stores."""

    id: UUID
    number: int
    state: BackupState
    generation: int
    identity: str | None
    wrapped_key: str = field(repr=False)
    places: Sequence[str] = ()


async def take(unit: Unit, job: UUID, kind: BackupKind) -> Claimed | None:
    """The one that is being written, for this job to begin anew; None where there is none.

    Raises `Conflict` while another job writes it: the tenant's backups are made one after the other.
    """
    mine = select(BackupRow).where(*_in(unit, BackupState.WRITING)).with_for_update()
    rows: Sequence[BackupRow] = await unit.scalars(mine.execution_options(populate_existing=True))
    if not rows:
        return None
    row = rows[0]
    if row.job_id != job:
        at_work = select(Job.id).where(Job.tenant_id == unit.tenant.id, Job.id == row.job_id, Job.ended_at.is_(None))
        if await unit.scalars(at_work):
            raise Conflict
        row.job_id, row.kind = job, kind
    await unit.flush()
    return await _claimed(unit, row)


async def refuse_while_writing(unit: Unit, job: UUID) -> None:
    """Raises `Conflict` while another job writes a backup of the tenant."""
    writing = select(BackupRow.job_id).where(*_in(unit, BackupState.WRITING), BackupRow.job_id != job)
    at_work = select(Job.id).where(Job.tenant_id == unit.tenant.id, Job.id.in_(writing), Job.ended_at.is_(None))
    if await unit.scalars(at_work):
        raise Conflict


async def claim(unit: Unit, job: UUID, kind: BackupKind, *, backup: UUID, wrapped_key: str, coding: str) -> Claimed:
    """The next number. Raises `Conflict` where another job was first."""
    newest = (await unit.scalars(select(func.max(BackupRow.number)).where(BackupRow.tenant_id == unit.tenant.id)))[0]
    row = {
        "tenant_id": unit.tenant.id,
        "id": backup,
        "number": (newest or 0) + 1,
        "kind": kind,
        "state": BackupState.WRITING,
        "created_at": unit.now,
        "coding": coding,
        "dek_versions": await _serving(unit),
        "wrapped_key": wrapped_key,
        "job_id": job,
    }
    if not await unit.scalars(insert(BackupRow).values(row).on_conflict_do_nothing().returning(BackupRow.id)):
        raise Conflict
    return await _claimed(unit, await get(unit, backup))


async def let_go(unit: Unit, job: UUID) -> None:
    """What the job was writing and has not finished: from now on another job may begin it anew."""
    mine = (*_in(unit, BackupState.WRITING), BackupRow.job_id == job)
    await unit.run(update(BackupRow).where(*mine).values(job_id=None))


async def snapped(unit: Unit, backup: UUID, taken: datetime, dek_versions: Sequence[int]) -> None:
    """Its snapshot stands: from now on no data key goes away that sealed what is in it."""
    row = await get(unit, backup)
    row.created_at, row.dek_versions, row.reason = taken, sorted(set(dek_versions)), None


async def written(unit: Unit, backup: UUID, what: Written) -> None:
    row = await get(unit, backup)
    row.state, row.written_at = BackupState.WRITTEN, unit.now
    row.identity, row.manifest_generation, row.key_file = what.identity, what.generation, what.key_file
    row.coding, row.places, row.bytes, row.records = what.coding, list(what.places), what.bytes, what.records
    row.record_bytes, row.tables = what.record_bytes, dict(what.tables)


async def moved(unit: Unit, backup: UUID, generation: int, places: Sequence[str], rewritten: int) -> bool:
    """A repair has made objects anew, or brought them to other stores. False where the backup went meanwhile."""
    row = await get(unit, backup)
    if row.state == BackupState.EXPIRED:
        return False
    row.manifest_generation, row.places = generation, list(places)
    if rewritten:
        unit.publish(REPAIRED, [backup], details={"objects": rewritten})
    return True


async def judged(unit: Unit, backup: UUID, found: Findings) -> BackupState:
    """What a check makes of it: VERIFIED by one that used the keys, BROKEN where it can't be read any more."""
    row = await get(unit, backup)
    before = BackupState(row.state)
    if before is BackupState.EXPIRED:  # nobody's check brings it back
        return before
    row.checked_at, row.missing, row.rotten, row.reason = unit.now, found.missing, found.rotten, found.reason
    if not found.is_readable:
        row.state = BackupState.BROKEN
        if before is not BackupState.BROKEN:
            unit.publish(FAILED, [backup], details={"reason": found.reason or "BACKUP_BROKEN"})
    elif found.is_whole and found.depth is Depth.CHUNKS:
        row.state, row.verified_at = BackupState.VERIFIED, unit.now
        if before is BackupState.WRITTEN:
            unit.publish(MADE, [backup], details={"number": row.number, "bytes": row.bytes, "records": row.records})
    unit.audit(
        "backup.checked",
        subject_type="Backup",
        subjects=[backup],
        details={"missing": found.missing, "rotten": found.rotten, "depth": found.depth},
        outcome=found.reason or "OK",
    )
    return BackupState(row.state)


async def failed(unit: Unit, backup: UUID, reason: str) -> None:
    """The job that makes it gives up; the next one takes it over."""
    row = await get(unit, backup)
    row.reason = reason
    unit.publish(FAILED, [backup], details={"reason": reason})


async def live(unit: Unit) -> list[Live]:
    """All that should lie on stores, by number."""
    states = (BackupState.WRITTEN, BackupState.VERIFIED, BackupState.BROKEN)
    statement = select(BackupRow).where(*_in(unit, *states)).order_by(BackupRow.number)
    return [_live(row) for row in await unit.scalars(statement.execution_options(populate_existing=True))]


async def find_live(unit: Unit, backup: UUID) -> Live | None:
    """None for one that is gone, or not finished."""
    return next((each for each in await live(unit) if each.id == backup), None)


async def expire(unit: Unit) -> list[Live]:
    """Judge by the tenant's retention; then all whose objects and keys are to go.

    Broken ones take nobody's place and stay as long as they would if they were good: what they lack may come back.
    What was made out of turn has its own time besides. What was kept before a restore may be what nobody wants back: it
    takes nobody's place either.
    """
    rows = await backups.lock_all(unit, BackupState.VERIFIED, BackupState.BROKEN)
    wanted = await asked.settings(unit)
    regular = [row for row in rows if row.kind != BackupKind.BEFORE_RESTORE]
    good = retention.kept([(row.created_at, row.id) for row in regular if row.state == BackupState.VERIFIED], wanted)
    all_ = retention.kept([(row.created_at, row.id) for row in regular], wanted)
    for row in rows:
        row.kept_as = list(good.get(row.id, ()))
        is_young = retention.is_young(row.kind, unit.now - row.created_at)
        is_kept = row.id in good or is_young or (row.state == BackupState.BROKEN and row.id in all_)
        if not is_kept and await asked.why_kept(unit, row) is None:
            row.state = BackupState.EXPIRED
    await unit.flush()
    going = select(BackupRow).where(*_in(unit, BackupState.EXPIRED), BackupRow.wrapped_key != "")
    return [_live(row) for row in await unit.scalars(going.order_by(BackupRow.number))]


async def gone(unit: Unit, backup: UUID) -> None:
    """No store lists it any more: its key goes, and with the next key file from everywhere."""
    row = await get(unit, backup)
    if not row.wrapped_key:
        return  # another job was first
    row.wrapped_key, row.dek_versions, row.kept_as, row.missing, row.rotten = "", [], [], 0, 0
    unit.publish(DELETED, [backup], details={"number": row.number})
    await key_files.enqueue_publish(unit)


async def get(unit: Unit, backup: UUID) -> BackupRow:
    """Locked. Raises `Conflict` where it is gone: whoever asked for it goes by what was true before."""
    row = await backups.lock(unit, backup)
    if row is None:
        raise Conflict
    return row


async def _claimed(unit: Unit, row: BackupRow) -> Claimed:
    before = (BackupRow.tenant_id == unit.tenant.id, BackupRow.number == row.number - 1)
    identity = await unit.scalars(select(BackupRow.identity).where(*before))
    return Claimed(row.id, row.number, BackupKind(row.kind), row.wrapped_key, next(iter(identity), None))


async def _serving(unit: Unit) -> list[int]:
    mine = (DataKeyRow.tenant_id == unit.tenant.id, DataKeyRow.purpose == Purpose.DEK, DataKeyRow.state.in_(SERVING))
    return sorted(await unit.scalars(select(DataKeyRow.version).where(*mine)))


def _in(unit: Unit, *states: BackupState) -> tuple[Any, ...]:
    return BackupRow.tenant_id == unit.tenant.id, BackupRow.state.in_(states)


def _live(row: BackupRow) -> Live:
    state = BackupState(row.state)
    return Live(row.id, row.number, state, row.manifest_generation, row.identity, row.wrapped_key, tuple(row.places))
