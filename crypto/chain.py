"""The bytes of the audit chain: what an entry's link authenticates, the keys of its days, and signed checkpoints.

All parts are joined by `crypto.encoding.join`; ids are their 16 bytes, text is UTF-8, and what may be absent is empty
where it is and ``join(value)`` where it is not, so that absent and "" differ.

Entry: ``join("coffer.audit.entry.v1", id, at, actor, action, subject_type, join(*subjects), join(*fields), outcome,
details, purpose, request_id)``. `at` is microseconds since 1970-01-01 UTC as i64 BE; `actor` is an id or empty;
`subject_type`, `purpose` and `request_id` may be absent; `details` is JSON in ASCII, keys sorted, no spaces.

Keys: ``K(first) = HKDF(AUD, "coffer.audit.v1", tenant)`` by `crypto.keys.derive`, and for each later day, UTC,
``K(d + 1) = HMAC-SHA256(K(d), "coffer.audit.next.v1")``. A day's key tells nothing of the days before it.

Link: ``mac(n) = HMAC-SHA256(K(day), join("coffer.audit.link.v1", tenant, n, day, mac(n - 1), entry))`` with n as u64
BE, day as days since 1970-01-01 i32 BE, and ``mac(0)`` 32 zero bytes.

Checkpoint: Ed25519 (RFC 8032) of ``join("coffer.audit.checkpoint.v1", tenant, n, mac(n), at)``. The key's version is
not signed: it says which public half verifies, and under another one nothing does.
"""

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from crypto.encoding import join
from crypto.keys import derive

START = bytes(32)  # mac(0)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_DAY = _EPOCH.date()


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """All that a link says of an entry."""

    id: UUID
    at: datetime
    actor: UUID | None
    action: str
    subject_type: str | None
    subjects: Sequence[UUID]
    fields: Sequence[str]
    outcome: str
    details: Mapping[str, Any]
    purpose: str | None
    request_id: str | None


def entry_bytes(content: Content) -> bytes:
    return join(
        b"coffer.audit.entry.v1",
        content.id.bytes,
        _moment(content.at),
        b"" if content.actor is None else content.actor.bytes,
        content.action.encode(),
        _optional(content.subject_type),
        join(*(subject.bytes for subject in content.subjects)),
        join(*(name.encode() for name in content.fields)),
        content.outcome.encode(),
        json.dumps(content.details, sort_keys=True, separators=(",", ":")).encode(),
        _optional(content.purpose),
        _optional(content.request_id),
    )


def first_key(audit_key: bytes, tenant: UUID) -> bytes:
    return derive(audit_key, b"coffer.audit.v1", tenant.bytes)


def next_key(key: bytes) -> bytes:
    return hmac.digest(key, b"coffer.audit.next.v1", hashlib.sha256)


def key_after(key: bytes, days: int) -> bytes:
    """The key that many days later, idle ones included."""
    for _ in range(days):
        key = next_key(key)
    return key


def link_mac(key: bytes, tenant: UUID, seq: int, day: date, before: bytes, entry: bytes) -> bytes:
    """32 bytes; `before` is the mac of the link before."""
    number, of_day = seq.to_bytes(8, "big"), (day - _FIRST_DAY).days.to_bytes(4, "big", signed=True)
    linked = join(b"coffer.audit.link.v1", tenant.bytes, number, of_day, before, entry)
    return hmac.digest(key, linked, hashlib.sha256)


def statement(tenant: UUID, seq: int, mac: bytes, at: datetime) -> bytes:
    """What a checkpoint signs."""
    return join(b"coffer.audit.checkpoint.v1", tenant.bytes, seq.to_bytes(8, "big"), mac, _moment(at))


def is_signed(public_key: bytes, signature: bytes, signed: bytes) -> bool:
    """Whether the 64 bytes are the signature of `signed` under the 32 bytes of an Ed25519 public key."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, signed)
    except InvalidSignature:
        return False
    return True


def _moment(at: datetime) -> bytes:
    return ((at - _EPOCH) // timedelta(microseconds=1)).to_bytes(8, "big", signed=True)


def _optional(text: str | None) -> bytes:
    return b"" if text is None else join(text.encode())
