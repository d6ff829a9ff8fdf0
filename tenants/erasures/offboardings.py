"""The table of offboardings: tenants that leave, who wanted and who approved it, and what was destroyed."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, SmallInteger, Text, Uuid, select, text
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlalchemy.orm import Mapped

from tenants.errors import TenantClosed
from tenants.owned import Backup, TenantOwned, clear
from tenants.unit import Unit


class OffboardingState(StrEnum):
    REQUESTED = "REQUESTED"
    COOLING = "COOLING"
    CANCELLED = "CANCELLED"
    SHREDDING = "SHREDDING"
    CLOSED = "CLOSED"


class Offboarding(TenantOwned, backup=Backup.NEVER, rights="SELECT INSERT UPDATE"):
    """At most one is open. Without `approved_by`, but with `approved_at`, the platform's operator approved it."""

    __tablename__ = "offboardings"
    __table_args__ = (
        CheckConstraint("state IN ('REQUESTED', 'COOLING', 'CANCELLED', 'SHREDDING', 'CLOSED')", name="state"),
        CheckConstraint("approved_by <> requested_by", name="two_people"),
        CheckConstraint("cooling_days > 0", name="cooling_days"),
        Index("uq_offboardings_open", "tenant_id", unique=True, postgresql_where=text("ended_at IS NULL")),
    )

    id: Mapped[UUID] = clear("made at random", primary_key=True)
    state: Mapped[str] = clear("a code: how far it is", Text)
    requested_by: Mapped[UUID] = clear("a member's random id", Uuid)
    requested_at: Mapped[datetime] = clear("when it was wanted", TIMESTAMP(timezone=True))
    cooling_days: Mapped[int] = clear("how long it can be called off", SmallInteger)
    approved_by: Mapped[UUID | None] = clear("another member's random id", Uuid, nullable=True)
    approved_at: Mapped[datetime | None] = clear("since when it cools", TIMESTAMP(timezone=True), nullable=True)
    shred_after: Mapped[datetime | None] = clear("the end of cooling", TIMESTAMP(timezone=True), nullable=True)
    cancelled_by: Mapped[UUID | None] = clear("a member's random id", Uuid, nullable=True)
    shredded_at: Mapped[datetime | None] = clear("when the key was gone", TIMESTAMP(timezone=True), nullable=True)
    ended_at: Mapped[datetime | None] = clear("when nothing is left to do", TIMESTAMP(timezone=True), nullable=True)
    destroyed: Mapped[Any] = clear("counts by table and by store's URL", JSONB, nullable=True)
    certificate: Mapped[Any] = clear("ids, counts, codes and moments", JSONB, nullable=True)
    key_version: Mapped[int | None] = clear("of the key that signed", SmallInteger, nullable=True)
    signature: Mapped[str | None] = clear("of the certificate, base64", Text, nullable=True)


async def refuse_shredding(unit: Unit) -> None:
    """Until the unit ends no operator begins to destroy the tenant's key. Raises `TenantClosed` where one has begun."""
    open_one = (Offboarding.tenant_id == unit.tenant.id, Offboarding.ended_at.is_(None))
    states = await unit.scalars(select(Offboarding.state).where(*open_one).with_for_update(read=True))
    if OffboardingState.SHREDDING in states:
        raise TenantClosed
