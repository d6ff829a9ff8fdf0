"""Ids are made here, in Python, before a row exists: associated data binds a ciphertext to its row's id."""

import base64
import binascii
from uuid import UUID

import uuid_utils


def new_id() -> UUID:
    """UUIDv7 (RFC 9562, 5.7): ordered by creation, so that indexes stay dense."""
    return UUID(bytes=uuid_utils.uuid7().bytes)


def global_id(kind: str, local: UUID) -> str:
    """The id of an object of that GraphQL type outside of the house: base64url of ``type:`` and the id's 16 bytes."""
    return text_of(kind.encode() + b":" + local.bytes)


def any_local_id(text: str) -> tuple[str, UUID] | None:
    """The type's name and the id inside a global id, or None where the text is none of ours."""
    kind, separator, local = (bytes_of(text) or b"").partition(b":")
    if not separator or len(local) != 16 or not kind.isalpha():
        return None
    return kind.decode(), UUID(bytes=local)


def text_of(raw: bytes) -> str:
    """base64url without padding (RFC 4648, 5)."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def bytes_of(text: str) -> bytes | None:
    """What `text_of` made this very text of; None for any other spelling, and beyond 200 characters."""
    if not text.isascii() or len(text) > 200:
        return None
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if text_of(raw) == text else None
