"""Erasure: who was forgotten, what may not be, and tenants that leave."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP

from migrations.operations import belongs_to, sealed_column, tenant_table

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    _erasures()
    _certificates()
    _legal_holds()
    _offboardings()
    op.drop_constraint("status", "tenants")
    op.create_check_constraint("status", "tenants", "status IN ('PENDING', 'ACTIVE', 'SUSPENDED', 'CLOSED')")


def _moment(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, TIMESTAMP(timezone=True), nullable=nullable)


def _erasures() -> None:
    tenant_table(
        "erasures",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("subject", sa.Uuid, nullable=False),
        _moment("at"),
        sa.Column("principal", sa.Uuid, nullable=True),
        sa.Column("cause", sa.Text, nullable=True),
        sa.Column("ticket", sa.Text, nullable=True),
        sa.Column("destroyed", JSONB, nullable=True),
        sa.Column("head", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_erasures"),
        sa.UniqueConstraint("tenant_id", "number", name="uq_erasures_tenant_id_number"),
        sa.UniqueConstraint("tenant_id", "subject", name="uq_erasures_tenant_id_subject"),
        sa.CheckConstraint("octet_length(head) = 32", name="head"),
        sa.CheckConstraint("number > 0", name="number"),
        rights="SELECT, INSERT",
    )


def _certificates() -> None:
    tenant_table(
        "erasure_certificates",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        _moment("finished_at"),
        sa.Column("certificate", JSONB, nullable=False),
        sa.Column("key_version", sa.SmallInteger, nullable=False),
        sa.Column("signature", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_erasure_certificates"),
        belongs_to("erasure_certificates", "id", "erasures", on_delete=None),
        rights="SELECT, INSERT",
    )
    op.create_index("ix_erasure_certificates_finished", "erasure_certificates", ["tenant_id", "finished_at", "id"])


def _legal_holds() -> None:
    tenant_table(
        "legal_holds",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("customer_id", sa.Uuid, nullable=False),
        sealed_column("reason"),
        sa.Column("ticket", sa.Text, nullable=True),
        sa.Column("placed_by", sa.Uuid, nullable=True),
        _moment("placed_at"),
        sa.Column("lifted_by", sa.Uuid, nullable=True),
        _moment("lifted_at", nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_legal_holds"),
        rights="SELECT, INSERT, UPDATE, DELETE",
    )
    op.create_index("ix_legal_holds_customer", "legal_holds", ["tenant_id", "customer_id", "id"])


def _offboardings() -> None:
    tenant_table(
        "offboardings",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("requested_by", sa.Uuid, nullable=False),
        _moment("requested_at"),
        sa.Column("cooling_days", sa.SmallInteger, nullable=False),
        sa.Column("approved_by", sa.Uuid, nullable=True),
        _moment("approved_at", nullable=True),
        _moment("shred_after", nullable=True),
        sa.Column("cancelled_by", sa.Uuid, nullable=True),
        _moment("shredded_at", nullable=True),
        _moment("ended_at", nullable=True),
        sa.Column("destroyed", JSONB, nullable=True),
        sa.Column("certificate", JSONB, nullable=True),
        sa.Column("key_version", sa.SmallInteger, nullable=True),
        sa.Column("signature", sa.Text, nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_offboardings"),
        sa.CheckConstraint("state IN ('REQUESTED', 'COOLING', 'CANCELLED', 'SHREDDING', 'CLOSED')", name="state"),
        sa.CheckConstraint("approved_by <> requested_by", name="two_people"),
        sa.CheckConstraint("cooling_days > 0", name="cooling_days"),
        rights="SELECT, INSERT, UPDATE",
    )
    op.create_index(
        "uq_offboardings_open",
        "offboardings",
        ["tenant_id"],
        unique=True,
        postgresql_where=sa.text("ended_at IS NULL"),
    )
