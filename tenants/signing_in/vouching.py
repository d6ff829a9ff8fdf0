"""From a provider's word to a member: found by its link, or made just in time; its roles as claimed, its session."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError

from crypto.keys import Purpose
from crypto.values import Secret
from tenants import members, rights
from tenants.access import Role
from tenants.errors import SignOnRefused
from tenants.ids import new_id
from tenants.members import Member, MemberIdentity, MemberRole
from tenants.roles import MemberOwnRole, OwnRole
from tenants.signing_in import links, sessions
from tenants.signing_in.sessions import Device, Method, Session, Why
from tenants.signing_in.sign_on import (
    LinkedIdentity,
    MemberLink,
    Roles,
    SignOnProvider,
    SignOnSession,
    all_roles,
    roles_for,
)
from tenants.unit import Unit
from tenants.viewers import Credential, MemberId, SessionId

_NEVER = datetime(1970, 1, 1, tzinfo=UTC)  # nobody sat there to prove anything
_MARGIN = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Vouched:
    """Whom a provider speaks of. `email` is one that the provider says it verified; `claimed` the role claim's values.

    `issued_at` is when it spoke; `proved_at` when the person last proved to the provider to sit there, if it says so.
    """

    issuer: str
    subject: str = field(repr=False)
    claimed: frozenset[str] = frozenset()
    email: str | None = field(default=None, repr=False)
    name: str | None = field(default=None, repr=False)
    proved_at: datetime | None = None
    issued_at: datetime = _NEVER
    is_service: bool = False


@dataclass(frozen=True, slots=True)
class Admitted:
    """Without a role the member may do nothing and is not let in; that its roles are gone stays."""

    member: MemberId
    has_roles: bool


async def admit(unit: Unit, provider: SignOnProvider, vouched: Vouched, link_to: MemberId | None = None) -> Admitted:
    """The member that (issuer, subject) stands for; its roles follow the claims. `link_to` makes it stand for that one.

    Raises `SignOnRefused` for one that is not active, is linked to another, is a person where a service is spoken of or
    a service where a person is, or is new and has no role to come to.
    """
    wanted = await _existing(unit, roles_for(provider, vouched.claimed))
    member = await find_member(unit, provider, vouched)
    if link_to is not None and member is None:
        await _link(unit, provider, link_to, vouched)
        member = link_to
    if link_to is not None and member != link_to:
        raise SignOnRefused("linked-to-another")
    if member is None:
        member = await _make(unit, provider, vouched, wanted)
    await _refuse_another_kind(unit, member, vouched)
    await _follow(unit, member, wanted, all_roles(provider))
    return Admitted(member, bool(await _held(unit, member)))


async def find_member(unit: Unit, provider: SignOnProvider, vouched: Vouched) -> MemberId | None:
    token = links.token_of(unit, vouched.issuer, vouched.subject, unit.keyring.active_version(Purpose.BIK))
    where = (MemberLink.tenant_id == unit.tenant.id, MemberLink.provider_id == provider.id, MemberLink.token == token)
    found = await unit.scalars(select(MemberLink.member_id).where(*where))
    return MemberId(found[0]) if found else None


async def has_links(unit: Unit, provider: UUID) -> bool:
    where = (MemberLink.tenant_id == unit.tenant.id, MemberLink.provider_id == provider)
    return bool(await unit.scalars(select(MemberLink.id).where(*where).limit(1)))


async def _refuse_another_kind(unit: Unit, member: MemberId, vouched: Vouched) -> None:
    """Whoever a person hands its access token to must not be that person here."""
    kind = select(Member.kind).where(Member.tenant_id == unit.tenant.id, Member.id == member)
    if (await unit.scalars(kind))[0] != _kind(vouched):
        raise SignOnRefused("another-kind")


def _kind(vouched: Vouched) -> str:
    return "SERVICE" if vouched.is_service else "PERSON"


async def _link(unit: Unit, provider: SignOnProvider, member: MemberId, vouched: Vouched) -> None:
    await unit.load_subjects([member])
    identity = LinkedIdentity(issuer=vouched.issuer, subject=vouched.subject)
    unit.add(*links.links_of(unit, provider.id, member, identity, unit.now))
    await unit.flush()
    unit.audit("member.linked", subject_type="Member", subjects=[member])


async def _make(unit: Unit, provider: SignOnProvider, vouched: Vouched, wanted: Roles) -> MemberId:
    """Of two first sign-ins at once one makes the member, and the other finds it."""
    if not wanted:
        raise SignOnRefused("no-role")
    try:
        async with unit.savepoint():
            return await _add(unit, provider, vouched)
    except IntegrityError:
        found = await find_member(unit, provider, vouched)
        if found is None:
            raise
        return found


async def _add(unit: Unit, provider: SignOnProvider, vouched: Vouched) -> MemberId:
    """Without password. An e-mail that another member has stands in the identity, but finds the other one alone."""
    member = MemberId(new_id())
    unit.new_subject(member)
    unit.add(
        Member(
            tenant_id=unit.tenant.id,
            id=member,
            kind=_kind(vouched),
            identity=Secret(MemberIdentity(email=vouched.email, name=vouched.name)),
            password_hash=None,
            status="ACTIVE",
            created_at=unit.now,
        )
    )
    await unit.flush()
    await _link(unit, provider, member, vouched)
    if vouched.email is not None:
        await members.take_email(unit, member, vouched.email)
    unit.publish(members.ADDED, [member], ["roles"])
    return member


async def _existing(unit: Unit, roles: Roles) -> Roles:
    """A role of the tenant's own may have been deleted since it was put into the map."""
    if not roles.own:
        return roles
    known = select(OwnRole.id).where(OwnRole.tenant_id == unit.tenant.id, OwnRole.id.in_(roles.own))
    return Roles(roles.built_in, frozenset(await unit.scalars(known)))


