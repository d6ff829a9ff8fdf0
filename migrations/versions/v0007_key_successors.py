"""Which API key followed another, so that rotating one again knows how long it was made to last."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("successor_id", sa.Uuid, nullable=True))
