"""Backups and key files: what there is of each tenant, and where."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TIMESTAMP

from migrations.operations import show_fleet, tenant_table

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    _backups()
    _backup_settings()
    _key_files()


def _moment(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, TIMESTAMP(timezone=True), nullable=nullable)


def _count(name: str, kind: type[sa.Integer] = sa.Integer) -> sa.Column[object]:
    return sa.Column(name, kind, nullable=False, server_default="0")


def _many(name: str, kind: type[Any], default: str | None = "{}") -> sa.Column[object]:
    return sa.Column(name, ARRAY(kind), nullable=False, server_default=default)


def _backups() -> None:
    tenant_table(
        "backups",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        _moment("created_at"),
        _moment("written_at", nullable=True),
        _moment("verified_at", nullable=True),
        _moment("checked_at", nullable=True),
        sa.Column("identity", sa.Text, nullable=True),
        _count("manifest_generation"),
        _count("key_file"),
        sa.Column("coding", sa.Text, nullable=False),
        _many("places", sa.Text),
        _many("dek_versions", sa.Integer, None),
        sa.Column("wrapped_key", sa.Text, nullable=False),
        _count("bytes", sa.BigInteger),
        _count("record_bytes", sa.BigInteger),
        _count("records", sa.BigInteger),
        sa.Column("tables", JSONB, nullable=False, server_default="{}"),
        _count("missing"),
        _count("rotten"),
        _many("kept_as", sa.Text),
        sa.Column("held", sa.Boolean, nullable=False, server_default="false"),
        _many("used_by", sa.Uuid),
        sa.Column("job_id", sa.Uuid, nullable=True),
        sa.Column("reason", sa.Text, nullable=True),
        _moment("drilled_at", nullable=True),
        sa.Column("drill_outcome", sa.Text, nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_backups"),
        sa.UniqueConstraint("tenant_id", "number", name="uq_backups_tenant_id_number"),
        sa.CheckConstraint("kind IN ('SCHEDULED', 'ASKED', 'BEFORE_RESTORE')", name="kind"),
        sa.CheckConstraint("state IN ('WRITING', 'WRITTEN', 'VERIFIED', 'BROKEN', 'EXPIRED')", name="state"),
        sa.CheckConstraint(
            "wrapped_key LIKE 'vault:v%' OR (state = 'EXPIRED' AND wrapped_key = '')", name="wrapped_key"
        ),
        rights="SELECT, INSERT, UPDATE",
    )
    is_writing = sa.text("state = 'WRITING'")
    op.create_index("uq_backups_writing", "backups", ["tenant_id"], unique=True, postgresql_where=is_writing)
    op.create_index("ix_backups_created", "backups", ["tenant_id", "created_at", "id"])
    show_fleet("backups", "tenant_id, id, state, created_at, verified_at, missing, rotten, drilled_at, drill_outcome")


def _backup_settings() -> None:
    tenant_table(
        "backup_settings",
        sa.Column("daily", sa.Integer, nullable=False),
        sa.Column("weekly", sa.Integer, nullable=False),
        sa.Column("monthly", sa.Integer, nullable=False),
        _moment("updated_at"),
        sa.PrimaryKeyConstraint("tenant_id", name="pk_backup_settings"),
        sa.CheckConstraint("daily >= 1 AND weekly >= 0 AND monthly >= 0", name="counts"),
        rights="SELECT, INSERT, UPDATE",
    )


def _key_files() -> None:
    tenant_table(
        "key_files",
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("sha256", sa.LargeBinary, nullable=True),
        sa.Column("kek_versions", ARRAY(sa.Integer), nullable=False),
        sa.Column("dek_versions", ARRAY(sa.Integer), nullable=False),
        _many("stores", sa.Text),
        _moment("created_at"),
        sa.PrimaryKeyConstraint("tenant_id", "generation", name="pk_key_files"),
        sa.CheckConstraint("generation > 0", name="generation"),
        sa.CheckConstraint("state IN ('WRITING', 'CURRENT')", name="state"),
        sa.CheckConstraint("state = 'WRITING' OR sha256 IS NOT NULL", name="sha256"),
        sa.CheckConstraint("octet_length(sha256) = 32", name="sha256_length"),
        rights="SELECT, INSERT, UPDATE, DELETE",
    )
    is_current = sa.text("state = 'CURRENT'")
    op.create_index("uq_key_files_current", "key_files", ["tenant_id"], unique=True, postgresql_where=is_current)
