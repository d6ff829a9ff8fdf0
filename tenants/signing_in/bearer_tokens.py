"""The form of tokens that name their holder and end in 32 random bytes; what opens is kept as its SHA-256 only.

``<prefix>`` and the base64url, without padding, of ``tenant 16 B | further ids of 16 B each | secret 32 B``.
"""

import base64
import binascii
import hashlib
import secrets
from dataclasses import dataclass, field
from uuid import UUID

SECRET_BYTES = 32
_LONGEST = 400


@dataclass(frozen=True, slots=True)
class BearerToken:
    """`ids` begin with the tenant's. `hash` is the SHA-256 of the secret."""

    ids: tuple[UUID, ...]
    hash: bytes = field(repr=False)


def make(prefix: str, *ids: UUID) -> tuple[str, bytes]:
    """A new token, and what is kept of it."""
    secret = secrets.token_bytes(SECRET_BYTES)
    body = b"".join(each.bytes for each in ids) + secret
    return prefix + base64.urlsafe_b64encode(body).rstrip(b"=").decode(), hashlib.sha256(secret).digest()


def read(prefix: str, text: str, ids: int) -> BearerToken | None:
    """None for whatever is not, to the letter, a token of that prefix with so many ids."""
    coded = text.removeprefix(prefix)
    if coded == text or len(text) > _LONGEST or not text.isascii():
        return None
    try:
        raw = base64.b64decode(coded + "=" * (-len(coded) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    if len(raw) != 16 * ids + SECRET_BYTES or base64.urlsafe_b64encode(raw).rstrip(b"=").decode() != coded:
        return None
    parts = tuple(UUID(bytes=raw[16 * n : 16 * n + 16]) for n in range(ids))
    return BearerToken(parts, hashlib.sha256(raw[16 * ids :]).digest())
