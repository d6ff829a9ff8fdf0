"""Webhooks: where a tenant's events are sent, by which secrets they are signed, and what became of each.

An endpoint is a viewer: it has a member of kind SERVICE, whose roles decide what it gets. A delivery holds an event's
ids and names, so it outlasts the event; no body and no answer is kept. How deliveries are led is in
`domain.webhooks`, who is told of their events too.
"""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, TIMESTAMP
from sqlalchemy.orm import Mapped

from tenants.access import Sensitivity
from tenants.documents import Document, Mask, personal
from tenants.events import EventKind
from tenants.owned import Backup, TenantOwned, clear, sealed

KEPT = timedelta(days=30)  # deliveries and attempts, after the last of them
_PENDING = text("state = 'PENDING'")
_SUBJECT = "WebhookEndpoint"

CREATED = EventKind("webhook.created", _SUBJECT, "Somebody added a place that events are sent to.")
UPDATED = EventKind(
    "webhook.updated",
    _SUBJECT,
    "Where, what or under which roles events are sent was changed.",
    frozenset({"url", "payload", "types", "roles", "ownRoles", "name"}),
)
DELETED = EventKind("webhook.deleted", _SUBJECT, "Nothing is sent there any more, and its log is gone.")
ENABLED = EventKind("webhook.enabled", _SUBJECT, "Events are sent to an endpoint again.")
DISABLED = EventKind(
    "webhook.disabled",
    _SUBJECT,
    "Nothing is sent to an endpoint any more: it failed for days, is gone, or was stopped.",
)
ROTATED = EventKind("webhook.secret_rotated", _SUBJECT, "An endpoint has a new secret beside the one before.")
TESTED = EventKind("webhook.test", _SUBJECT, "Nothing happened: somebody asked for an event to try an endpoint with.")


class Payload(StrEnum):
    """What is sent of a change."""

    THIN = "THIN"
    FULL = "FULL"


class EndpointState(StrEnum):
    ACTIVE = "ACTIVE"
    DISABLED = "DISABLED"


class DisabledWhy(StrEnum):
    """Why nothing is sent to an endpoint."""

    BY_MEMBER = "BY_MEMBER"
    GONE = "GONE"
    FAILED_FOR_DAYS = "FAILED_FOR_DAYS"
    SERVICE_DISABLED = "SERVICE_DISABLED"
    RESTORED = "RESTORED"


class DeliveryState(StrEnum):
    PENDING = "PENDING"
    DELIVERED = "DELIVERED"
    SKIPPED = "SKIPPED"


class Address(Document):
    """Where to; the path of such an address is often a secret."""

    is_of_people = False

    url: str | None = personal(Sensitivity.FREE_TEXT, Mask.NOTHING)


class SecretText(Document):
    """What messages are signed by: ``whsec_…`` and ``whsk_…``."""

    is_of_people = False

    secret: str | None = personal(Sensitivity.FREE_TEXT, Mask.NOTHING)
    private_key: str | None = personal(Sensitivity.FREE_TEXT, Mask.NOTHING)


class WebhookEndpoint(
    TenantOwned, backup=Backup.SETTINGS, rights="SELECT INSERT UPDATE DELETE", fleet="tenant_id id state not_before"
):
    """A restore brings it back DISABLED, and without secrets."""

    __tablename__ = "webhook_endpoints"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "member_id"], ["members.tenant_id", "members.id"], ondelete="CASCADE"),
        Index("ix_webhook_endpoints_created", "tenant_id", "created_at", "id"),
        UniqueConstraint("tenant_id", "member_id"),
        CheckConstraint("state IN ('ACTIVE', 'DISABLED')", name="state"),
        CheckConstraint("payload IN ('THIN', 'FULL')", name="payload"),
    )

    id: Mapped[UUID] = clear("made at random", primary_key=True)
    member_id: Mapped[UUID] = clear("the service whose roles decide what is sent")
    address: Mapped[Any] = sealed(Address, place="webhook_endpoints.address", subject="tenant_id")
    payload: Mapped[str] = clear("a code", Text)
    types: Mapped[list[str]] = clear("names of the catalogue; none: all", ARRAY(Text))
    state: Mapped[str] = clear("decides whether anything is sent", Text)
    disabled_why: Mapped[str | None] = clear("a code", Text, nullable=True)
    failing_since: Mapped[datetime | None] = clear(
        "when the first failure was that no success has followed", TIMESTAMP(timezone=True), nullable=True
    )
    not_before: Mapped[datetime | None] = clear(
        "its receiver asked to be left alone until then", TIMESTAMP(timezone=True), nullable=True
    )
    begun: Mapped[str | None] = clear("numbers of transactions: between which it gets events", Text, nullable=True)
    created_at: Mapped[datetime] = clear("sorted by", TIMESTAMP(timezone=True))
    updated_at: Mapped[datetime] = clear("when it was changed last", TIMESTAMP(timezone=True))
    version: Mapped[int] = clear("refuses changes made from an old reading", Integer)


class WebhookSecret(TenantOwned, backup=Backup.NEVER, rights="SELECT INSERT UPDATE DELETE"):
    """At most two of one endpoint are valid, while it is rotated."""

    __tablename__ = "webhook_secrets"
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "endpoint_id"],
            ["webhook_endpoints.tenant_id", "webhook_endpoints.id"],
            ondelete="CASCADE",
        ),
        Index("ix_webhook_secrets_endpoint", "tenant_id", "endpoint_id", "created_at"),
    )

    id: Mapped[UUID] = clear("made at random", primary_key=True)
    endpoint_id: Mapped[UUID] = clear("whose messages it signs")
    secret: Mapped[Any] = sealed(SecretText, place="webhook_secrets.secret", subject="tenant_id")
    public_key: Mapped[str] = clear("anybody may know it", Text)
    created_at: Mapped[datetime] = clear("when it was made", TIMESTAMP(timezone=True))
    expires_at: Mapped[datetime | None] = clear(
        "it signs nothing from then on", TIMESTAMP(timezone=True), nullable=True
    )


