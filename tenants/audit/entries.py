"""The audit log: who did what, to which fields of whom, when, for what; names and ids, never values.

Entries are only ever added. `tenants.audit.tables` links them so that a later change of one shows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import JSON, BigInteger, Index, Row, Text, Uuid, text
from sqlalchemy.dialects.postgresql import ARRAY, TIMESTAMP
from sqlalchemy.orm import Mapped

from crypto.chain import Content
from tenants.ids import new_id
from tenants.origins import UNKNOWN, Origin
from tenants.owned import Backup, TenantOwned, clear

OK = "OK"
DISCLOSED = "personal.disclosed"
REVEALED = "personal.revealed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """`outcome` is OK or the code of the refusal. `fields` are names; of a disclosure each ends in its level,
    as ``Customer.emails:MASKED``. `details` holds counts and codes.
    """

    tenant: UUID
    at: datetime
    actor: UUID | None
    action: str
    subject_type: str | None = None
    subjects: Sequence[UUID] = ()
    fields: Sequence[str] = ()
    outcome: str = OK
    details: dict[str, int | str] = field(default_factory=dict)
    origin: Origin = UNKNOWN
    id: UUID = field(default_factory=new_id)

    def row(self) -> dict[str, Any]:
        return {
            "tenant_id": self.tenant,
            "id": self.id,
            "at": self.at,
            "actor": self.actor,
            "action": self.action,
            "subject_type": self.subject_type,
            "subjects": list(self.subjects),
            "fields": list(self.fields),
            "outcome": self.outcome,
            "details": self.details,
            "purpose": self.origin.purpose,
            "request_id": self.origin.request_id,
        }


class AuditEntry(TenantOwned, backup=Backup.NEVER, rights="SELECT INSERT", fleet="tenant_id xid", is_recorded=True):
    __tablename__ = "audit_entries"
    __table_args__ = (
        Index("ix_audit_entries_feed", "xid", info={"fleet": "the linker follows the entries of all tenants"}),
        Index("ix_audit_entries_xid", "tenant_id", "xid", "id"),
        Index("ix_audit_entries_at", "tenant_id", "at", "id"),
        Index("ix_audit_entries_actor", "tenant_id", "actor", "at"),
        Index(
            "ix_audit_entries_revealed",
            "tenant_id",
            "actor",
            "at",
            postgresql_where=text(f"action = '{REVEALED}'"),
        ),
    )

    id: Mapped[UUID] = clear("made at random", primary_key=True)
    xid: Mapped[int] = clear(
        "orders entries by commit", BigInteger, server_default=text("pg_current_xact_id()::text::bigint")
    )
    at: Mapped[datetime] = clear("when it happened", TIMESTAMP(timezone=True))
    actor: Mapped[UUID | None] = clear("a member's random id", Uuid, nullable=True)
    action: Mapped[str] = clear("a code", Text)
    subject_type: Mapped[str | None] = clear("a type's name", Text, nullable=True)
    subjects: Mapped[list[UUID]] = clear("random ids", ARRAY(Uuid))
    fields: Mapped[list[str]] = clear("names of fields and levels, never values", ARRAY(Text))
    outcome: Mapped[str] = clear("OK or a refusal's code", Text)
    details: Mapped[Any] = clear("counts and codes", JSON)
    purpose: Mapped[str | None] = clear("a code, never free text", Text, nullable=True)
    request_id: Mapped[str | None] = clear("finds the request in logs", Text, nullable=True)


CONTENT = (
    AuditEntry.id,
    AuditEntry.at,
    AuditEntry.actor,
    AuditEntry.action,
    AuditEntry.subject_type,
    AuditEntry.subjects,
    AuditEntry.fields,
    AuditEntry.outcome,
    AuditEntry.details,
    AuditEntry.purpose,
    AuditEntry.request_id,
)


def content_of(row: Row[Any]) -> Content:
    """What the chain says of an entry, from a row of its `CONTENT`."""
    return Content(
        id=row.id,
        at=row.at,
        actor=row.actor,
        action=row.action,
        subject_type=row.subject_type,
        subjects=row.subjects,
        fields=row.fields,
        outcome=row.outcome,
        details=row.details,
        purpose=row.purpose,
        request_id=row.request_id,
    )


class DisclosureCounter(TenantOwned, backup=Backup.NEVER, rights="SELECT INSERT UPDATE DELETE"):
    """What left, per viewer and hour: records, and values in plain and masked. Written by the linker."""

    __tablename__ = "disclosure_counters"

    viewer: Mapped[UUID] = clear("a member's random id", primary_key=True)
    hour: Mapped[datetime] = clear("the hour's start, UTC", TIMESTAMP(timezone=True), primary_key=True)
    records: Mapped[int] = clear("a count", BigInteger)
    plain: Mapped[int] = clear("a count", BigInteger)
    masked: Mapped[int] = clear("a count", BigInteger)
