"""The signed statement of a key file: every wrapped key, the ledger of erasures, and where each bucket is."""

import hashlib
import re
from base64 import b64decode, b64encode
from binascii import Error
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any
from uuid import UUID

import orjson

from crypto import chain
from crypto.buckets import BUCKETS, OPENING_BYTES, PAIR_BYTES
from crypto.encoding import join
from crypto.errors import KeyRefused
from crypto.keys import CHECK_VALUE_BYTES, KeyState, Purpose, WrappedKey
from crypto.transit import wrapped_version
from crypto.values import TAG_BYTES
from jobs.backups.manifests import Sign
from jobs.backups.threads import in_thread
from jobs.key_files.errors import KeyFileRefused, Refusal
from tenants.backups import LiveBackup
from tenants.erasures import NO_HEAD, Erased, head_after

FORMAT = "coffer.keys.v1"
SIGNER = "coffer-backup"  # the Transit key
_MOST = 1 << 53
_END = re.compile(rb'"tenant":"(?P<tenant>[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})"}')
END_BYTES = 48  # of a statement, which tell its tenant


@dataclass(frozen=True, slots=True)
class FileKey:
    """Seals the buckets; `opening` is that of `crypto.buckets`."""

    id: UUID
    wrapped: str
    opening: bytes


@dataclass(frozen=True, slots=True)
class Bucket:
    """A sealed bucket's bytes and their SHA-256; `offset` is from the end of the signature's line."""

    offset: int
    length: int
    sha256: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """`previous` is the 32 bytes of the identity that was current before. The data keys open only, whatever they do."""

    tenant: UUID
    generation: int
    created: datetime
    previous: bytes | None
    file_key: FileKey
    backups: Sequence[LiveBackup]
    data_keys: Sequence[WrappedKey]
    ledger: Sequence[Erased]
    buckets: Sequence[Bucket]

    @property
    def bucket_bytes(self) -> int:
        return sum(bucket.length for bucket in self.buckets)

    @property
    def kek_versions(self) -> set[int]:
        """Of the key store's key that wrapped what is in it."""
        texts = [self.file_key.wrapped, *(each.wrapped_key for each in self.backups)]
        return {wrapped_version(text) for text in [*texts, *(key.wrapped for key in self.data_keys)]}

    @property
    def dek_versions(self) -> set[int]:
        return {key.version for key in self.data_keys if key.purpose is Purpose.DEK}

    async def signed(self, sign: Sign) -> "Signed":
        """`sign` answers with the version of its key and 64 bytes, as `TransitKeys.sign` does."""
        raw, sha256 = await in_thread(self._drawn_up)
        version, signature = await sign(_signed_bytes(self.tenant, sha256))
        said = _canonical({"keyVersion": version, "signature": b64encode(signature).decode()})
        return Signed(self, raw + b"\n" + said + b"\n", sha256)

    def _drawn_up(self) -> tuple[bytes, bytes]:
        raw = _canonical(self._said())
        return raw, hashlib.sha256(raw).digest()

    def _said(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "tenant": str(self.tenant),
            "generation": self.generation,
            "created": _moment(self.created),
            "previous": None if self.previous is None else self.previous.hex(),
            "fileKey": {
                "id": str(self.file_key.id),
                "wrapped": self.file_key.wrapped,
                "opening": self.file_key.opening.hex(),
            },
            "backups": [
                {
                    "backup": str(each.id),
                    "number": each.number,
                    "wrapped": each.wrapped_key,
                    "dataKeys": sorted(each.dek_versions),
                }
                for each in self.backups
            ],
            "dataKeys": [
                {
                    "id": str(key.id),
                    "purpose": key.purpose.value,
                    "version": key.version,
                    "wrapped": key.wrapped,
                    "checkValue": key.check_value.hex(),
                }
                for key in self.data_keys
            ],
            "ledger": {
                "head": self.ledger[-1].head.hex() if self.ledger else None,
                "erased": [
                    {"number": row.number, "subject": str(row.subject), "at": _moment(row.at)} for row in self.ledger
                ],
            },
            "buckets": [
                {"offset": bucket.offset, "length": bucket.length, "sha256": bucket.sha256.hex()}
                for bucket in self.buckets
            ],
        }


@dataclass(frozen=True, slots=True)
class Signed:
    """A statement, both lines of it as they lie on a store, and its identity: SHA-256 of the first, 32 bytes."""

    statement: Statement
    lines: bytes
    sha256: bytes


def in_order(lengths_and_hashes: Sequence[tuple[int, bytes]]) -> tuple[Bucket, ...]:
    """One behind the other."""
    offsets = accumulate((length for length, _ in lengths_and_hashes), initial=0)
    return tuple(Bucket(offset, *each) for offset, each in zip(offsets, lengths_and_hashes, strict=False))