class WebhookCursor(TenantOwned, backup=Backup.NEVER, rights="SELECT INSERT UPDATE"):
    """How far a tenant's events have become deliveries. `id` is the tenant's own, so that there is one."""

    __tablename__ = "webhook_cursors"

    id: Mapped[UUID] = clear("the tenant's id", primary_key=True)
    xid: Mapped[int] = clear("orders events by commit", BigInteger)
    event_id: Mapped[UUID] = clear("a random id")


class WebhookDelivery(
    TenantOwned,
    backup=Backup.NEVER,
    rights="SELECT INSERT UPDATE DELETE",
    fleet="tenant_id id endpoint_id state due_at lease_until",
):
    """One event for one endpoint. Of those of one subject only the first that is PENDING may be sent.

    No foreign key holds it to its endpoint, which may have millions and goes at once: they go by the page afterwards.

    `attempt` counts all that were recorded, `tries` those since it was last asked for; `fence` grows with each lease.
    `claims` counts leases since one last ended in word of it.
    """

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        UniqueConstraint("tenant_id", "endpoint_id", "event_id"),
        Index("ix_webhook_deliveries_due", "tenant_id", "endpoint_id", "due_at", postgresql_where=_PENDING),
        Index(
            "ix_webhook_deliveries_subject",
            *("tenant_id", "endpoint_id", "subject", "place", "xid", "event_id"),
            postgresql_where=_PENDING,
        ),
        Index("ix_webhook_deliveries_created", "tenant_id", "created_at", "id"),
        Index("ix_webhook_deliveries_log", "tenant_id", "endpoint_id", "created_at", "id"),
        CheckConstraint("state IN ('PENDING', 'DELIVERED', 'SKIPPED')", name="state"),
        CheckConstraint("(state = 'PENDING') = (ended_at IS NULL)", name="ended"),
    )

    id: Mapped[UUID] = clear("made at random; the message's id", primary_key=True)
    endpoint_id: Mapped[UUID] = clear("where to")
    event_id: Mapped[UUID] = clear("a random id")
    type: Mapped[str] = clear("a name of the catalogue", Text)
    type_version: Mapped[int] = clear("of the type's schema", SmallInteger)
    happened_at: Mapped[datetime] = clear("when the event happened", TIMESTAMP(timezone=True))
    subject: Mapped[UUID] = clear("a random id")
    fields: Mapped[list[str]] = clear("names of fields, never values", ARRAY(Text))
    place: Mapped[int] = clear(
        "orders the deliveries of one subject: a transaction's number; of a test, less than none", BigInteger
    )
    xid: Mapped[int] = clear("orders those of one place by their events: a transaction's number", BigInteger)
    state: Mapped[str] = clear("a code", Text)
    reason: Mapped[str | None] = clear("a code", Text, nullable=True)
    attempt: Mapped[int] = clear("a count", Integer, server_default="0")
    tries: Mapped[int] = clear("a count", Integer, server_default="0")
    claims: Mapped[int] = clear("a count", Integer, server_default="0")
    fence: Mapped[int] = clear("grows with each lease; an older holder is refused", Integer, server_default="0")
    due_at: Mapped[datetime] = clear("not before then", TIMESTAMP(timezone=True))
    lease_until: Mapped[datetime | None] = clear(
        "whoever sends it is dead after it", TIMESTAMP(timezone=True), nullable=True
    )
    created_at: Mapped[datetime] = clear("sorted by", TIMESTAMP(timezone=True))
    ended_at: Mapped[datetime | None] = clear("decides when it is forgotten", TIMESTAMP(timezone=True), nullable=True)


class WebhookAttempt(TenantOwned, backup=Backup.NEVER, rights="SELECT INSERT DELETE"):
    """One request that was sent, or could not be. `status` is the receiver's; without one `reason` says why."""

    __tablename__ = "webhook_attempts"
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "delivery_id"],
            ["webhook_deliveries.tenant_id", "webhook_deliveries.id"],
            ondelete="CASCADE",
        ),
        Index("ix_webhook_attempts_at", "tenant_id", "endpoint_id", "at"),
        CheckConstraint("octet_length(body_hash) = 32", name="body_hash"),
    )

    delivery_id: Mapped[UUID] = clear("which delivery", primary_key=True)
    number: Mapped[int] = clear("a count", Integer, primary_key=True)
    endpoint_id: Mapped[UUID] = clear("where to")
    at: Mapped[datetime] = clear("when it was sent", TIMESTAMP(timezone=True))
    duration_ms: Mapped[int] = clear("how long the receiver took", Integer)
    status: Mapped[int | None] = clear("the receiver's answer: a code of HTTP", SmallInteger, nullable=True)
    reason: Mapped[str | None] = clear("why nobody answered: a code", Text, nullable=True)
    body_hash: Mapped[bytes] = clear("SHA-256 of the body; one with values holds a nonce, kept nowhere", LargeBinary)
    fields: Mapped[list[str]] = clear("names of fields that were sent and their levels, never values", ARRAY(Text))
