"""Webhooks: endpoints, their secrets, and what was delivered."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, TIMESTAMP

from migrations.operations import belongs_to, sealed_column, show_fleet, tenant_table

revision = "0011"
down_revision = "0010"

_ALL = "SELECT, INSERT, UPDATE, DELETE"
_PENDING = sa.text("state = 'PENDING'")


def upgrade() -> None:
    _endpoints()
    _secrets()
    _cursors()
    _deliveries()
    _attempts()
    op.create_index("ix_events_relay", "events", ["tenant_id", "xid", "id"])


def _moment(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, TIMESTAMP(timezone=True), nullable=nullable)


def _endpoints() -> None:
    table = "webhook_endpoints"
    tenant_table(
        table,
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("member_id", sa.Uuid, nullable=False),
        sealed_column("address"),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("types", ARRAY(sa.Text), nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("disabled_why", sa.Text, nullable=True),
        _moment("failing_since", nullable=True),
        _moment("not_before", nullable=True),
        sa.Column("begun", sa.Text, nullable=True),
        _moment("created_at"),
        _moment("updated_at"),
        sa.Column("version", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_webhook_endpoints"),
        belongs_to(table, "member_id", "members"),
        sa.UniqueConstraint("tenant_id", "member_id", name="uq_webhook_endpoints_tenant_id_member_id"),
        sa.CheckConstraint("state IN ('ACTIVE', 'DISABLED')", name="state"),
        sa.CheckConstraint("payload IN ('THIN', 'FULL')", name="payload"),
        rights=_ALL,
    )
    op.create_index("ix_webhook_endpoints_created", table, ["tenant_id", "created_at", "id"])
    show_fleet(table, "tenant_id, id, state, not_before")


def _secrets() -> None:
    table = "webhook_secrets"
    tenant_table(
        table,
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("endpoint_id", sa.Uuid, nullable=False),
        sealed_column("secret"),
        sa.Column("public_key", sa.Text, nullable=False),
        _moment("created_at"),
        _moment("expires_at", nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_webhook_secrets"),
        belongs_to(table, "endpoint_id", "webhook_endpoints"),
        rights=_ALL,
    )
    op.create_index("ix_webhook_secrets_endpoint", table, ["tenant_id", "endpoint_id", "created_at"])


def _cursors() -> None:
    tenant_table(
        "webhook_cursors",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("xid", sa.BigInteger, nullable=False),
        sa.Column("event_id", sa.Uuid, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_webhook_cursors"),
        rights="SELECT, INSERT, UPDATE",
    )


def _deliveries() -> None:
    table = "webhook_deliveries"
    tenant_table(
        table,
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("endpoint_id", sa.Uuid, nullable=False),
        sa.Column("event_id", sa.Uuid, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("type_version", sa.SmallInteger, nullable=False),
        _moment("happened_at"),
        sa.Column("subject", sa.Uuid, nullable=False),
        sa.Column("fields", ARRAY(sa.Text), nullable=False),
        sa.Column("place", sa.BigInteger, nullable=False),
        sa.Column("xid", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=True),
        sa.Column("attempt", sa.Integer, nullable=False, server_default="0"),
        sa.Column("tries", sa.Integer, nullable=False, server_default="0"),
        sa.Column("claims", sa.Integer, nullable=False, server_default="0"),
        sa.Column("fence", sa.Integer, nullable=False, server_default="0"),
        _moment("due_at"),
        _moment("lease_until", nullable=True),
        _moment("created_at"),
        _moment("ended_at", nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_webhook_deliveries"),
        sa.UniqueConstraint(
            "tenant_id", "endpoint_id", "event_id", name="uq_webhook_deliveries_tenant_id_endpoint_id_event_id"
        ),
        sa.CheckConstraint("state IN ('PENDING', 'DELIVERED', 'SKIPPED')", name="state"),
        sa.CheckConstraint("(state = 'PENDING') = (ended_at IS NULL)", name="ended"),
        rights=_ALL,
    )
    due = ["tenant_id", "endpoint_id", "due_at"]
    subject = ["tenant_id", "endpoint_id", "subject", "place", "xid", "event_id"]
    op.create_index("ix_webhook_deliveries_due", table, due, postgresql_where=_PENDING)
    op.create_index("ix_webhook_deliveries_subject", table, subject, postgresql_where=_PENDING)
    op.create_index("ix_webhook_deliveries_created", table, ["tenant_id", "created_at", "id"])
    op.create_index("ix_webhook_deliveries_log", table, ["tenant_id", "endpoint_id", "created_at", "id"])
    show_fleet(table, "tenant_id, id, endpoint_id, state, due_at, lease_until")


def _attempts() -> None:
    table = "webhook_attempts"
    tenant_table(
        table,
        sa.Column("delivery_id", sa.Uuid, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("endpoint_id", sa.Uuid, nullable=False),
        _moment("at"),
        sa.Column("duration_ms", sa.Integer, nullable=False),
        sa.Column("status", sa.SmallInteger, nullable=True),
        sa.Column("reason", sa.Text, nullable=True),
        sa.Column("body_hash", sa.LargeBinary, nullable=False),
        sa.Column("fields", ARRAY(sa.Text), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "delivery_id", "number", name="pk_webhook_attempts"),
        belongs_to(table, "delivery_id", "webhook_deliveries"),
        sa.CheckConstraint("octet_length(body_hash) = 32", name="body_hash"),
        rights="SELECT, INSERT, DELETE",
    )
    op.create_index("ix_webhook_attempts_at", table, ["tenant_id", "endpoint_id", "at"])
