"""What a tenant's data keys are and what is derived from them; every derivation carries a purpose label of its own.

HKDF here is the Expand step of RFC 5869 (2.3) alone, with SHA-256, 32 bytes out and ``info = join(label, ...)`` by
`crypto.encoding.join`: the input keys are uniform, so there is no Extract and no salt. Labels and purposes are UTF-8,
ids their 16 bytes (big endian, RFC 4122).
"""

import hashlib
import hmac
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from crypto.encoding import join
from crypto.errors import KeyRefused

KEY_BYTES = 32
CHECK_VALUE_BYTES = 8


class Purpose(StrEnum):
    DEK = "DEK"
    BIK = "BIK"
    AUD = "AUD"


class KeyState(StrEnum):
    """What a data key does now. Of each purpose one key is ACTIVE: it seals, and readers search by it.

    NEXT is made and not yet in force; of index keys, writers write its tokens already. DECRYPT_ONLY opens what it
    sealed. RETIRED serves nobody, but a backup may need it. DESTROYED is a row that remembers a key.
    """

    NEXT = "NEXT"
    ACTIVE = "ACTIVE"
    DECRYPT_ONLY = "DECRYPT_ONLY"
    RETIRED = "RETIRED"
    DESTROYED = "DESTROYED"


SERVING = frozenset({KeyState.NEXT, KeyState.ACTIVE, KeyState.DECRYPT_ONLY})  # what a keyring holds


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A data key as Postgres keeps it. `wrapped` is Transit's ``vault:vN:...``; `check_value` is 8 bytes."""

    tenant: UUID
    id: UUID
    purpose: Purpose
    version: int
    wrapped: str
    check_value: bytes
    state: KeyState


@dataclass(frozen=True, slots=True)
class DataKey:
    """A data key open in memory; `secret` is 32 bytes and never printed."""

    purpose: Purpose
    version: int
    state: KeyState
    secret: bytes = field(repr=False)


def wrapping_context(tenant: UUID, key_id: UUID, purpose: Purpose) -> bytes:
    """Transit's derivation context of one data key: it unwraps as this purpose, tenant and id, or not at all.

    ``join("coffer.wrap.v1", purpose, tenant 16, id 16)``.
    """
    return join(b"coffer.wrap.v1", purpose.encode(), tenant.bytes, key_id.bytes)


def check_value(tenant: UUID, key_id: UUID, purpose: Purpose, secret: bytes) -> bytes:
    """8 bytes that tell a right key from a wrong one and nothing else of it.

    The first 8 of HMAC-SHA256 under `secret` of ``join("coffer.check.v1", purpose, tenant 16, id 16)``.
    """
    return hmac.digest(secret, join(b"coffer.check.v1", purpose.encode(), tenant.bytes, key_id.bytes), "sha256")[
        :CHECK_VALUE_BYTES
    ]


def unlock(key: WrappedKey, secret: bytes) -> DataKey:
    """Raises `KeyRefused` if `secret` is not the key that was checked in under this id."""
    expected = check_value(key.tenant, key.id, key.purpose, secret)
    if len(secret) != KEY_BYTES or not hmac.compare_digest(expected, key.check_value):
        raise KeyRefused("A data key failed its check value.")
    return DataKey(key.purpose, key.version, key.state, secret)


def derive(secret: bytes, *info: bytes) -> bytes:
    """HKDF-Expand (RFC 5869, 2.3) of a uniform 32-byte key to 32 bytes; `info` is joined, a purpose label first."""
    return HKDFExpand(algorithm=SHA256(), length=KEY_BYTES, info=join(*info)).derive(secret)


def mac(secret: bytes, message: bytes) -> bytes:
    """32 bytes of HMAC-SHA256."""
    return hmac.digest(secret, message, hashlib.sha256)
