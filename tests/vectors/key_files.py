"""A second reader of key files, written from the docstring of `jobs.key_files` alone; it must not import ours."""

import base64
import hashlib
import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tests.vectors import buckets


def read(content: bytes, public_keys: dict[int, bytes]) -> dict[str, Any]:
    """The statement. Raises `InvalidSignature`, and `ValueError` for buckets that are not as it says."""
    statement, said, rest = content.split(b"\n", 2)
    signature = json.loads(said)
    parsed: dict[str, Any] = json.loads(statement)
    signed = buckets.joined(b"coffer.keys.v1", UUID(parsed["tenant"]).bytes, hashlib.sha256(statement).digest())
    key = Ed25519PublicKey.from_public_bytes(public_keys[signature["keyVersion"]])
    key.verify(base64.b64decode(signature["signature"]), signed)
    if json.dumps(parsed, sort_keys=True, separators=(",", ":")).encode() != statement:
        raise ValueError("statement")
    for bucket in parsed["buckets"]:
        sealed = rest[bucket["offset"] : bucket["offset"] + bucket["length"]]
        if hashlib.sha256(sealed).hexdigest() != bucket["sha256"]:
            raise ValueError("bucket")
    if len(parsed["buckets"]) != 256 or len(rest) != sum(bucket["length"] for bucket in parsed["buckets"]):
        raise ValueError("buckets")
    return parsed


def secrets(content: bytes, parsed: dict[str, Any], file_key: bytes) -> dict[UUID, bytes]:
    rest = content.split(b"\n", 2)[2]
    tenant, opening = UUID(parsed["tenant"]), bytes.fromhex(parsed["fileKey"]["opening"])
    found: dict[UUID, bytes] = {}
    for number, each in enumerate(parsed["buckets"]):
        sealed = rest[each["offset"] : each["offset"] + each["length"]]
        found |= buckets.opened(file_key, tenant, parsed["generation"], opening, number, sealed)
    return found


def head(parsed: dict[str, Any]) -> bytes:
    """Of the ledger, as `tenants.erasures` says; 32 zero bytes before the first row."""
    before = bytes(32)
    for row in parsed["ledger"]["erased"]:
        at = datetime.fromisoformat(row["at"]) - datetime(1970, 1, 1, tzinfo=UTC)
        moment = (at.days * 86_400_000_000 + at.seconds * 1_000_000 + at.microseconds).to_bytes(8, "big", signed=True)
        parts = (before, row["number"].to_bytes(8, "big"), UUID(row["subject"]).bytes, moment)
        before = hashlib.sha256(buckets.joined(*parts)).digest()
    return before
