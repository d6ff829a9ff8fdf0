"""Webhooks: endpoints, their secrets, and what was delivered."""

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    pass
