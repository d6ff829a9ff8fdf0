"""Ids are made here, in Python, before a row exists: associated data binds a ciphertext to its row's id."""

from uuid import UUID

import uuid_utils


def new_id() -> UUID:
    """UUIDv7 (RFC 9562, 5.7): ordered by creation, so that indexes stay dense."""
    return UUID(bytes=uuid_utils.uuid7().bytes)
