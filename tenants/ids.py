"""Ids are made here, in Python, before a row exists: associated data binds a ciphertext to its row's id."""

import base64
from uuid import UUID

import uuid_utils


def new_id() -> UUID:
    """UUIDv7 (RFC 9562, 5.7): ordered by creation, so that indexes stay dense."""
    return UUID(bytes=uuid_utils.uuid7().bytes)


def global_id(kind: str, local: UUID) -> str:
    """The id of an object of that GraphQL type outside of the house: base64url of ``type:`` and the id's 16 bytes."""
    return base64.urlsafe_b64encode(kind.encode() + b":" + local.bytes).rstrip(b"=").decode()
