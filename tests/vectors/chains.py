"""A second making of the audit chain, from the docstring of `crypto.chain` alone; it imports nothing of ours."""

import hashlib
import hmac
import struct
from typing import Any
from uuid import UUID

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def joined(*parts: bytes) -> bytes:
    return b"".join(struct.pack(">I", len(part)) + part for part in parts)


def entry(fields: dict[str, Any]) -> bytes:
    """`fields` as the vectors have them: ids as text, the moment in microseconds, details as their JSON text."""
    parts = [
        b"coffer.audit.entry.v1",
        UUID(fields["id"]).bytes,
        struct.pack(">q", fields["at"]),
        UUID(fields["actor"]).bytes if fields["actor"] else b"",
        fields["action"].encode(),
        _maybe(fields["subject_type"]),
        joined(*[UUID(subject).bytes for subject in fields["subjects"]]),
        joined(*[name.encode() for name in fields["fields"]]),
        fields["outcome"].encode(),
        fields["details"].encode("ascii"),
        _maybe(fields["purpose"]),
        _maybe(fields["request_id"]),
    ]
    return joined(*parts)


def key(audit_key: bytes, tenant: UUID, days: int) -> bytes:
    """HKDF-Expand to 32 bytes is one block: T(1) = HMAC(key, info | 0x01)."""
    made = _hmac(audit_key, joined(b"coffer.audit.v1", tenant.bytes) + b"\x01")
    for _ in range(days):
        made = _hmac(made, b"coffer.audit.next.v1")
    return made


def link(day_key: bytes, tenant: UUID, seq: int, day: int, before: bytes, entry: bytes) -> bytes:
    """`day` in days since 1970-01-01."""
    number, of_day = struct.pack(">Q", seq), struct.pack(">i", day)
    return _hmac(day_key, joined(b"coffer.audit.link.v1", tenant.bytes, number, of_day, before, entry))


def is_checkpoint(public_key: bytes, signature: bytes, tenant: UUID, seq: int, mac: bytes, at: int) -> bool:
    signed = joined(b"coffer.audit.checkpoint.v1", tenant.bytes, struct.pack(">Q", seq), mac, struct.pack(">q", at))
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, signed)
    except InvalidSignature:
        return False
    return True


def _maybe(text: str | None) -> bytes:
    return b"" if text is None else joined(text.encode())


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, hashlib.sha256).digest()
