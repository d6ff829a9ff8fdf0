"""Proving to be a member, by password and second factor: it opens a session, or confirms who sits at one.

Costs the same for names that nobody has, and slows after failures.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from typing import NoReturn

from crypto.errors import CofferError
from tenants import members, tenants
from tenants.audit.entries import Entry
from tenants.database import Database
from tenants.errors import (
    PasswordMissing,
    ProofRefused,
    SecondFactorRefused,
    SecondFactorRequired,
    SignInRefused,
    TooManyAttempts,
    Unauthenticated,
)
from tenants.jobs.fair_queues import Asking
from tenants.members import Member
from tenants.origins import UNKNOWN, Origin, home_of
from tenants.recorder import Recorder
from tenants.signing_in import attempts, member_passwords, proofs, refresh_tokens, second_factors, sessions
from tenants.signing_in.attempts import Strangers
from tenants.signing_in.passwords import Passwords
from tenants.signing_in.sessions import NO_DEVICE, Device, Method
from tenants.unit import Unit
from tenants.units import Units
from tenants.viewers import Credential, MemberId, TenantId

_SIGNED_IN = "member.signed_in"


class SignIns:
    def __init__(self, units: Units, platform: Database, passwords: Passwords, recorder: Recorder) -> None:
        self._units = units
        self._platform = platform
        self._passwords = passwords
        self._recorder = recorder
        self._strangers = Strangers()

    async def sign_in(
        self,
        slug: str,
        email: str,
        password: str,
        code: str | None = None,
        *,
        device: Device = NO_DEVICE,
        origin: Origin = UNKNOWN,
    ) -> tuple[Credential, str]:
        """The credential of a new session, and its first refresh token.

        Raises `SignInRefused` without saying which part was wrong, or `TooManyAttempts`; and, of whoever knew the
        password alone, `SecondFactorRequired` or `SecondFactorRefused`. Each is on record, but for `SignInBusy`.
        """
        asking = Asking(slug, home_of(device.address))
        self._passwords.refuse_busy(asking)
        tenant = await tenants.find(self._platform, slug)
        if tenant is None or tenant.status != "ACTIVE":
            await self._refuse_stranger(slug, email, password, asking)
        member = None
        try:
            async with self._units.enter(tenant.id, None, write=True, thaws=True) as unit:
                await attempts.count(unit, members.email_tokens(unit, email))
                member = await members.find_by_email(unit, email)
            stored = member.password_hash if member else None
            if not await self._passwords.fits(stored, password, asking) or member is None:
                raise SignInRefused
            return await self._open(tenant.id, member, email, code, device, origin)
        except (SignInRefused, SecondFactorRequired, SecondFactorRefused, TooManyAttempts) as refused:
            await self._record(tenant.id, MemberId(member.id) if member else None, _SIGNED_IN, refused, origin)
            raise

    async def _open(
        self, tenant: TenantId, member: Member, email: str, code: str | None, device: Device, origin: Origin
    ) -> tuple[Credential, str]:
        who = MemberId(member.id)
        try:
            async with self._units.enter(tenant, who, write=True, thaws=True, origin=origin) as unit:
                await member_passwords.lock_unchanged(unit, who, member.password_hash)
                await second_factors.check(unit, who, code)
                await attempts.forget(unit, members.email_tokens(unit, email))
                credential = await sessions.begin(unit, who, Method.PASSWORD, device)
                unit.audit(_SIGNED_IN, subject_type="Member", subjects=[who])
                return credential, refresh_tokens.give(unit, credential)
        except SecondFactorRefused:
            raise
        except (ProofRefused, Unauthenticated):  # the latter where the member was disabled meanwhile
            raise SignInRefused from None

    @asynccontextmanager
    async def proven(
        self,
        credential: Credential,
        password: str,
        code: str | None,
        *,
        action: str,
        origin: Origin = UNKNOWN,
        needs_code: bool = True,
        meanwhile: Callable[[], Awaitable[object]] | None = None,
    ) -> AsyncIterator[Unit]:
        """A unit of the member whose credential this is, once it has proved to be that member.

        No connection waits while the password is looked at, nor for what is done `meanwhile`, once it fits. Raises
        `ProofRefused`, `SecondFactorRequired`, `TooManyAttempts`, each on record as a refused `action`; and what
        entering a unit raises.
        """
        who = credential.principal
        asking = asking_of(credential)
        self._passwords.refuse_busy(asking)
        try:
            async with self.entering(credential, origin) as unit:
                kept = await member_passwords.find(unit, who)
                if kept is None:
                    raise PasswordMissing(await proofs.advice(unit))
                await attempts.count(unit, proofs_of(unit, who))
            if not await self._passwords.fits(kept, password, asking):
                raise ProofRefused
            if meanwhile is not None:
                await meanwhile()
            async with self.entering(credential, origin) as unit:
                await member_passwords.lock_unchanged(unit, who, kept)
                if needs_code:
                    await second_factors.check(unit, who, code)
                await attempts.forget(unit, proofs_of(unit, who))
                yield unit
        except (ProofRefused, SecondFactorRequired, TooManyAttempts) as refused:
            await self._record(credential.tenant, who, action, refused, origin)
            raise

    def entering(self, credential: Credential, origin: Origin = UNKNOWN) -> AbstractAsyncContextManager[Unit]:
        return self._units.enter(
            credential.tenant,
            credential.principal,
            write=True,
            thaws=True,
            origin=origin,
            under=credential.session,
            key=credential.key,
        )

    async def _record(
        self, tenant: TenantId, actor: MemberId | None, action: str, refused: CofferError, origin: Origin
    ) -> None:
        """`actor` is whose e-mail it was, also where the password was wrong."""
        entry = Entry(
            tenant=tenant,
            at=datetime.now(UTC),
            actor=actor,
            action=action,
            subject_type="Member",
            subjects=[actor] if actor else [],
            outcome=refused.code,
            origin=origin,
        )
        await self._recorder.record([entry])

    async def _refuse_stranger(self, slug: str, email: str, password: str, asking: Asking) -> NoReturn:
        """Slow down and do the work of a real attempt, so that neither tells a slug that nobody has."""
        self._strangers.count(f"{slug}\0{email.strip().casefold()}", datetime.now(UTC))
        await self._passwords.fits(None, password, asking)
        raise SignInRefused


def asking_of(credential: Credential) -> Asking:
    """Of a known member, whose address does not matter then."""
    return Asking(credential.tenant.hex, credential.principal.hex)


def proofs_of(unit: Unit, member: MemberId) -> list[bytes]:
    """What failures of a known member are counted under; apart from those of its e-mail, which anybody may make."""
    return attempts.tokens_of(unit, "proofs", member.bytes)
