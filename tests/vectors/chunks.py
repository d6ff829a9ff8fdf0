"""A second reader of chunks, written from the docstring of `crypto.chunks` alone; it must not import ours."""

import hashlib
import hmac
from uuid import UUID

from cryptography.hazmat.primitives.ciphers.aead import AESGCM


def opened(key: bytes, backup: UUID, opening: bytes, chunks: list[bytes]) -> bytes:
    """The stream. Raises `ValueError` for another key, `InvalidTag` for other chunks."""
    salted, check = opening[:38], opening[38:]
    if (
        len(opening) != 70
        or salted[:2] != b"\xc2\x01"
        or derived(key, b"coffer.chunk.check.v1", backup, salted) != check
    ):
        raise ValueError("opening")
    cipher = AESGCM(derived(key, b"coffer.chunk.key.v1", backup, salted))
    return b"".join(
        cipher.decrypt(
            index.to_bytes(11, "big") + last,
            chunk,
            joined(b"coffer.chunk.v1", backup.bytes, index.to_bytes(8, "big"), last, opening),
        )
        for index, chunk in enumerate(chunks)
        for last in [b"\x01" if index == len(chunks) - 1 else b"\x00"]
    )


def derived(key: bytes, label: bytes, backup: UUID, salted: bytes) -> bytes:
    """HKDF-Expand to 32 bytes is one block: T(1) = HMAC(key, info | 0x01)."""
    return hmac.new(key, joined(label, backup.bytes, salted) + b"\x01", hashlib.sha256).digest()


def joined(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)
