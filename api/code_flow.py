"""Authorization Code with PKCE (RFC 6749, 7636, 9207, 9700): browsers are sent to a provider, and codes exchanged.

The provider is asked while no unit is open, so none of ours waits for it with a database connection in hand.
"""

import base64
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from api import codes, id_tokens, jose
from api.codes import Client
from api.id_tokens import Expected
from api.jose import BadToken
from api.openid import Providers
from domain import step_ups
from egress import Egress
from tenants import rights, tenants
from tenants.audit.entries import Entry
from tenants.database import Database
from tenants.errors import (
    RedirectRefused,
    SignOnRefused,
    SignOnUnavailable,
    SignOnUnknown,
    TenantNotReady,
    TenantSuspended,
    Unauthenticated,
)
from tenants.origins import UNKNOWN, Origin
from tenants.recorder import Recorder
from tenants.signing_in import refresh_tokens, sessions, sign_on, sign_on_requests, vouching
from tenants.signing_in.sessions import NO_DEVICE, Device
from tenants.signing_in.sign_on import FlowSecret, SignOnProvider
from tenants.signing_in.sign_on_requests import Taken
from tenants.signing_in.vouching import Vouched
from tenants.unit import Unit
from tenants.units import Units
from tenants.viewers import Credential, TenantId

_SECRET_BYTES = 32
_LONGEST_CODE = 4096
_ANSWERED = ("issuer", "client_id", "role_claim")  # what an answer is of: where one is another now, it is of none


@dataclass(frozen=True, slots=True)
class Begun:
    """Where to send the browser; it must give `handle` back with what it comes back with."""

    url: str = field(repr=False)
    handle: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Return:
    """What the browser came back with, and the handle that it kept. `issuer` where the provider gave one (RFC 9207)."""

    state: str = field(repr=False)
    code: str = field(repr=False)
    handle: str = field(repr=False)
    issuer: str | None


@dataclass(frozen=True, slots=True)
class _Way:
    """What an exchange needs, read while a unit was open."""

    provider: SignOnProvider
    taken: Taken
    secret: str | None = field(repr=False)


