"""The spine: events, jobs and schedules, the audit log and its chain, imports."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, TIMESTAMP

from migrations.operations import let_fleet_insert, let_recorder_insert, sealed_column, show_fleet, tenant_table

revision = "0002"
down_revision = "0001"

_XID = sa.text("pg_current_xact_id()::text::bigint")
# Readers listen on the trigger's channel. Postgres drops doubles within a transaction, and sends at commit only.
_WAKE = """
CREATE FUNCTION coffer_wake() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_catalog.pg_notify(TG_ARGV[0], '');
    RETURN NULL;
END
$$
"""


def upgrade() -> None:
    op.execute("GRANT USAGE ON SCHEMA public TO coffer_recorder")
    op.execute(
        "DO $$ BEGIN EXECUTE format('GRANT CONNECT ON DATABASE %I TO coffer_recorder', current_database()); END $$"
    )
    op.execute(_WAKE)
    op.execute("REVOKE ALL ON FUNCTION coffer_wake FROM PUBLIC")
    _events()
    _jobs()
    _schedules()
    _audit()
    _chain()
    _imports()


def _moment(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, TIMESTAMP(timezone=True), nullable=nullable)


def _events() -> None:
    tenant_table(
        "events",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("xid", sa.BigInteger, nullable=False, server_default=_XID),
        _moment("at"),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("version", sa.SmallInteger, nullable=False),
        sa.Column("subject", sa.Uuid, nullable=False),
        sa.Column("fields", ARRAY(sa.Text), nullable=False),
        sa.Column("actor", sa.Uuid, nullable=True),
        sa.Column("request_id", sa.Text, nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_events"),
        rights="SELECT, INSERT, DELETE",
    )
    op.create_index("ix_events_feed", "events", ["xid", "id"])
    op.create_index("ix_events_at", "events", ["tenant_id", "at"])
    show_fleet("events", "tenant_id, id, xid")
    op.execute(
        "CREATE TRIGGER wake AFTER INSERT ON events FOR EACH STATEMENT EXECUTE FUNCTION coffer_wake('coffer_events')"
    )


def _jobs() -> None:
    states = "'READY', 'RUNNING', 'PAUSED', 'DONE', 'PARKED', 'CANCELLED'"
    tenant_table(
        "jobs",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("priority", sa.SmallInteger, nullable=False),
        sa.Column("arguments", sa.JSON, nullable=False),
        sa.Column("once", sa.Text, nullable=True),
        sa.Column("attempt", sa.Integer, nullable=False, server_default="0"),
        sa.Column("deaths", sa.Integer, nullable=False, server_default="0"),
        sa.Column("fence", sa.Integer, nullable=False, server_default="0"),
        sa.Column("worker", sa.Text, nullable=True),
        _moment("lease_until", nullable=True),
        _moment("due_at"),
        sa.Column("wish", sa.Text, nullable=True),
        sa.Column("cursor", sa.JSON, nullable=True),
        sa.Column("done", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("total", sa.BigInteger, nullable=True),
        sa.Column("result", sa.JSON, nullable=True),
        sa.Column("reason", sa.Text, nullable=True),
        sa.Column("principal", sa.Uuid, nullable=True),
        sa.Column("request_id", sa.Text, nullable=True),
        sa.Column("trace", sa.Text, nullable=True),
        _moment("created_at"),
        _moment("started_at", nullable=True),
        _moment("moved_at", nullable=True),
        _moment("ended_at", nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_jobs"),
        sa.CheckConstraint(f"state IN ({states})", name="state"),
        sa.CheckConstraint("(state = 'RUNNING') = (lease_until IS NOT NULL)", name="lease"),
        sa.CheckConstraint("(state IN ('DONE', 'PARKED', 'CANCELLED')) = (ended_at IS NOT NULL)", name="ended"),
        rights="SELECT, INSERT, UPDATE, DELETE",
    )
    where = {"ready": sa.text("state = 'READY'"), "running": sa.text("state = 'RUNNING'")}
    ready = ["tenant_id", "priority", "due_at", "id"]
    op.create_index("ix_jobs_ready", "jobs", ready, postgresql_where=where["ready"])
    op.create_index("ix_jobs_running", "jobs", ["tenant_id", "lease_until"], postgresql_where=where["running"])
    op.create_index("ix_jobs_created", "jobs", ["tenant_id", "created_at", "id"])
    op.create_index(
        "uq_jobs_once",
        "jobs",
        ["tenant_id", "kind", "once"],
        unique=True,
        postgresql_where=sa.text("ended_at IS NULL AND once IS NOT NULL"),
    )
    show_fleet("jobs", "tenant_id, id, kind, state, priority, due_at, lease_until, created_at")
    let_fleet_insert("jobs", "tenant_id, id, kind, state, priority, arguments, due_at, created_at")


def _schedules() -> None:
    tenant_table(
        "schedules",
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("cron", sa.Text, nullable=False),
        sa.Column("time_zone", sa.Text, nullable=False),
        _moment("next_at", nullable=True),
        _moment("last_at", nullable=True),
        sa.Column("last_job", sa.Uuid, nullable=True),
        _moment("updated_at"),
        sa.PrimaryKeyConstraint("tenant_id", "kind", name="pk_schedules"),
        rights="SELECT, INSERT, UPDATE, DELETE",
    )
    op.create_index("ix_schedules_next", "schedules", ["next_at"])
    show_fleet("schedules", "tenant_id, kind, next_at")


def _audit() -> None:
    tenant_table(
        "audit_entries",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("xid", sa.BigInteger, nullable=False, server_default=_XID),
        _moment("at"),
        sa.Column("actor", sa.Uuid, nullable=True),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("subject_type", sa.Text, nullable=True),
        sa.Column("subjects", ARRAY(sa.Uuid), nullable=False),
        sa.Column("fields", ARRAY(sa.Text), nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("details", sa.JSON, nullable=False),
        sa.Column("purpose", sa.Text, nullable=True),
        sa.Column("request_id", sa.Text, nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_audit_entries"),
        rights="SELECT, INSERT",
    )
    op.create_index("ix_audit_entries_feed", "audit_entries", ["xid"])
    op.create_index("ix_audit_entries_xid", "audit_entries", ["tenant_id", "xid", "id"])
    op.create_index("ix_audit_entries_at", "audit_entries", ["tenant_id", "at", "id"])
    op.create_index("ix_audit_entries_actor", "audit_entries", ["tenant_id", "actor", "at"])
    show_fleet("audit_entries", "tenant_id, xid")
    let_recorder_insert("audit_entries")
    tenant_table(
        "disclosure_counters",
        sa.Column("viewer", sa.Uuid, nullable=False),
        _moment("hour"),
        sa.Column("records", sa.BigInteger, nullable=False),
        sa.Column("plain", sa.BigInteger, nullable=False),
        sa.Column("masked", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "viewer", "hour", name="pk_disclosure_counters"),
        rights="SELECT, INSERT, UPDATE, DELETE",
    )


def _chain() -> None:
    tenant_table(
        "audit_links",
        sa.Column("seq", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("entry_id", sa.Uuid, nullable=False),
        sa.Column("day", sa.Date, nullable=False),
        sa.Column("mac", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "seq", name="pk_audit_links"),
        sa.UniqueConstraint("tenant_id", "entry_id", name="uq_audit_links_tenant_id_entry_id"),
        sa.CheckConstraint("octet_length(mac) = 32", name="mac"),
        rights="SELECT, INSERT",
    )
    tenant_table(
        "audit_heads",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("mac", sa.LargeBinary, nullable=False),
        sa.Column("xid", sa.BigInteger, nullable=False),
        sa.Column("first_day", sa.Date, nullable=False),
        sa.Column("day", sa.Date, nullable=False),
        sealed_column("key"),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_audit_heads"),
        sa.CheckConstraint("octet_length(mac) = 32", name="mac"),
        rights="SELECT, INSERT, UPDATE",
    )
    tenant_table(
        "audit_checkpoints",
        sa.Column("seq", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("mac", sa.LargeBinary, nullable=False),
        _moment("at"),
        sa.Column("key_version", sa.Integer, nullable=False),
        sa.Column("signature", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "seq", name="pk_audit_checkpoints"),
        sa.CheckConstraint("octet_length(mac) = 32", name="mac"),
        rights="SELECT, INSERT",
    )


def _imports() -> None:
    tenant_table(
        "import_rows",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("job_id", sa.Uuid, nullable=False),
        sa.Column("row", sa.Integer, nullable=False),
        sealed_column("cells"),
        sa.Column("outcome", sa.Text, nullable=True),
        sa.Column("customer_id", sa.Uuid, nullable=True),
        sa.Column("errors", sa.JSON, nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_import_rows"),
        sa.UniqueConstraint("tenant_id", "job_id", "row", name="uq_import_rows_tenant_id_job_id_row"),
        rights="SELECT, INSERT, UPDATE, DELETE",
    )
