"""Backups and key files: what there is of each tenant, and where."""

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    pass
