"""Standard Webhooks 1.0.0 (github.com/standard-webhooks/standard-webhooks): secrets, and signatures over a message.

What is signed is ``id.timestamp.body``: the message's id, seconds since 1970 in decimal, and the body's bytes. A header
``webhook-signature`` holds one signature or several, a space between them: ``v1,`` and the base64 of HMAC-SHA256,
``v1a,`` and the base64 of Ed25519. Nobody who reads an id can move a full stop: ids here hold none.
"""

import base64
import binascii
import hmac
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SECRET_BYTES = 32
LEAST_SECRET, MOST_SECRET = 24, 64  # bytes, by the standard
_SEED_BYTES = 32
_SYMMETRIC, _PRIVATE, _PUBLIC = "whsec_", "whsk_", "whpk_"


@dataclass(frozen=True, slots=True)
class SigningSecret:
    """Of one receiver: `shared` is known to both sides, `seed` (Ed25519, 32 B) to us alone."""

    shared: bytes = field(repr=False)
    seed: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not LEAST_SECRET <= len(self.shared) <= MOST_SECRET or len(self.seed) != _SEED_BYTES:
            raise ValueError("a secret has 24 to 64 bytes, a seed 32")

    @classmethod
    def fresh(cls) -> Self:
        return cls(os.urandom(SECRET_BYTES), os.urandom(_SEED_BYTES))

    @classmethod
    def load(cls, secret: str, private: str) -> Self:
        """From ``whsec_…`` and ``whsk_…``. Raises `ValueError` for anything else."""
        return cls(_bytes(_SYMMETRIC, secret), _bytes(_PRIVATE, private))

    @property
    def secret(self) -> str:
        """``whsec_`` and base64: what the receiver is given."""
        return _SYMMETRIC + _base64(self.shared)

    @property
    def private_key(self) -> str:
        return _PRIVATE + _base64(self.seed)

    @property
    def public_key(self) -> str:
        """``whpk_`` and base64; anybody may know it."""
        return _PUBLIC + _base64(self._signer().public_key().public_bytes_raw())

    def signatures(self, content: bytes) -> tuple[str, str]:
        mac = hmac.digest(self.shared, content, "sha256")
        return f"v1,{_base64(mac)}", f"v1a,{_base64(self._signer().sign(content))}"

    def _signer(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.seed)


def headers(message: str, at: int, body: bytes, secrets: Iterable[SigningSecret]) -> dict[str, str]:
    """The three headers of a message that is sent `at` that second, signed by each secret."""
    if "." in message:
        raise ValueError("an id with a full stop can be read in two ways")
    content = signed_content(message, at, body)
    signatures = [signature for secret in secrets for signature in secret.signatures(content)]
    return {"webhook-id": message, "webhook-timestamp": str(at), "webhook-signature": " ".join(signatures)}


def signed_content(message: str, at: int, body: bytes) -> bytes:
    return f"{message}.{at}.".encode() + body


def is_signed_by(public_key: str, signature: str, content: bytes) -> bool:
    """Whether one signature, ``v1a,…``, is of the holder of ``whpk_…``; False for whatever is malformed."""
    version, _, encoded = signature.partition(",")
    try:
        key = Ed25519PublicKey.from_public_bytes(_bytes(_PUBLIC, public_key))
        key.verify(base64.b64decode(encoded, validate=True), content)
    except (ValueError, InvalidSignature):
        return False
    return version == "v1a"


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _bytes(prefix: str, text: str) -> bytes:
    try:
        return base64.b64decode(text.removeprefix(prefix), validate=True) if text.startswith(prefix) else _refuse()
    except binascii.Error:
        return _refuse()


def _refuse() -> bytes:
    raise ValueError("not a key of this kind")
