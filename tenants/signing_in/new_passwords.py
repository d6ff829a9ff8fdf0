"""A member's new password: in place of the old one, of a forgotten one, or as an invitation is accepted."""

from dataclasses import replace
from typing import Any

from sqlalchemy import select

from crypto.values import Secret
from tenants import mails, members, tenants
from tenants.database import Database
from tenants.errors import (
    SamePassword,
    TenantNotReady,
    TenantSuspended,
    TokenRefused,
    TooManyAttempts,
    Unauthenticated,
)
from tenants.events import EventKind
from tenants.jobs.fair_queues import Asking
from tenants.mails import Template
from tenants.members import Member
from tenants.origins import UNKNOWN, Origin
from tenants.signing_in import attempts, member_passwords, one_time_tokens, second_factors
from tenants.signing_in.bearer_tokens import BearerToken
from tenants.signing_in.one_time_tokens import Use
from tenants.signing_in.passwords import Passwords
from tenants.signing_in.sign_in import SignIns, asking_of, proofs_of
from tenants.unit import Unit
from tenants.units import Units
from tenants.viewers import Credential, MemberId

JOINED = EventKind("member.joined", "Member", "A member accepted the invitation, and may sign in.")


class NewPasswords:
    def __init__(self, units: Units, platform: Database, passwords: Passwords, sign_ins: SignIns) -> None:
        self._units = units
        self._platform = platform
        self._passwords = passwords
        self._sign_ins = sign_ins

    async def change(self, credential: Credential, old: str, new: str, origin: Origin = UNKNOWN) -> None:
        """Ends the member's other sessions.

        Raises `MemberRefused`, `SamePassword`, and what `SignIns.proven` raises.
        """
        self._passwords.check(new)
        if new == old:
            raise SamePassword
        async with self._sign_ins.entering(credential, origin) as unit:
            await member_passwords.refuse_obvious(unit, credential.principal, new)
        hashed: list[str] = []

        async def hash_new() -> None:
            hashed.append(await self._passwords.hash(new, asking_of(credential)))

        proving = self._sign_ins.proven(
            credential,
            old,
            None,
            action=member_passwords.CHANGED.name,
            origin=origin,
            needs_code=False,
            meanwhile=hash_new,
        )
        async with proving as unit:
            await member_passwords.set_(unit, credential.principal, hashed[0], besides=credential.session)
            await one_time_tokens.void(unit, credential.principal, Use.RESET)

    async def request(self, slug: str, email: str, origin: Origin = UNKNOWN) -> None:
        """Have a link written to the member of that e-mail, if there is one and it was not asked for too often.

        How long this takes tells whether there is one: answer first.
        """
        tenant = await tenants.find(self._platform, slug)
        if tenant is None or tenant.status != "ACTIVE":
            return
        async with self._units.enter(tenant.id, None, write=True, origin=origin) as unit:
            try:
                await attempts.count(unit, attempts.tokens_of(unit, "resets", email.strip().casefold().encode()))
            except TooManyAttempts:
                return
            member = await members.find_by_email(unit, email)
            # Whom a sign-on provider vouches for has none, and gets none: it would outlast the provider's word.
            if member is not None and member.password_hash is not None:
                unit.audit("member.password_reset_requested", subject_type="Member", subjects=[member.id])
                await mails.enqueue(unit, MemberId(member.id), Template.PASSWORD_RESET)

    async def reset(self, token: str, password: str, code: str | None = None, origin: Origin = UNKNOWN) -> None:
        """Ends all sessions of the member. A second factor is asked for as at sign-in, and stays.

        Raises `TokenRefused`, `MemberRefused`, `SecondFactorRequired`, `ProofRefused`, `TooManyAttempts`; the token is
        still good after the last four.
        """
        tenant, member, read = one_time_tokens.read(token)
        try:
            async with self._units.enter(tenant, None, write=True, origin=origin) as unit:
                await self._check(unit, member, read, Use.RESET, password)
                if member in await second_factors.holders(unit, [member]):
                    await attempts.count(unit, proofs_of(unit, member))
            hashed = await self._passwords.hash(password, Asking(tenant.hex, member.hex))
            async with self._units.enter(tenant, None, write=True, origin=origin) as unit:
                await one_time_tokens.take(unit, read, Use.RESET)
                await second_factors.check(unit, member, code)
                await attempts.forget(unit, proofs_of(unit, member))
                await member_passwords.set_(unit, member, hashed)
        except (Unauthenticated, TenantSuspended, TenantNotReady):
            raise TokenRefused from None

    async def accept(self, token: str, password: str, name: str | None = None, origin: Origin = UNKNOWN) -> str:
        """The slug of the tenant that the member works for from now on. Raises `TokenRefused`, `MemberRefused`."""
        tenant, member, read = one_time_tokens.read(token)
        try:
            async with self._units.enter(tenant, None, write=True, origin=origin) as unit:
                await self._check(unit, member, read, Use.INVITATION, password)
            hashed = await self._passwords.hash(password, Asking(tenant.hex, member.hex))
            async with self._units.enter(tenant, None, write=True, origin=origin) as unit:
                await one_time_tokens.take(unit, read, Use.INVITATION)
                await _join(unit, member, hashed, name)
                return unit.tenant.slug
        except (Unauthenticated, TenantSuspended, TenantNotReady):
            raise TokenRefused from None

    async def _check(self, unit: Unit, member: MemberId, token: BearerToken, use: Use, password: str) -> None:
        """Before a password is hashed, which costs much."""
        await one_time_tokens.check(unit, token, use)
        self._passwords.check(password)
        await member_passwords.refuse_obvious(unit, member, password)


async def _join(unit: Unit, member: MemberId, password_hash: str, name: str | None) -> None:
    statement = select(Member).where(*_invited(unit, member)).with_for_update()
    row = next(iter(await unit.scalars(statement)), None)
    if row is None:
        raise TokenRefused
    row.status, row.password_hash = "ACTIVE", password_hash
    if name is not None:
        await unit.load_subjects([member])
        identity = unit.open_row(row, "identity", "to keep the e-mail beside a new name")
        row.identity = Secret(replace(identity, name=name))
    await unit.flush()
    unit.publish(JOINED, [member])


def _invited(unit: Unit, member: MemberId) -> tuple[Any, ...]:
    return Member.tenant_id == unit.tenant.id, Member.id == member, Member.status == "INVITED"
