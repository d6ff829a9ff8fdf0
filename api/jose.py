"""Signed tokens (RFC 7515, 7519) read strictly, and their signatures: what JWT libraries let pass is refused here.

RFC 8725 says what to look for. Nothing is believed before its signature fits; nothing of a token names its own key.
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import jwt

LONGEST = 16_384
SKEW = 30  # seconds by which another house's clock may be ahead of ours
_SEGMENTS = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
# Keys that a token brings along, extensions that must be understood, compression, tokens inside tokens.
_REFUSED_HEADERS = frozenset({"crit", "jku", "jwk", "x5u", "x5c", "b64", "zip", "enc", "cty"})
# What a kind of key signs by is ours to say: else a public key would pass for an HMAC's secret.
_ALGORITHMS: Mapping[tuple[Any, Any], frozenset[str]] = {
    ("RSA", None): frozenset({"RS256", "PS256"}),
    ("EC", "P-256"): frozenset({"ES256"}),
    ("OKP", "Ed25519"): frozenset({"EdDSA"}),
}
_RSA_BITS, _EXPONENT_BITS = range(2048, 8193), range(2, 34)  # greater ones take long to verify by


class BadToken(Exception):
    """`args` holds a code of ours, never a part of the token."""


@dataclass(frozen=True, slots=True)
class Token:
    header: Mapping[str, Any]
    claims: Mapping[str, Any] = field(repr=False)
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)


def read(token: str, longest: int = LONGEST) -> Token:
    """Raises `BadToken`. The signature has not been looked at yet."""
    if len(token) > longest:
        raise BadToken("too-long")
    found = _SEGMENTS.fullmatch(token)
    if found is None:
        raise BadToken("not-compact")
    header, claims = load(decode(found[1])), load(decode(found[2]))
    if _REFUSED_HEADERS & header.keys():
        raise BadToken("header-refused")
    return Token(header, claims, token.rpartition(".")[0].encode(), decode(found[3]))


def load(raw: bytes) -> dict[str, Any]:
    """A JSON object of which no name comes twice, at any depth: readers differ in which one they take."""
    try:
        value = json.loads(raw.decode(), object_pairs_hook=_once, parse_constant=_refuse_constant)
        json.dumps(value, ensure_ascii=False).encode()  # a lone surrogate is no text
    except (ValueError, RecursionError):
        raise BadToken("not-json") from None
    if not isinstance(value, dict):
        raise BadToken("not-json")
    return value


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name comes twice")
    return found


def _refuse_constant(_name: str) -> NoReturn:
    raise ValueError("no JSON number")


def decode(segment: str) -> bytes:
    """One text for each value: spare bits and padding would give a token many spellings."""
    try:
        raw = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except (binascii.Error, ValueError):
        raise BadToken("not-base64") from None
    if base64.urlsafe_b64encode(raw).rstrip(b"=") != segment.encode():
        raise BadToken("not-base64")
    return raw


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A public key of a JWK set, and what it may have signed by."""

    id: str | None
    algorithms: frozenset[str]
    jwk: Mapping[str, Any] = field(repr=False)

    def fits(self, token: Token) -> bool:
        """Whether it signed the token."""
        algorithm = token.header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in self.algorithms:
            return False
        try:
            key = jwt.PyJWK(dict(self.jwk), algorithm)
            return bool(key.Algorithm.verify(token.signed, key.key, token.signature))
        except (jwt.PyJWTError, ValueError, TypeError):
            return False


def verifying_key(jwk: Any) -> VerifyingKey | None:
    """None for what is no public signature key that we take (RFC 7517, 7518): sets hold others beside them."""
    if not isinstance(jwk, dict) or not all(isinstance(value, str | list | bool) for value in jwk.values()):
        return None
    kind = (jwk.get("kty"), None if jwk.get("kty") == "RSA" else jwk.get("crv"))
    algorithms = _ALGORITHMS.get(kind, frozenset()) if _are_texts(kind) else frozenset()
    if "alg" in jwk:
        algorithms = algorithms & {str(jwk["alg"])}
    is_to_verify = jwk.get("use", "sig") == "sig" and "verify" in jwk.get("key_ops", ["verify"])
    if not algorithms or not is_to_verify or "d" in jwk or not _is_sound(jwk):
        return None
    key_id = jwk.get("kid")
    return VerifyingKey(key_id if isinstance(key_id, str) else None, algorithms, jwk)


def _are_texts(kind: tuple[Any, Any]) -> bool:
    return isinstance(kind[0], str) and (kind[1] is None or isinstance(kind[1], str))


def _is_sound(jwk: dict[str, Any]) -> bool:
    if jwk["kty"] != "RSA":
        return True
    return _number(jwk, "n").bit_length() in _RSA_BITS and _number(jwk, "e").bit_length() in _EXPONENT_BITS


def _number(jwk: dict[str, Any], name: str) -> int:
    try:
        return int.from_bytes(base64.urlsafe_b64decode(str(jwk.get(name, "")) + "=="))
    except (binascii.Error, ValueError):
        return 0


def check_times(claims: Mapping[str, Any], now: float, *, longest: float, skew: float = SKEW) -> None:
    """`exp` and `iat` are there, and with `nbf` whole numbers that make sense. Raises `BadToken`.

    `longest`: seconds from the one to the other.
    """
    issued, expires, begins = claims.get("iat"), claims.get("exp"), claims.get("nbf", 0)
    if not type(issued) is type(expires) is type(begins) is int:  # a bool is an int to isinstance
        raise BadToken("times")
    if not (0 < issued <= now + skew and begins <= now + skew and now < expires <= issued + longest):
        raise BadToken("times")


def is_for(claims: Mapping[str, Any], audience: str) -> bool:
    """That audience and no other, as a text or a list of it alone: who takes a token of two can use it at the other."""
    return claims.get("aud") in (audience, [audience])