async def _held(unit: Unit, member: MemberId) -> Roles:
    """Raises `SignOnRefused` unless the member is active."""
    held = (await rights.held(unit, [member])).get(member)
    if held is None or not held.is_active:
        raise SignOnRefused("member-not-active")
    return Roles(held.roles, held.own_roles)


async def _follow(unit: Unit, member: MemberId, wanted: Roles, governed: Roles) -> None:
    """Give what is claimed, and take of what the provider's word can give what is not. Other roles are left alone."""
    if not any(_changes(await _held(unit, member), wanted, governed)):
        return
    await rights.hold_still(unit)
    gained, lost = _changes(await _held(unit, member), wanted, governed)
    if Role.OWNER in lost.built_in and not await rights.has_other_owner(unit, member):
        lost = Roles(lost.built_in - {Role.OWNER}, lost.own)
    await _give(unit, member, gained)
    await _take(unit, member, lost)
    names = [*(f"+{role}" for role in sorted(gained.built_in)), *(f"-{role}" for role in sorted(lost.built_in))]
    counts = {"own_gained": len(gained.own), "own_lost": len(lost.own)}
    details = {**counts, "built_in": " ".join(names)}
    unit.audit("member.roles_followed", subject_type="Member", subjects=[member], fields=["roles"], details=details)


def _changes(held: Roles, wanted: Roles, governed: Roles) -> tuple[Roles, Roles]:
    gained = Roles(wanted.built_in - held.built_in, wanted.own - held.own)
    lost = Roles((governed.built_in - wanted.built_in) & held.built_in, (governed.own - wanted.own) & held.own)
    return gained, lost


async def _give(unit: Unit, member: MemberId, roles: Roles) -> None:
    tenant = unit.tenant.id
    unit.add(*(MemberRole(tenant_id=tenant, member_id=member, role=role.value) for role in roles.built_in))
    unit.add(*(MemberOwnRole(tenant_id=tenant, member_id=member, role_id=role) for role in roles.own))
    await unit.flush()


