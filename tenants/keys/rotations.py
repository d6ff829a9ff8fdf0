"""The table of rotations: how far each turn-over of a key is, and the proof that it came to its end."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, Integer, SmallInteger, Text, Uuid, text
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlalchemy.orm import Mapped

from tenants.owned import Backup, TenantOwned, clear


class KeyPurpose(StrEnum):
    """What can be rotated: the tenant's key in the key store, its data key, its index key."""

    KEK = "KEK"
    DEK = "DEK"
    BIK = "BIK"


class Cause(StrEnum):
    """Why a rotation began."""

    ASKED = "ASKED"
    AGE = "AGE"
    USE = "USE"


class Rotation(TenantOwned, backup=Backup.NEVER, rights="SELECT INSERT UPDATE"):
    """At most one of each purpose is open: its `ended_at` is NULL."""

    __tablename__ = "rotations"
    __table_args__ = (
        CheckConstraint("purpose IN ('KEK', 'DEK', 'BIK')", name="purpose"),
        Index("uq_rotations_open", "tenant_id", "purpose", unique=True, postgresql_where=text("ended_at IS NULL")),
        Index("ix_rotations_started", "tenant_id", "started_at", "id"),
    )

    id: Mapped[UUID] = clear("made at random", primary_key=True)
    purpose: Mapped[str] = clear("a code", Text)
    state: Mapped[str] = clear("a code: how far it is", Text)
    from_version: Mapped[int] = clear("of the key that goes", Integer)
    to_version: Mapped[int] = clear("of the key that comes", Integer)
    cause: Mapped[str] = clear("a code", Text)
    job_id: Mapped[UUID | None] = clear("a random id", Uuid, nullable=True)
    started_at: Mapped[datetime] = clear("sorted by", TIMESTAMP(timezone=True))
    moved_at: Mapped[datetime] = clear("when the state changed", TIMESTAMP(timezone=True))
    ended_at: Mapped[datetime | None] = clear("when nothing is left to do", TIMESTAMP(timezone=True), nullable=True)
    proof: Mapped[Any] = clear("counts by table and column; no values", JSONB, nullable=True)
    key_version: Mapped[int | None] = clear("of the key that signed the proof", SmallInteger, nullable=True)
    signature: Mapped[str | None] = clear("of the proof, base64", Text, nullable=True)