def require_signed(sha256: bytes, end: bytes, line: bytes, public_keys: Mapping[int, bytes], tenant: UUID) -> None:
    """Raises `KeyFileRefused`, which says why, unless `line` signs the tenant's statement of that hash and end.

    `end` are its last `END_BYTES`; `public_keys` are 32 bytes each, by version, as `TransitKeys.public_keys` gives.
    """
    version, signature = _signature(line)
    said = _END.fullmatch(end)
    if said is None:
        raise KeyFileRefused(Refusal.TRUNCATED)
    key, whose = public_keys.get(version), UUID(said["tenant"].decode())
    if key is None:
        raise KeyFileRefused(Refusal.UNKNOWN_KEY)
    if not chain.is_signed(key, signature, _signed_bytes(whose, sha256)):
        raise KeyFileRefused(Refusal.EDITED)
    if whose != tenant:
        raise KeyFileRefused(Refusal.FOREIGN)


def _signature(line: bytes) -> tuple[int, bytes]:
    try:
        said = orjson.loads(line)
        return int(said["keyVersion"]), b64decode(said["signature"], validate=True)
    except (ValueError, LookupError, TypeError, Error):
        raise KeyFileRefused(Refusal.UNSIGNED) from None


def read(raw: bytes) -> Statement:
    """One that is signed and could be; another is refused as EDITED, and what is not even JSON as TRUNCATED."""
    try:
        said = orjson.loads(raw)
    except ValueError:
        raise KeyFileRefused(Refusal.TRUNCATED) from None
    try:
        statement = _of(said)
        if not _is_sound(statement) or _canonical(statement._said()) != raw:
            raise ValueError
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, KeyRefused):
        raise KeyFileRefused(Refusal.EDITED) from None
    return statement


def _of(said: dict[str, Any]) -> Statement:
    tenant, key = UUID(said["tenant"]), said["fileKey"]
    return Statement(
        tenant=tenant,
        generation=said["generation"],
        created=datetime.fromisoformat(said["created"]),
        previous=None if said["previous"] is None else bytes.fromhex(said["previous"]),
        file_key=FileKey(UUID(key["id"]), key["wrapped"], bytes.fromhex(key["opening"])),
        backups=tuple(
            LiveBackup(UUID(each["backup"]), each["number"], each["wrapped"], tuple(each["dataKeys"]))
            for each in said["backups"]
        ),
        data_keys=tuple(_data_key(tenant, each) for each in said["dataKeys"]),
        ledger=tuple(_erased(said["ledger"]["erased"])),
        buckets=in_order([(each["length"], bytes.fromhex(each["sha256"])) for each in said["buckets"]]),
    )


def _data_key(tenant: UUID, said: dict[str, Any]) -> WrappedKey:
    check_value = bytes.fromhex(said["checkValue"])
    if len(check_value) != CHECK_VALUE_BYTES:
        raise ValueError
    purpose, version = Purpose(said["purpose"]), said["version"]
    return WrappedKey(tenant, UUID(said["id"]), purpose, version, said["wrapped"], check_value, KeyState.DECRYPT_ONLY)


def _erased(said: Sequence[dict[str, Any]]) -> list[Erased]:
    """With the heads that follow from the rows; the last one stands in the statement."""
    rows: list[Erased] = []
    head = NO_HEAD
    for place, each in enumerate(said, 1):
        subject, at = UUID(each["subject"]), datetime.fromisoformat(each["at"])
        head = head_after(head, place, subject, at)
        rows.append(Erased(place, subject, at, head))
    return rows


def _is_sound(statement: Statement) -> bool:
    """Whether its numbers can be those of a key file, so that no arithmetic on them goes wrong later."""
    backups, buckets = statement.backups, statement.buckets
    numbers = [statement.generation, *(each.number for each in backups), *(key.version for key in statement.data_keys)]
    numbers += [version for each in backups for version in each.dek_versions]
    return (
        all(type(each) is int and 0 < each < _MOST for each in numbers)
        and len(buckets) == BUCKETS
        and all(type(each.length) is int and TAG_BYTES <= each.length < _MOST for each in buckets)
        and all((each.length - TAG_BYTES) % PAIR_BYTES == 0 and len(each.sha256) == 32 for each in buckets)
        and (statement.previous is None or len(statement.previous) == 32)
        and len(statement.file_key.opening) == OPENING_BYTES
        and bool(statement.kek_versions)
    )


def _signed_bytes(tenant: UUID, sha256: bytes) -> bytes:
    return join(FORMAT.encode(), tenant.bytes, sha256)


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def _canonical(said: Mapping[str, Any]) -> bytes:
    raw = orjson.dumps(said, option=orjson.OPT_SORT_KEYS)
    if not raw.isascii():
        raise ValueError("a key file's text is ASCII")
    return raw
