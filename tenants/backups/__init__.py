"""The table of backups: what there is of a tenant, how good it is, and which keys it needs.

What lies on the stores is the truth about bytes; this table is the truth about which backup counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Index,
    Integer,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TIMESTAMP
from sqlalchemy.orm import Mapped

from tenants.jobs import Job
from tenants.owned import Backup as Policy
from tenants.owned import TenantOwned, clear
from tenants.unit import Unit


class BackupKind(StrEnum):
    """Why a backup was made."""

    SCHEDULED = "SCHEDULED"
    ASKED = "ASKED"
    BEFORE_RESTORE = "BEFORE_RESTORE"


class BackupState(StrEnum):
    """How far a backup is; only a VERIFIED one counts."""

    WRITING = "WRITING"
    WRITTEN = "WRITTEN"
    VERIFIED = "VERIFIED"
    BROKEN = "BROKEN"
    EXPIRED = "EXPIRED"


class Generation(StrEnum):
    """As what retention keeps a backup."""

    DAILY = "DAILY"
    WEEKLY = "WEEKLY"
    MONTHLY = "MONTHLY"


class BackupRow(
    TenantOwned,
    backup=Policy.NEVER,
    rights="SELECT INSERT UPDATE",
    fleet="tenant_id id state created_at verified_at missing rotten drilled_at drill_outcome",
):
    """At most one is being written. An expired one keeps its row, for the chain of identities, and has no key."""

    __tablename__ = "backups"
    __table_args__ = (
        UniqueConstraint("tenant_id", "number"),
        Index("uq_backups_writing", "tenant_id", unique=True, postgresql_where=text("state = 'WRITING'")),
        Index("ix_backups_created", "tenant_id", "created_at", "id"),
        CheckConstraint("kind IN ('SCHEDULED', 'ASKED', 'BEFORE_RESTORE')", name="kind"),
        CheckConstraint("state IN ('WRITING', 'WRITTEN', 'VERIFIED', 'BROKEN', 'EXPIRED')", name="state"),
        CheckConstraint("wrapped_key LIKE 'vault:v%' OR (state = 'EXPIRED' AND wrapped_key = '')", name="wrapped_key"),
    )

    id: Mapped[UUID] = clear("made at random; stands in names of objects", primary_key=True)
    number: Mapped[int] = clear("its place behind the tenant's backup before", Integer)
    kind: Mapped[str] = clear("a code", Text)
    state: Mapped[str] = clear("a code", Text)
    created_at: Mapped[datetime] = clear("the moment of its snapshot; sorted by", TIMESTAMP(timezone=True))
    written_at: Mapped[datetime | None] = clear("when its manifest stood", TIMESTAMP(timezone=True), nullable=True)
    verified_at: Mapped[datetime | None] = clear("when it was last good", TIMESTAMP(timezone=True), nullable=True)
    checked_at: Mapped[datetime | None] = clear("when it was last looked at", TIMESTAMP(timezone=True), nullable=True)
    identity: Mapped[str | None] = clear("a hash of its manifest", Text, nullable=True)
    manifest_generation: Mapped[int] = clear("a count", Integer, server_default="0")
    key_file: Mapped[int] = clear("a generation of the key file", Integer, server_default="0")
    coding: Mapped[str] = clear("a code", Text)
    places: Mapped[list[str]] = clear("URLs of stores, by shard", ARRAY(Text), server_default="{}")
    dek_versions: Mapped[list[int]] = clear("numbers of keys", ARRAY(Integer))
    wrapped_key: Mapped[str] = clear("ciphertext of the key store", Text)
    bytes: Mapped[int] = clear("a count, of all its objects", BigInteger, server_default="0")
    record_bytes: Mapped[int] = clear("a count, before compression", BigInteger, server_default="0")
    records: Mapped[int] = clear("a count", BigInteger, server_default="0")
    tables: Mapped[Any] = clear("counts by table", JSONB, server_default="{}")
    missing: Mapped[int] = clear("a count: objects that the last check did not find", Integer, server_default="0")
    rotten: Mapped[int] = clear("a count: objects that the last check found damaged", Integer, server_default="0")
    kept_as: Mapped[list[str]] = clear("codes: what retention keeps it as", ARRAY(Text), server_default="{}")
    held: Mapped[bool] = clear("somebody asked to keep it", Boolean, server_default="false")
    used_by: Mapped[list[UUID]] = clear("ids of jobs that read it", ARRAY(Uuid), server_default="{}")
    job_id: Mapped[UUID | None] = clear("a random id", Uuid, nullable=True)
    reason: Mapped[str | None] = clear("an error's code", Text, nullable=True)
    drilled_at: Mapped[datetime | None] = clear(
        "when it was last restored on trial", TIMESTAMP(timezone=True), nullable=True
    )
    drill_outcome: Mapped[str | None] = clear("a code: OK, or why it could not be restored", Text, nullable=True)


class BackupSettings(TenantOwned, backup=Policy.SETTINGS, rights="SELECT INSERT UPDATE"):
    """How many of each generation a tenant keeps; who has no row keeps the house's."""

    __tablename__ = "backup_settings"
    __table_args__ = (CheckConstraint("daily >= 1 AND weekly >= 0 AND monthly >= 0", name="counts"),)

    daily: Mapped[int] = clear("a count", Integer)
    weekly: Mapped[int] = clear("a count", Integer)
    monthly: Mapped[int] = clear("a count", Integer)
    updated_at: Mapped[datetime] = clear("when it was changed", TIMESTAMP(timezone=True))


