"""What a provider's tokens must say before their word is taken: ID tokens of people, access tokens of services.

OpenID Connect Core 1.0, section 3.1.3.7, and RFC 9068; each check is one that an attack needs to be missing.
"""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from api import jose
from api.jose import BadToken, Token
from tenants.signing_in.sign_on import SignOnProvider
from tenants.signing_in.vouching import Vouched

_DAY = 86_400
_NEW = 600  # seconds: an ID token comes straight from the provider
_SUBJECT = range(1, 256)  # OIDC Core, section 2
_MOST_VALUES, _LONGEST = 500, 255
_HASHES = {"RS256": hashlib.sha256, "PS256": hashlib.sha256, "ES256": hashlib.sha256, "EdDSA": hashlib.sha512}
_OF_ID_TOKENS = ("nonce", "at_hash", "c_hash", "s_hash")


@dataclass(frozen=True, slots=True)
class Expected:
    """What the sign-in that an ID token answers began with. `proved_since`: a proof older than that won't do."""

    nonce: str = field(repr=False)
    access_token: str | None = field(repr=False)
    proved_since: datetime | None


def person(token: Token, provider: SignOnProvider, expected: Expected, now: float) -> Vouched:
    """Of an ID token whose signature fits. Raises `BadToken`."""
    claims = token.claims
    if _type(token) not in ("", "jwt"):
        raise BadToken("typ")
    _check_issuer(claims, provider)
    if not jose.is_for(claims, provider.client_id) or claims.get("azp", provider.client_id) != provider.client_id:
        raise BadToken("aud")
    jose.check_times(claims, now, longest=_DAY)
    if claims["iat"] < now - _NEW:
        raise BadToken("iat")
    if not _same(claims.get("nonce"), expected.nonce):
        raise BadToken("nonce")
    _check_access_token(token, expected.access_token)
    proved_at = _proved_at(claims, now)
    if expected.proved_since is not None and (proved_at is None or proved_at < expected.proved_since):
        raise BadToken("auth_time")
    return _vouched(claims, provider, proved_at=proved_at)


def service(token: Token, provider: SignOnProvider, now: float) -> Vouched:
    """Of an access token whose signature fits. Raises `BadToken`; an ID token is none, whatever its type says."""
    claims = token.claims
    types = ("at+jwt", "application/at+jwt") if provider.access_tokens == "AT_JWT" else ("", "jwt", "at+jwt")
    if _type(token) not in types or any(name in claims for name in _OF_ID_TOKENS):
        raise BadToken("typ")
    _check_issuer(claims, provider)
    if provider.audience is None or not jose.is_for(claims, provider.audience):
        raise BadToken("aud")
    jose.check_times(claims, now, longest=_DAY)
    return _vouched(claims, provider, is_service=True)


def _type(token: Token) -> str:
    """Of letters in either case (RFC 7515, section 4.1.9)."""
    found = token.header.get("typ", "")
    if not isinstance(found, str):
        raise BadToken("typ")
    return found.lower()


def _check_issuer(claims: Mapping[str, Any], provider: SignOnProvider) -> None:
    if claims.get("iss") != provider.issuer:
        raise BadToken("iss")


def _check_access_token(token: Token, access_token: str | None) -> None:
    """Section 3.1.3.6: the left half of its hash, where the provider gave one."""
    told = token.claims.get("at_hash")
    if told is None:
        return
    make = _HASHES.get(str(token.header.get("alg")))
    if make is None or access_token is None:
        raise BadToken("at_hash")
    digest = make(access_token.encode(errors="surrogatepass")).digest()
    if not _same(told, base64.urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=").decode()):
        raise BadToken("at_hash")


def _same(told: Any, expected: str) -> bool:
    return isinstance(told, str) and hmac.compare_digest(told.encode(), expected.encode())


def _proved_at(claims: Mapping[str, Any], now: float) -> datetime | None:
    told = claims.get("auth_time")
    if told is None:
        return None
    if type(told) is not int or not 0 <= told <= now + jose.SKEW:
        raise BadToken("auth_time")
    return datetime.fromtimestamp(told, UTC)


def _vouched(
    claims: Mapping[str, Any],
    provider: SignOnProvider,
    *,
    proved_at: datetime | None = None,
    is_service: bool = False,
) -> Vouched:
    subject = claims.get("sub")
    if not isinstance(subject, str) or len(subject) not in _SUBJECT or not subject.isprintable():
        raise BadToken("sub")
    return Vouched(
        provider.issuer,
        subject,
        claimed=_claimed(claims, provider.role_claim),
        email=_text(claims.get("email")) if claims.get("email_verified") is True else None,
        name=_text(claims.get("name")),
        proved_at=proved_at,
        issued_at=datetime.fromtimestamp(claims["iat"], UTC),
        is_service=is_service,
    )


def _claimed(claims: Mapping[str, Any], name: str | None) -> frozenset[str]:
    """A text, or a list of texts; dots lead into objects where no claim has the whole name (`realm_access.roles`)."""
    if name is None:
        return frozenset()
    found: Any = claims.get(name)
    if found is None:
        found = claims
        for part in name.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
    values = [found] if isinstance(found, str) else found if isinstance(found, list) else []
    return frozenset(each for each in values[:_MOST_VALUES] if isinstance(each, str))


def _text(told: Any) -> str | None:
    return told if isinstance(told, str) and 0 < len(told) <= _LONGEST and told.isprintable() else None
