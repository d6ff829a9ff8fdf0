"""Invitations: a member to be, who has roles but can't sign in until it chose a password by the link in its letter."""

from collections.abc import Collection
from dataclasses import replace
from typing import Any
from uuid import UUID

from sqlalchemy import delete, insert, select
from sqlalchemy.exc import IntegrityError

from crypto.values import Secret
from domain import granting, normalise, required, roles
from domain.errors import Refused, UserError
from domain.granting import Giver
from tenants import mails, members, rights
from tenants.access import SPECS, Permission, Role, RoleSpec
from tenants.errors import MemberExists, MemberRefused
from tenants.events import EventKind
from tenants.mails import Template
from tenants.members import Member, MemberRole
from tenants.roles import MemberOwnRole
from tenants.signing_in import one_time_tokens
from tenants.signing_in.one_time_tokens import Use
from tenants.subjects import Subject
from tenants.unit import Unit
from tenants.viewers import MemberId

_MANAGE = Permission.MEMBERS_MANAGE
_INVITED = "INVITED"
INVITED = EventKind("member.invited", "Member", "Somebody was invited to become a member.", frozenset({"roles"}))
CANCELLED = EventKind("member.invitation_cancelled", "Member", "An invitation was taken back.")


async def invite(unit: Unit, email: str, name: str, built_in: Collection[Role], own: Collection[UUID]) -> MemberId:
    """Who was invited before is invited anew, by this name and with these roles; the older letter's link is void.

    Raises `Refused`: REQUIRED, INVALID, NOT_FOUND, MEMBER_EXISTS, BEYOND_YOUR_RIGHTS.
    """
    giver = await granting.lock(unit, _MANAGE)
    kept, email = _texts(name, email, [*built_in, *own])
    granting.refuse_beyond(giver, await _specs(unit, built_in, own), ("roles",))
    found = await members.find_by_email(unit, email, status=None)
    if found is None:
        member = await _add(unit, email, kept, built_in)
    elif found.status == _INVITED:
        member = await _invite_anew(unit, giver, MemberId(found.id), kept, built_in)
    else:
        raise _joined()
    await _give(unit, member, own)
    await mails.enqueue(unit, member, Template.INVITATION)
    return member


async def cancel(unit: Unit, member: UUID) -> None:
    """The member to be is gone, and with it the link and what was sealed of it.

    Raises `Refused`: NOT_FOUND where none is invited, BEYOND_YOUR_RIGHTS.
    """
    giver = await granting.lock(unit, _MANAGE)
    await _check_may_change(unit, giver, member)
    invited = (Member.tenant_id == unit.tenant.id, Member.id == member, Member.status == _INVITED)
    if not await _deleted(unit, delete(Member).where(*invited).returning(Member.id)):
        raise Refused([UserError("NOT_FOUND", ("id",), "There is no invitation of that id.")])
    await unit.run(delete(Subject).where(Subject.tenant_id == unit.tenant.id, Subject.id == member))
    unit.publish(CANCELLED, [member])


async def _deleted(unit: Unit, deleting: Any) -> bool:
    try:
        async with unit.savepoint():
            return bool(await unit.scalars(deleting.execution_options(synchronize_session=False)))
    except IntegrityError:  # customers were given to it already
        raise Refused([UserError("HAS_CUSTOMERS", ("id",), "Hand over the customers of that member first.")]) from None


def _texts(name: str, email: str, given: Collection[Any]) -> tuple[str, str]:
    """Without any role given there is nothing to invite to."""
    errors: list[UserError] = []
    texts = (
        required.text(errors, ("name",), name, normalise.name),
        required.text(errors, ("email",), email, normalise.email),
    )
    if not given:
        errors.append(granting.NO_ROLE)
    if errors:
        raise Refused(errors)
    return texts


async def _add(unit: Unit, email: str, name: str, built_in: Collection[Role]) -> MemberId:
    try:
        return await members.add(
            unit, email=email, name=name, password_hash=None, roles=built_in, status=_INVITED, told=INVITED
        )
    except MemberRefused as refused:
        raise Refused([UserError("INVALID", ("email",), refused.message)]) from None


async def _invite_anew(unit: Unit, giver: Giver, member: MemberId, name: str, built_in: Collection[Role]) -> MemberId:
    await _check_may_change(unit, giver, member)
    row = await _lock_invited(unit, member)
    await unit.load_subjects([member])
    identity = unit.open_row(row, "identity", "to keep the e-mail beside a new name")
    row.identity = Secret(replace(identity, name=name))
    await unit.flush()
    for table in (MemberRole, MemberOwnRole):
        mine = delete(table).where(table.tenant_id == unit.tenant.id, table.member_id == member)
        await unit.run(mine.execution_options(synchronize_session=False))
    unit.add(*(MemberRole(tenant_id=unit.tenant.id, member_id=member, role=role.value) for role in set(built_in)))
    await unit.flush()
    unit.publish(INVITED, [member], ["roles"])
    return member


async def _lock_invited(unit: Unit, member: MemberId) -> Member:
    """With its link void. Who has taken the link is waited for, in the order of `NewPasswords.accept`: link, then row.

    Raises `Refused`, MEMBER_EXISTS.
    """
    await one_time_tokens.void(unit, member, Use.INVITATION)
    invited = (Member.tenant_id == unit.tenant.id, Member.id == member, Member.status == _INVITED)
    locking = select(Member).where(*invited).with_for_update().execution_options(populate_existing=True)
    if not (found := await unit.scalars(locking)):
        raise _joined()
    row: Member = found[0]
    return row


def _joined() -> Refused:
    return Refused([UserError(MemberExists.code, ("email",), MemberExists.message)])


async def _give(unit: Unit, member: MemberId, own: Collection[UUID]) -> None:
    if own:
        given = [{"tenant_id": unit.tenant.id, "member_id": member, "role_id": role} for role in sorted(set(own))]
        await unit.run(insert(MemberOwnRole), given)


async def _check_may_change(unit: Unit, giver: Giver, member: UUID) -> None:
    """Whoever may not give what was promised may not take it back either."""
    promised = (await rights.held(unit, [member])).get(member)
    if promised is not None:
        granting.refuse_beyond(giver, await _specs(unit, promised.roles, promised.own_roles), ("id",))


async def _specs(unit: Unit, built_in: Collection[Role], own: Collection[UUID]) -> list[RoleSpec]:
    found = await roles.get_many(unit, list(own))
    if None in found:
        raise Refused([UserError("NOT_FOUND", ("ownRoles",), "ownRoles names a role that is not there.")])
    return [SPECS[role] for role in built_in] + [role.spec for role in found if role is not None]