@dataclass(frozen=True, slots=True)
class LiveBackup:
    """What the key file says of a backup: its wrapped key, and the versions of the data key its values need."""

    id: UUID
    number: int
    wrapped_key: str
    dek_versions: tuple[int, ...]


async def live(unit: Unit) -> list[LiveBackup]:
    """By number; also the one that is being written, whose key file must be there before its manifest is."""
    rows = await unit.rows(
        select(BackupRow.id, BackupRow.number, BackupRow.wrapped_key, BackupRow.dek_versions)
        .where(BackupRow.tenant_id == unit.tenant.id, BackupRow.wrapped_key != "")
        .order_by(BackupRow.number)
    )
    return [LiveBackup(row.id, row.number, row.wrapped_key, tuple(row.dek_versions)) for row in rows]


async def needs_data_key(unit: Unit, version: int) -> bool:
    """Whether the key of that version must stay: some backup that can still be opened has values it sealed."""
    return any(version in backup.dek_versions for backup in await live(unit))


async def newest(unit: Unit) -> BackupRow | None:
    """The newest that counts: the VERIFIED one of the highest number."""
    mine = (BackupRow.tenant_id == unit.tenant.id, BackupRow.state == BackupState.VERIFIED)
    return await _first(unit, select(BackupRow).where(*mine).order_by(BackupRow.number.desc()).limit(1))


async def find(unit: Unit, backup: UUID) -> BackupRow | None:
    """In any state; None for another tenant's."""
    return await _first(unit, select(BackupRow).where(BackupRow.tenant_id == unit.tenant.id, BackupRow.id == backup))


async def lock(unit: Unit, backup: UUID) -> BackupRow | None:
    """As `find`; until the unit ends nobody else changes it."""
    mine = select(BackupRow).where(BackupRow.tenant_id == unit.tenant.id, BackupRow.id == backup)
    return await _first(unit, mine.with_for_update())


async def lock_for_long(unit: Unit, backup: UUID) -> None:
    """As `lock`, also where the unit asks nothing for minutes, while the backup is read."""
    await unit.run(select(func.set_config("idle_in_transaction_session_timeout", "0", True)))
    await lock(unit, backup)


async def lock_all(unit: Unit, *states: BackupState) -> Sequence[BackupRow]:
    """As `lock`, of all in these states, the oldest first: so two who may delete some wait for each other."""
    mine = select(BackupRow).where(BackupRow.tenant_id == unit.tenant.id, BackupRow.state.in_(states))
    locking = mine.order_by(BackupRow.number).with_for_update().execution_options(populate_existing=True)
    found: Sequence[BackupRow] = await unit.scalars(locking)
    return found


async def use(unit: Unit, backup: UUID, job: UUID) -> bool:
    """Note that `job` reads the backup: until that job has ended, retention and members leave it where it is.

    False where it is gone, or is about to go.
    """
    mine = (BackupRow.tenant_id == unit.tenant.id, BackupRow.id == backup, BackupRow.state != BackupState.EXPIRED)
    others = func.array_remove(BackupRow.used_by, job)
    change = update(BackupRow).where(*mine).values(used_by=func.array_append(others, job)).returning(BackupRow.id)
    return bool(await unit.scalars(change.execution_options(synchronize_session=False)))


async def is_in_use(unit: Unit, row: BackupRow) -> bool:
    """Whether a job that reads it has not ended."""
    reading = select(Job.id).where(Job.tenant_id == unit.tenant.id, Job.id.in_(row.used_by), Job.ended_at.is_(None))
    return bool(row.used_by) and bool(await unit.scalars(reading.limit(1)))


async def _first(unit: Unit, statement: Any) -> BackupRow | None:
    found: Sequence[BackupRow] = await unit.scalars(statement.execution_options(populate_existing=True))
    return next(iter(found), None)
