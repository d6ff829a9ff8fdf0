"""What tenants use, hour by hour and day by day; and the columns of its own row that a tenant may set."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TIMESTAMP

from migrations.operations import APP, tenant_table

revision = "0006"
down_revision = "0005"

_ITS_OWN = "name, default_region, default_language, disclosure_budget, reveal_needs_step_up"


def upgrade() -> None:
    tenant_table(
        "usage_hours",
        sa.Column("hour", TIMESTAMP(timezone=True), nullable=False),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.Column("cost", sa.BigInteger, nullable=False),
        sa.Column("refused", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "hour", name="pk_usage_hours"),
        rights="SELECT, INSERT, UPDATE, DELETE",
    )
    tenant_table(
        "usage_sizes",
        sa.Column("day", sa.Date, nullable=False),
        sa.Column("customers", sa.BigInteger, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("measured_at", TIMESTAMP(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "day", name="pk_usage_sizes"),
        rights="SELECT, INSERT, UPDATE, DELETE",
    )
    op.execute(f"GRANT UPDATE ({_ITS_OWN}) ON tenants TO {APP}")
