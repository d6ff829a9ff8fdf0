"""Keys that a provider signs by, made here so that tests can forge what a provider would never sign."""

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

_MAKE: dict[str, Callable[[], Any]] = {
    "RS256": lambda: rsa.generate_private_key(65537, 2048),
    "PS256": lambda: rsa.generate_private_key(65537, 2048),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
}


@dataclass(frozen=True)
class SigningKey:
    algorithm: str
    key: Any
    id: str

    @property
    def private_jwk(self) -> dict[str, Any]:
        return self._jwk(self.key)

    @property
    def public_jwk(self) -> dict[str, Any]:
        return self._jwk(self.key.public_key())

    @property
    def public_pem(self) -> bytes:
        encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        pem: bytes = self.key.public_key().public_bytes(encoding, form)
        return pem

    def sign(self, body: bytes) -> bytes:
        algorithm = jwt.get_algorithm_by_name(self.algorithm)
        signature: bytes = algorithm.sign(body, self.key)
        return signature

    def _jwk(self, key: Any) -> dict[str, Any]:
        found = jwt.get_algorithm_by_name(self.algorithm).to_jwk(key, as_dict=True)
        found = {name: value for name, value in found.items() if name != "key_ops"}
        return {**found, "kid": self.id, "use": "sig", "alg": self.algorithm}


def signing_key(algorithm: str, id: str) -> SigningKey:
    return SigningKey(algorithm, _MAKE[algorithm](), id)


def text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
