"""Erasure: who was forgotten, what may not be, and tenants that leave."""

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    pass
