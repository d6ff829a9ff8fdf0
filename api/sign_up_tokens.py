"""The tokens of sign-ups: JWTs that say which tenant is wanted and who is to own it; a mail alone brings them.

Signed as access tokens are, and of a type of their own, so that neither passes for the other.
"""

import base64
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

import orjson

from api import jose
from api.jose import BadToken, VerifyingKey
from crypto.transit import TransitKeys
from tenants.errors import TokenRefused
from tenants.signing_in.sign_up import SignUp
from tenants.viewers import TenantId

LIFETIME = 24 * 3600  # seconds
_TYPE, _AUDIENCE = "sign-up+jwt", "coffer-sign-up"
_LONGEST = 8192
_PATIENCE = 30.0  # seconds between two looks for a new public key, so that made-up key ids cost nothing
_TEXTS = ("slug", "name", "email", "region", "language")


class SignUpTokens:
    def __init__(self, keys: TransitKeys, key: str, issuer: str, clock: Callable[[], float] = time.time) -> None:
        self._keys, self._key, self._issuer, self._clock = keys, key, issuer, clock
        self._public: dict[int, bytes] = {}
        self._looked = float("-inf")

    async def issue(self, wanted: SignUp) -> str:
        """Raises `KeyUnavailable`."""
        version = max(await self._versions(None))
        body = self._body(wanted, version)
        signed_by, signature = await self._keys.sign(self._key, body)
        if signed_by != version:  # rotated meanwhile: the header must name the key that signs
            body = self._body(wanted, signed_by)
            _, signature = await self._keys.sign(self._key, body)
        return (body + b"." + _base64(signature)).decode()

    async def read(self, text: str) -> SignUp:
        """Raises `TokenRefused`, without saying why."""
        try:
            token = jose.read(text, _LONGEST)
            claims = token.claims
            if token.header.get("typ") != _TYPE or not (await self._key_of(token.header)).fits(token):
                raise BadToken("signature")
            if claims.get("iss") != self._issuer or not jose.is_for(claims, _AUDIENCE):
                raise BadToken("audience")
            jose.check_times(claims, self._clock(), longest=LIFETIME)
            return SignUp(TenantId(UUID(claims["tid"])), **{name: str(claims[name]) for name in _TEXTS})
        except (BadToken, KeyError, ValueError, AttributeError, TypeError):
            raise TokenRefused from None

    async def _key_of(self, header: Any) -> VerifyingKey:
        name, _, version = str(header.get("kid")).rpartition("-")
        if name != self._key or not (version.isascii() and version.isdecimal() and len(version) < 10):
            raise BadToken("key")
        raw = (await self._versions(int(version))).get(int(version))
        jwk = {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "x": _base64(raw or b"").decode()}
        found = jose.verifying_key(jwk) if raw else None
        if found is None:
            raise BadToken("key")
        return found

    async def _versions(self, wanted: int | None) -> dict[int, bytes]:
        is_due = wanted not in self._public and self._clock() - self._looked > _PATIENCE
        if not self._public or is_due:
            self._public = await self._keys.public_keys(self._key)
            self._looked = self._clock()
        return self._public

    def _body(self, wanted: SignUp, version: int) -> bytes:
        now = int(self._clock())
        header = {"alg": "EdDSA", "typ": _TYPE, "kid": f"{self._key}-{version}"}
        claims = {
            "iss": self._issuer,
            "aud": _AUDIENCE,
            "iat": now,
            "exp": now + LIFETIME,
            "tid": str(wanted.tenant),
            **{name: getattr(wanted, name) for name in _TEXTS},
        }
        return _base64(orjson.dumps(header)) + b"." + _base64(orjson.dumps(claims))


def _base64(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")