async def _take(unit: Unit, member: MemberId, roles: Roles) -> None:
    mine = (MemberRole.tenant_id == unit.tenant.id, MemberRole.member_id == member)
    own = (MemberOwnRole.tenant_id == unit.tenant.id, MemberOwnRole.member_id == member)
    if roles.built_in:
        await unit.run(delete(MemberRole).where(*mine, MemberRole.role.in_(roles.built_in)))
    if roles.own:
        await unit.run(delete(MemberOwnRole).where(*own, MemberOwnRole.role_id.in_(roles.own)))


async def begin_session(
    unit: Unit, provider: SignOnProvider, member: MemberId, device: Device, proved_at: datetime | None
) -> Credential:
    """It counts as a fresh proof only as far as the provider says when the member gave one."""
    credential = await sessions.begin(unit, member, Method.OIDC, device)
    await _vouch(unit, provider, credential, proved_at, is_of_service=False)
    unit.audit("member.signed_in", subject_type="Member", subjects=[member], details={"method": "OIDC"})
    return credential


async def service_session(unit: Unit, provider: SignOnProvider, member: MemberId, issued_at: datetime) -> Credential:
    """The one session that all tokens of a service stand on, so that they fall with the provider at once.

    Raises `SignOnRefused` for a token that was issued before somebody ended the service's session.
    """
    await _refuse_older(unit, provider, member, issued_at)
    known = (
        select(SignOnSession.session_id)
        .join(Session, (Session.tenant_id == SignOnSession.tenant_id) & (Session.id == SignOnSession.session_id))
        .where(
            SignOnSession.tenant_id == unit.tenant.id,
            SignOnSession.provider_id == provider.id,
            SignOnSession.member_id == member,
            SignOnSession.is_of_service,
            Session.ended_at.is_(None),
            Session.expires_at > unit.now + _MARGIN,
        )
        .order_by(Session.expires_at.desc())
    )
    if found := await unit.scalars(known.limit(1)):
        return Credential(unit.tenant.id, member, SessionId(found[0]))
    credential = await sessions.begin(unit, member, Method.OIDC)
    await _vouch(unit, provider, credential, None, is_of_service=True)
    unit.audit("member.signed_in", subject_type="Member", subjects=[member], details={"method": "BEARER"})
    return credential


async def _refuse_older(unit: Unit, provider: SignOnProvider, member: MemberId, issued_at: datetime) -> None:
    """A provider's change ends sessions too, but says nothing against the service."""
    ended = (
        select(Session.id)
        .join(SignOnSession, (SignOnSession.tenant_id == Session.tenant_id) & (SignOnSession.session_id == Session.id))
        .where(
            Session.tenant_id == unit.tenant.id,
            Session.member_id == member,
            SignOnSession.provider_id == provider.id,
            SignOnSession.is_of_service,
            Session.ended_at >= issued_at,
            Session.ended_why != Why.SIGN_ON_CHANGED,
        )
    )
    if await unit.scalars(ended.limit(1)):
        raise SignOnRefused("session-ended")


async def _vouch(
    unit: Unit, provider: SignOnProvider, credential: Credential, proved_at: datetime | None, *, is_of_service: bool
) -> None:
    unit.add(
        SignOnSession(
            tenant_id=unit.tenant.id,
            session_id=credential.session,
            provider_id=provider.id,
            member_id=credential.principal,
            is_of_service=is_of_service,
        )
    )
    await unit.flush()
    proof = min(proved_at or _NEVER, unit.now)
    mine = (Session.tenant_id == unit.tenant.id, Session.id == credential.session)
    await unit.run(update(Session).where(*mine).values(confirmed_at=proof).execution_options(synchronize_session=False))


async def end_sessions(unit: Unit, provider: UUID) -> None:
    """Whoever is in by that provider's word is out from the next request on."""
    where = (SignOnSession.tenant_id == unit.tenant.id, SignOnSession.provider_id == provider)
    vouched: Sequence[UUID] = await unit.scalars(select(SignOnSession.session_id).where(*where))
    if vouched:
        await sessions.end(unit, Why.SIGN_ON_CHANGED, only=vouched)