class CodeFlow:
    def __init__(
        self,
        units: Units,
        platform: Database,
        egress: Egress,
        providers: Providers,
        recorder: Recorder,
        *,
        origins: frozenset[str],
        hashed: Callable[[Sequence[Any] | None], str],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`origins` are those that a browser may be sent back to; `hashed` makes an address a name."""
        self._units = units
        self._platform = platform
        self._egress = egress
        self._providers = providers
        self._recorder = recorder
        self._origins, self._hashed = origins, hashed
        self._now = now

    async def begin(
        self,
        slug: str,
        provider: UUID | None,
        redirect_uri: str,
        address: str | None,
        origin: Origin = UNKNOWN,
        *,
        is_fresh: bool = False,
    ) -> Begun:
        """`is_fresh` has the provider ask for a proof anew.

        Raises `RedirectRefused`, `SignOnUnknown`, `SignOnUnavailable`, on record where there is such a tenant.
        """
        tenant = await tenants.find(self._platform, slug)
        if tenant is None or tenant.status != "ACTIVE":
            self._refuse_return_to(redirect_uri)
            raise SignOnUnknown
        try:
            self._refuse_return_to(redirect_uri)
            async with self._units.enter(tenant.id, None, write=False) as unit:
                chosen = await _chosen(unit, provider)
            return await self._begin(tenant.id, chosen, redirect_uri, address=address, is_fresh=is_fresh)
        except (SignOnRefused, SignOnUnavailable) as refused:
            await self._record(tenant.id, refused, origin)
            raise

    async def begin_link(
        self, credential: Credential, provider: UUID | None, redirect_uri: str, address: str | None
    ) -> Begun:
        """Whoever signs in at the end is linked to this member, who must have proved lately to sit there, then as now.

        Else a stolen access token would become a way in that lasts. Raises `RedirectRefused`, `SignOnUnknown`,
        `SignOnUnavailable`, and `Refused`: STEP_UP_REQUIRED.
        """
        tenant, member = credential.tenant, credential.principal
        entering = self._units.enter(tenant, member, write=False, under=credential.session, key=credential.key)
        async with entering as unit:
            await step_ups.require(unit)
            self._refuse_return_to(redirect_uri)
            chosen = await _chosen(unit, provider)
        return await self._begin(tenant, chosen, redirect_uri, address=address, link_to=credential, is_fresh=True)

    async def _begin(
        self,
        tenant: TenantId,
        chosen: SignOnProvider,
        redirect_uri: str,
        *,
        address: str | None,
        is_fresh: bool,
        link_to: Credential | None = None,
    ) -> Begun:
        metadata = await self._providers.metadata(chosen.issuer)
        whose = bytes.fromhex(self._hashed(address and (address, 0)))
        flow = FlowSecret(verifier=_fresh(), nonce=_fresh(), redirect_uri=redirect_uri)
        async with self._units.enter(tenant, None, write=True, thaws=True) as unit:
            begun = await sign_on_requests.begin(unit, chosen, flow, address=whose, link_to=link_to, is_fresh=is_fresh)
        state = _text(tenant.bytes + begun.state)
        url = codes.authorization_url(metadata, chosen, flow, state, is_fresh=is_fresh)
        return Begun(url, _text(begun.handle))

    async def complete(
        self, returned: Return, origin: Origin = UNKNOWN, device: Device = NO_DEVICE
    ) -> tuple[Credential, str]:
        """The credential of a new session of whom the provider vouches for, and its first refresh token.

        Raises `SignOnRefused` without saying why, and `SignOnUnavailable`; both are on record.
        """
        tenant, state = _state(returned.state)
        try:
            way = await self._take(tenant, state, returned.handle)
            vouched = await self._exchange(way, returned)
            return await self._open(tenant, way, vouched, origin, device)
        except (Unauthenticated, TenantSuspended, TenantNotReady) as error:
            raise SignOnRefused("tenant") from error  # not on record: there may be no such tenant
        except (SignOnRefused, SignOnUnavailable) as refused:
            await self._record(tenant, refused, origin)
            raise

    def _refuse_return_to(self, uri: str) -> None:
        if not codes.may_return_to(uri, self._origins):
            raise RedirectRefused

    async def _take(self, tenant: TenantId, state: bytes, handle: str) -> _Way:
        """What was kept is gone from here on: one return is all there is, whatever comes of it."""
        async with self._units.enter(tenant, None, write=True, thaws=True) as unit:
            taken = await sign_on_requests.take(unit, state, _raw(handle, _SECRET_BYTES))
            if taken is None:
                raise SignOnRefused("state")
            provider = await sign_on.find_provider(unit, taken.provider)
            if provider is None or not provider.is_enabled:
                raise SignOnRefused("provider")
            return _Way(provider, taken, await sign_on.client_secret(unit, provider))

    async def _exchange(self, way: _Way, returned: Return) -> Vouched:
        metadata = await self._providers.metadata(way.provider.issuer)
        if returned.issuer != way.provider.issuer and (returned.issuer is not None or metadata.names_itself):
            raise SignOnRefused("iss")  # another provider's answer was slipped in (RFC 9700, section 4.4)
        if not 0 < len(returned.code) <= _LONGEST_CODE or not returned.code.isprintable():
            raise SignOnRefused("code")
        client = Client(way.provider.client_id, way.secret)
        answer = await codes.exchange(self._egress, metadata, client, way.taken, returned.code)
        access_token = answer.get("access_token")
        expected = Expected(
            way.taken.nonce,
            access_token if isinstance(access_token, str) else None,
            way.taken.begun_at - timedelta(seconds=jose.SKEW) if way.taken.is_fresh else None,
        )
        try:
            token = jose.read(str(answer.get("id_token", "")))
            await self._providers.verify(way.provider.issuer, token)
            return id_tokens.person(token, way.provider, expected, self._now().timestamp())
        except BadToken as error:
            raise SignOnRefused(f"id-token-{error}") from error

    async def _open(
        self, tenant: TenantId, way: _Way, vouched: Vouched, origin: Origin, device: Device
    ) -> tuple[Credential, str]:
        try:
            async with self._enter(tenant, way.taken.link_to, origin) as unit:
                provider = await _as_set(unit, way.provider)
                admitted = await vouching.admit(unit, provider, vouched, unit.viewer.principal)
                if admitted.has_roles:
                    member = admitted.member
                    credential = await vouching.begin_session(unit, provider, member, device, vouched.proved_at)
                    return credential, refresh_tokens.give(unit, credential)
        except Unauthenticated as error:
            raise SignOnRefused("session-ended") from error  # that of who asked to be linked
        raise SignOnRefused("no-role")  # once it is kept that the roles are gone

    @asynccontextmanager
    async def _enter(self, tenant: TenantId, link_to: Credential | None, origin: Origin) -> AsyncIterator[Unit]:
        """As the house; for a link as who asked for it, whose session and proof must last until it is made."""
        if link_to is None:
            async with self._units.enter(tenant, None, write=True, thaws=True, origin=origin) as unit:
                yield unit
            return
        entering = self._units.enter(tenant, link_to.principal, write=True, origin=origin, under=link_to.session)
        async with entering as unit:
            await rights.hold(unit)
            if not await sessions.hold(unit):
                raise Unauthenticated
            if not sessions.is_fresh(unit.viewer, unit.now):
                raise SignOnRefused("proof-too-old")
            yield unit

    async def _record(self, tenant: TenantId, refused: SignOnRefused | SignOnUnavailable, origin: Origin) -> None:
        details: dict[str, int | str] = {"method": "OIDC"}
        if isinstance(refused, SignOnRefused):
            details["why"] = refused.why
        entry = Entry(
            tenant=tenant,
            at=self._now(),
            actor=None,
            action="member.signed_in",
            subject_type="Member",
            outcome=SignOnRefused.code if isinstance(refused, SignOnRefused) else refused.code,
            details=details,
            origin=origin,
        )
        await self._recorder.record([entry])


async def _as_set(unit: Unit, asked: SignOnProvider) -> SignOnProvider:
    """As it is set until this unit ends; it may have been changed, and its sessions ended, while it was asked."""
    await rights.hold(unit)
    provider = await sign_on.find_provider(unit, asked.id)
    if provider is None or not provider.is_enabled:
        raise SignOnRefused("provider")
    if any(getattr(provider, name) != getattr(asked, name) for name in _ANSWERED):
        raise SignOnRefused("provider")
    return provider


async def _chosen(unit: Unit, provider: UUID | None) -> SignOnProvider:
    """That one, or the oldest."""
    for each in await sign_on.providers(unit):
        if each.is_enabled and provider in (None, each.id):
            return each
    raise SignOnUnknown


def _state(text: str) -> tuple[TenantId, bytes]:
    raw = _raw(text, 16 + _SECRET_BYTES)
    return TenantId(UUID(bytes=raw[:16])), raw[16:]


def _raw(text: str, length: int) -> bytes:
    try:
        raw = jose.decode(text)
    except BadToken:
        raise SignOnRefused("state") from None
    if len(raw) != length:
        raise SignOnRefused("state")
    return raw


def _fresh() -> str:
    return secrets.token_urlsafe(_SECRET_BYTES)


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
