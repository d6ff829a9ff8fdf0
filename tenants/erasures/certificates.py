"""Certificates: signed statements of what was destroyed, that anybody with the public key can check.

``Ed25519(join("coffer.certificate.v1", tenant 16, JSON))`` by the Transit key `SIGNER`, the JSON canonical as of RFC
8785: keys sorted, no spaces, ASCII, whole numbers.
"""

from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson

from crypto.chain import is_signed
from crypto.encoding import join
from crypto.transit import TransitKeys

FORMAT = "coffer.certificate.v1"
SIGNER = "coffer-audit"


@dataclass(frozen=True, slots=True)
class Signed:
    """`said` is what was signed; `signature` is base64 of 64 bytes, by that version of the key."""

    said: Mapping[str, Any]
    key_version: int
    signature: str


def message(tenant: UUID, said: Mapping[str, Any]) -> bytes:
    """Raises ValueError beyond ASCII, which has more than one canonical form here."""
    raw = orjson.dumps(said, option=orjson.OPT_SORT_KEYS)
    if not raw.isascii():
        raise ValueError("a certificate holds ASCII and whole numbers")
    return join(FORMAT.encode(), tenant.bytes, raw)


def canonical(said: Mapping[str, Any]) -> str:
    return orjson.dumps(said, option=orjson.OPT_SORT_KEYS).decode()


async def sign(keys: TransitKeys, tenant: UUID, said: Mapping[str, Any]) -> Signed:
    """Raises `KeyUnavailable`."""
    version, signature = await keys.sign(SIGNER, message(tenant, said))
    return Signed(said, version, b64encode(signature).decode())


def fits(public_keys: Mapping[int, bytes], tenant: UUID, signed: Signed) -> bool:
    """Whether one of these keys signed it, as the version says."""
    public = public_keys.get(signed.key_version)
    return public is not None and is_signed(public, b64decode(signed.signature), message(tenant, signed.said))


def moment(at: datetime) -> str:
    """RFC 3339 in UTC, to the microsecond."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
