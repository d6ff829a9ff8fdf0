"""Bearer tokens that a tenant's own OpenID provider gives to services, in place of an API key.

A token is verified by its provider's keys, and who it is for, by what the tenant has set; never by a header.
"""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from api import id_tokens, jose
from api.jose import BadToken, Token
from api.openid import Providers
from tenants.audit.entries import Entry
from tenants.errors import SignOnRefused, Unauthenticated
from tenants.recorder import Recorder
from tenants.signing_in import sign_on, vouching
from tenants.signing_in.issuers import Claims
from tenants.units import Units
from tenants.viewers import Credential, TenantId

_FRESH = 5.0  # seconds that one look serves; the session that it led to is looked at by each unit
_KNOWN = 10_000


class Bearers:
    """One per process."""

    def __init__(
        self,
        units: Units,
        claims: Claims,
        providers: Providers,
        recorder: Recorder,
        *,
        own_issuer: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._units = units
        self._claims = claims
        self._providers = providers
        self._recorder = recorder
        self._own_issuer = own_issuer
        self._clock = clock
        self._known: OrderedDict[bytes, tuple[float, Credential | None]] = OrderedDict()

    async def verify(self, token: str) -> Credential:
        """Raises `Unauthenticated`, or `SignOnUnavailable` where the provider's keys can't be had."""
        digest = hashlib.sha256(token.encode(errors="surrogatepass")).digest()
        known = self._known.get(digest)
        if known is None or known[0] <= self._clock():
            known = await self._look(token)
            self._known[digest] = known
            self._known.move_to_end(digest)
            while len(self._known) > _KNOWN:
                self._known.popitem(last=False)
        if known[1] is None:
            raise Unauthenticated
        return known[1]

    async def _look(self, text: str) -> tuple[float, Credential | None]:
        """Whose it is, None where its provider is right and we let nobody in by it, and until when that serves."""
        try:
            token = jose.read(text)
            issuer, audience = _named(token.claims)
            claim = None if issuer == self._own_issuer else await self._claims.find(issuer, audience)
            if claim is None:
                raise Unauthenticated
            await self._providers.verify(issuer, token)
            credential = await self._admit(claim.tenant, claim.provider, token)
        except BadToken as error:
            raise Unauthenticated from error
        return min(self._clock() + _FRESH, float(token.claims["exp"])), credential

    async def _admit(self, tenant: TenantId, provider: UUID, token: Token) -> Credential | None:
        try:
            async with self._units.enter(tenant, None, write=True) as unit:
                found = await sign_on.find_provider(unit, provider)
                if found is None or not found.is_enabled:
                    return None
                vouched = id_tokens.service(token, found, self._clock())
                admitted = await vouching.admit(unit, found, vouched)
                if admitted.has_roles:
                    return await vouching.service_session(unit, found, admitted.member, vouched.issued_at)
            raise SignOnRefused("no-role")  # once it is kept that the roles are gone
        except SignOnRefused as refused:
            await self._record(tenant, refused)
            return None

    async def _record(self, tenant: TenantId, refused: SignOnRefused) -> None:
        entry = Entry(
            tenant=tenant,
            at=datetime.now(UTC),
            actor=None,
            action="member.signed_in",
            subject_type="Member",
            outcome=refused.code,
            details={"method": "BEARER", "why": refused.why},
        )
        await self._recorder.record([entry])


def _named(claims: Mapping[str, Any]) -> tuple[str, str]:
    """Issuer and single audience, as the token says. Raises `BadToken`."""
    issuer, audience = claims.get("iss"), claims.get("aud")
    if isinstance(audience, list) and len(audience) == 1:
        audience = audience[0]
    if not isinstance(issuer, str) or not isinstance(audience, str):
        raise BadToken("aud")
    return issuer, audience
