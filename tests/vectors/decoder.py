"""A second implementation of envelopes, tokens and check values, written from the docstrings of `crypto` alone.

It must not import `crypto`: where both agree, the docstrings suffice to read the data without us.
"""

import hashlib
import hmac
import re
from uuid import UUID

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_ENVELOPE = re.compile(rb"(\xc1\x01(.{4}))(.{12})((?:.{32})+.{32})", re.DOTALL)


def joined(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def expanded(key: bytes, label: str, *info: bytes) -> bytes:
    """HKDF-Expand to 32 bytes is one block: T(1) = HMAC(key, info | 0x01)."""
    return _hmac(key, joined(label.encode(), *info) + b"\x01")


def dek_version(sealed: bytes) -> int:
    return int.from_bytes(_parts(sealed)[1], "big")


def opened(dek: bytes, sealed: bytes, tenant: UUID, subject: UUID, subject_secret: bytes, label: str, row: UUID) -> str:
    """The document. Raises `ValueError` where the bytes break the layout, `InvalidTag` where key or cell is wrong."""
    header, _, nonce, ciphertext = _parts(sealed)
    bound = joined(tenant.bytes, subject.bytes, label.encode(), row.bytes, header)
    key = subject_key(dek, tenant, subject_secret)
    plain = AESGCM(key).decrypt(nonce, ciphertext, bound)
    document = re.fullmatch(rb"\x00{16}(.*)\x80\x00{0,31}", plain, re.DOTALL)
    if document is None:
        raise ValueError("commitment or padding")
    return document[1].decode()


def subject_key(dek: bytes, tenant: UUID, subject_secret: bytes) -> bytes:
    block = Cipher(algorithms.AES256(expanded(dek, "coffer.subject.v1", tenant.bytes)), modes.ECB())  # noqa: S305
    return b"".join(block.encryptor().update(half) for half in (subject_secret[:16], subject_secret[16:]))


def token(bik: bytes, tenant: UUID, place: str, index: str, normaliser: int, value: str) -> bytes:
    names = place.encode(), index.encode(), normaliser.to_bytes(4, "big")
    return _hmac(expanded(bik, "coffer.index.v1", tenant.bytes, *names), value.encode())[:16]


def mac(bik: bytes, tenant: UUID, label: str, message: bytes) -> bytes:
    return _hmac(expanded(bik, "coffer.mac.v1", tenant.bytes, label.encode()), message)


def check_value(secret: bytes, tenant: UUID, key_id: UUID, purpose: str) -> bytes:
    return _hmac(secret, joined(b"coffer.check.v1", purpose.encode(), tenant.bytes, key_id.bytes))[:8]


def wrapping_context(tenant: UUID, key_id: UUID, purpose: str) -> bytes:
    return joined(b"coffer.wrap.v1", purpose.encode(), tenant.bytes, key_id.bytes)


def _parts(sealed: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """header, version, nonce, and ciphertext with its tag (16 + 32 k + 16 bytes, k at least 1)."""
    parts = _ENVELOPE.fullmatch(sealed)
    if parts is None:
        raise ValueError("layout")
    return parts[1], parts[2], parts[3], parts[4]


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, hashlib.sha256).digest()
