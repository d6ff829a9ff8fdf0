"""OpenID providers: what they publish of themselves (OpenID Connect Discovery 1.0) and their keys (RFC 7517).

Fetched through egress alone, kept for a while, and used on while a provider is away. One fetch per provider at a time,
of at most 5 s: a slow one is waited for by its own tenants alone. Only issuers that a tenant has set get here.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from api import jose
from api.jose import BadToken, Token, VerifyingKey
from crypto.errors import CofferError
from egress import Egress
from egress.addresses import parse
from tenants.errors import SignOnUnavailable

LARGEST = 256 * 1024  # bytes of an answer
PATIENCE = 5.0  # seconds
_METADATA_FRESH, _KEYS_FRESH = 3600.0, 300.0
_STALE = 86_400.0  # how long what is known serves while the provider is away
_PAUSE = 30.0  # between two attempts, so that neither made-up key ids nor an outage make us knock at every request
_ISSUERS, _KEYS = 1000, 50
_ENDPOINTS = ("authorization_endpoint", "token_endpoint", "jwks_uri")


@dataclass(frozen=True, slots=True)
class Metadata:
    """`secret_goes_in_form`: the provider takes a client's secret in the body only (OIDC Core, section 9)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    names_itself: bool  # RFC 9207: its answers to the browser bear `iss`
    secret_goes_in_form: bool


@dataclass(slots=True)
class _Known:
    """What is known of one provider; times by the monotonic clock."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    metadata: Metadata | None = None
    metadata_at: float = float("-inf")
    keys: list[VerifyingKey] = field(default_factory=list)
    keys_at: float = float("-inf")
    tried_metadata: float = float("-inf")
    tried_keys: float = float("-inf")


class Providers:
    """One per process."""

    def __init__(
        self, egress: Egress, allowed: frozenset[str] = frozenset(), clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`allowed` as `Egress` takes it: the addresses of development."""
        self._egress = egress
        self._allowed = allowed
        self._clock = clock
        self._known: OrderedDict[str, _Known] = OrderedDict()

    async def metadata(self, issuer: str) -> Metadata:
        """Raises `SignOnUnavailable`."""
        known = self._of(issuer)
        async with known.turn:
            return await self._metadata(issuer, known)

    async def verify(self, issuer: str, token: Token) -> None:
        """That the provider signed it. Raises `BadToken`, or `SignOnUnavailable` where its keys can't be had."""
        known = self._of(issuer)
        key_id = token.header.get("kid")
        if key_id is not None and not isinstance(key_id, str):
            raise BadToken("kid")
        if not self._has_fresh(known, key_id):
            async with known.turn:
                await self._refresh_keys(issuer, known, key_id)
        if not any(key.fits(token) for key in _candidates(known.keys, key_id)):
            raise BadToken("signature")

    def forget(self, issuer: str) -> None:
        """Have it fetched anew: its settings were changed."""
        self._known.pop(issuer, None)

    def _of(self, issuer: str) -> _Known:
        known = self._known.setdefault(issuer, _Known())
        self._known.move_to_end(issuer)
        while len(self._known) > _ISSUERS:
            self._known.popitem(last=False)
        return known

    def _has_fresh(self, known: _Known, key_id: str | None) -> bool:
        return self._clock() - known.keys_at < _KEYS_FRESH and bool(_candidates(known.keys, key_id))

    async def _refresh_keys(self, issuer: str, known: _Known, key_id: str | None) -> None:
        now = self._clock()
        if not self._has_fresh(known, key_id) and now - known.tried_keys >= _PAUSE:  # or who had the turn before did it
            known.tried_keys = now
            try:
                async with asyncio.timeout(PATIENCE):
                    metadata = await self._metadata(issuer, known)
                    known.keys = _keys(await self._get(metadata.jwks_uri))
                    known.keys_at = self._clock()
            except (SignOnUnavailable, TimeoutError):
                pass  # what is known serves on, if it is not too old
        if self._clock() - known.keys_at > _STALE:
            raise SignOnUnavailable

    async def _metadata(self, issuer: str, known: _Known) -> Metadata:
        now = self._clock()
        if now - known.metadata_at >= _METADATA_FRESH and now - known.tried_metadata >= _PAUSE:
            known.tried_metadata = now
            try:
                async with asyncio.timeout(PATIENCE):
                    known.metadata = self._read(issuer, await self._get(discovery_url(issuer)))
                    known.metadata_at = self._clock()
            except (SignOnUnavailable, TimeoutError):
                pass
        if known.metadata is None or self._clock() - known.metadata_at > _STALE:
            raise SignOnUnavailable
        return known.metadata

    async def _get(self, url: str) -> dict[str, Any]:
        try:
            answer = await self._egress.send("GET", url, headers={"Accept": "application/json"}, total_seconds=PATIENCE)
            if answer.status != 200:  # a redirect, too: it would lead to where nobody checked
                raise SignOnUnavailable
            return jose.load(answer.body)
        except (CofferError, BadToken) as error:
            raise SignOnUnavailable from error

    def _read(self, issuer: str, found: Mapping[str, Any]) -> Metadata:
        """Section 4.3: the issuer is exactly the one asked for, or somebody could speak for another."""
        if found.get("issuer") != issuer or not all(self._is_reachable(found.get(name)) for name in _ENDPOINTS):
            raise SignOnUnavailable
        methods = found.get("token_endpoint_auth_methods_supported")
        return Metadata(
            issuer,
            authorization_endpoint=found["authorization_endpoint"],
            token_endpoint=found["token_endpoint"],
            jwks_uri=found["jwks_uri"],
            names_itself=found.get("authorization_response_iss_parameter_supported") is True,
            secret_goes_in_form=isinstance(methods, list) and "client_secret_basic" not in methods,
        )

    def _is_reachable(self, endpoint: Any) -> bool:
        try:
            return isinstance(endpoint, str) and parse(endpoint, self._allowed) is not None
        except CofferError:
            return False


def discovery_url(issuer: str) -> str:
    return issuer.rstrip("/") + "/.well-known/openid-configuration"


def is_issuer(issuer: str, allowed: frozenset[str]) -> bool:
    """Whether it is an address that can be one: no query, no fragment (OIDC Core, section 1.2)."""
    try:
        return len(issuer) <= 255 and "?" not in issuer and bool(urlsplit(issuer).netloc and parse(issuer, allowed))
    except (CofferError, ValueError):
        return False


def _keys(found: Mapping[str, Any]) -> list[VerifyingKey]:
    listed = found.get("keys")
    if not isinstance(listed, list):
        raise SignOnUnavailable
    return [key for each in listed[:_KEYS] if (key := jose.verifying_key(each)) is not None]


def _candidates(keys: list[VerifyingKey], key_id: str | None) -> list[VerifyingKey]:
    """Without a key id the set must leave no choice."""
    if key_id is not None:
        return [key for key in keys if key.id == key_id]
    return keys if len(keys) == 1 else []
