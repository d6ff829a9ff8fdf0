"""Signing in for real use: refresh tokens, second factors with recovery codes, one-time tokens, invited members."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TIMESTAMP

from migrations.operations import belongs_to, sealed_column, tenant_table

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.drop_constraint("status", "members")
    op.create_check_constraint("status", "members", "status IN ('INVITED', 'ACTIVE', 'DISABLED')")
    _refresh_tokens()
    _second_factors()
    _recovery_codes()
    _one_time_tokens()


def _moment(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, TIMESTAMP(timezone=True), nullable=nullable)


def _refresh_tokens() -> None:
    """Used ones stay as long as their session: that one comes again tells that it was stolen."""
    tenant_table(
        "refresh_tokens",
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.Column("session_id", sa.Uuid, nullable=False),
        _moment("created_at"),
        _moment("used_at", nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "hash", name="pk_refresh_tokens"),
        belongs_to("refresh_tokens", "session_id", "member_sessions"),
        sa.CheckConstraint("octet_length(hash) = 32", name="hash"),
        rights="SELECT, INSERT, UPDATE, DELETE",
    )
    op.create_index("ix_refresh_tokens_session", "refresh_tokens", ["tenant_id", "session_id"])


def _second_factors() -> None:
    tenant_table(
        "second_factors",
        sa.Column("id", sa.Uuid, nullable=False),
        sealed_column("secret"),
        sa.Column("last_step", sa.BigInteger, nullable=False),
        _moment("created_at"),
        _moment("confirmed_at", nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_second_factors"),
        belongs_to("second_factors", "id", "members"),
        rights="SELECT, INSERT, UPDATE, DELETE",
    )


def _recovery_codes() -> None:
    tenant_table(
        "recovery_codes",
        sa.Column("member_id", sa.Uuid, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "member_id", "hash", name="pk_recovery_codes"),
        belongs_to("recovery_codes", "member_id", "members"),
        sa.CheckConstraint("octet_length(hash) = 32", name="hash"),
        rights="SELECT, INSERT, DELETE",
    )


def _one_time_tokens() -> None:
    """One of each use per member, so that a new one voids the old."""
    tenant_table(
        "one_time_tokens",
        sa.Column("member_id", sa.Uuid, nullable=False),
        sa.Column("use", sa.Text, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        _moment("expires_at"),
        sa.PrimaryKeyConstraint("tenant_id", "member_id", "use", name="pk_one_time_tokens"),
        belongs_to("one_time_tokens", "member_id", "members"),
        sa.CheckConstraint("use IN ('RESET', 'INVITATION')", name="use"),
        sa.CheckConstraint("octet_length(hash) = 32", name="hash"),
        rights="SELECT, INSERT, UPDATE, DELETE",
    )
