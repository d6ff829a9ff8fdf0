"""Access tokens: JWTs (RFC 9068) signed by Transit with Ed25519, and the public halves as a JWK set (RFC 7517)."""

import base64
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any
from uuid import UUID

import jwt
import orjson

from api import jose
from api.jose import BadToken
from crypto.transit import TransitKeys
from tenants.errors import Unauthenticated
from tenants.ids import new_id
from tenants.viewers import Credential, MemberId, SessionId, TenantId

_AUDIENCE = "coffer"
_TYPE = "at+jwt"
_HEADER = {"alg", "typ", "kid"}
_LONGEST = 4096
_SKEW = 5  # seconds between processes of one house
_KNOWN_TOKENS = 10_000
_CLAIMS = ["iss", "aud", "sub", "tid", "iat", "exp", "jti"]


class AccessTokens:
    """Issues and verifies. Only EdDSA under the keys of one Transit key is ever accepted, whatever a header says."""

    lifetime = 900

    def __init__(
        self, keys: TransitKeys, key: str, issuer: str, clock: Callable[[], float] = time.time, patience: float = 30.0
    ) -> None:
        """`patience`: seconds between two looks for a new public key, so that made-up key ids cost nothing."""
        self._keys = keys
        self._key = key
        self._issuer = issuer
        self._clock = clock
        self._patience = patience
        self._public: dict[int, bytes] = {}
        self._looked = float("-inf")
        self._known: OrderedDict[bytes, tuple[float, Credential]] = OrderedDict()

    async def issue(self, credential: Credential) -> str:
        """Raises `KeyUnavailable`."""
        version = max(await self._versions())
        body = self._body(credential, version)
        signed_by, signature = await self._keys.sign(self._key, body)
        if signed_by != version:  # rotated meanwhile: the header must name the key that signs
            self._public = {}
            body = self._body(credential, signed_by)
            _, signature = await self._keys.sign(self._key, body)
        return (body + b"." + _base64(signature)).decode()

    async def verify(self, token: str) -> Credential:
        """Raises `Unauthenticated`."""
        digest = hashlib.sha256(token.encode(errors="surrogatepass")).digest()
        known = self._known.get(digest)
        if known is not None and known[0] > self._clock():
            return known[1]
        claims = await self._claims(token)
        credential = _credential(claims)
        self._known[digest] = (float(claims["exp"]), credential)
        while len(self._known) > _KNOWN_TOKENS:
            self._known.popitem(last=False)
        return credential

    async def jwks(self) -> dict[str, Any]:
        public = await self._versions()
        return {"keys": [_jwk(f"{self._key}-{version}", raw) for version, raw in sorted(public.items())]}

    async def _claims(self, token: str) -> dict[str, Any]:
        """Read strictly first; PyJWT, which takes more than we do, is the second lock."""
        try:
            header = jose.read(token, _LONGEST).header
            if header.keys() != _HEADER or header["typ"] != _TYPE or header["alg"] != "EdDSA":
                raise Unauthenticated
            claims: dict[str, Any] = jwt.decode(
                token,
                await self._verifier(header.get("kid")),
                algorithms=["EdDSA"],
                audience=_AUDIENCE,
                issuer=self._issuer,
                options={"require": _CLAIMS, "verify_exp": False, "verify_iat": False, "strict_aud": True},
            )
            jose.check_times(claims, self._clock(), longest=self.lifetime, skew=_SKEW)
        except (BadToken, jwt.PyJWTError, ValueError, TypeError) as error:
            raise Unauthenticated from error
        return claims

    async def _verifier(self, key_id: Any) -> Any:
        name, _, version = str(key_id).rpartition("-")
        if name != self._key or not version.isascii() or not version.isdecimal() or len(version) > 9:
            raise Unauthenticated
        raw = (await self._versions(int(version))).get(int(version))
        if raw is None:
            raise Unauthenticated
        return jwt.PyJWK(_jwk(str(key_id), raw))

    async def _versions(self, wanted: int | None = None) -> dict[int, bytes]:
        missing = not self._public or (wanted is not None and wanted not in self._public)
        if missing and (not self._public or self._clock() - self._looked > self._patience):
            self._looked = self._clock()
            self._public = await self._keys.public_keys(self._key)
        return self._public

    def _body(self, credential: Credential, version: int) -> bytes:
        header = {"alg": "EdDSA", "typ": _TYPE, "kid": f"{self._key}-{version}"}
        now = int(self._clock())
        claims = {
            "iss": self._issuer,
            "aud": _AUDIENCE,
            "sub": str(credential.principal),
            "tid": str(credential.tenant),
            "iat": now,
            "exp": now + self.lifetime,
            "jti": str(new_id()),
        }
        if credential.session is not None:
            claims["sid"] = str(credential.session)
        return _base64(orjson.dumps(header)) + b"." + _base64(orjson.dumps(claims))


def _credential(claims: dict[str, Any]) -> Credential:
    try:
        session = SessionId(UUID(claims["sid"])) if "sid" in claims else None
        return Credential(TenantId(UUID(claims["tid"])), MemberId(UUID(claims["sub"])), session)
    except (ValueError, AttributeError, TypeError):
        raise Unauthenticated from None


def _jwk(key_id: str, raw: bytes) -> dict[str, str]:
    """RFC 8037, 2."""
    return {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": key_id, "x": _base64(raw).decode()}


def _base64(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")
