"""A second reader of buckets, written from the docstring of `crypto.buckets` alone; it must not import ours."""

import hashlib
import hmac
from uuid import UUID

from cryptography.hazmat.primitives.ciphers.aead import AESGCM


def opened(key: bytes, tenant: UUID, generation: int, opening: bytes, bucket: int, sealed: bytes) -> dict[UUID, bytes]:
    """The secrets by subject. Raises `ValueError` for another key, `InvalidTag` for another bucket."""
    salted, check = opening[:34], opening[34:]
    if len(opening) != 66 or salted[:2] != b"\xc3\x01":
        raise ValueError("opening")
    if derived(key, b"coffer.bucket.check.v1", tenant, generation, salted) != check:
        raise ValueError("opening")
    cipher = AESGCM(derived(key, b"coffer.bucket.key.v1", tenant, generation, salted))
    number = generation.to_bytes(8, "big")
    bound = joined(b"coffer.bucket.v1", tenant.bytes, number, bytes([bucket]), opening)
    content = cipher.decrypt(bytes(11) + bytes([bucket]), sealed, bound)
    return {
        UUID(bytes=content[start : start + 16]): content[start + 16 : start + 48]
        for start in range(0, len(content), 48)
    }


def derived(key: bytes, label: bytes, tenant: UUID, generation: int, salted: bytes) -> bytes:
    """HKDF-Expand to 32 bytes is one block: T(1) = HMAC(key, info | 0x01)."""
    info = joined(label, tenant.bytes, generation.to_bytes(8, "big"), salted)
    return hmac.new(key, info + b"\x01", hashlib.sha256).digest()


def joined(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)
