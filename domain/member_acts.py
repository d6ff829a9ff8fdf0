"""What is done with members: give and take roles, disable, enable; within the rights of who does it.

A tenant keeps an owner: the last active one can be neither disabled nor made something else.
"""

from collections.abc import Collection
from dataclasses import replace
from typing import Any
from uuid import UUID

from sqlalchemy import delete, insert, update

from domain import governing, granting, roles
from domain.errors import Refused, UserError
from tenants import rights
from tenants.access import SPECS, Permission, Role, RoleSpec
from tenants.events import EventKind
from tenants.members import Member, MemberRole
from tenants.rights import Held
from tenants.roles import MemberOwnRole
from tenants.signing_in import sessions
from tenants.unit import Unit
from tenants.viewers import MemberId

MOST_OWN_ROLES = 20
_MANAGE = Permission.MEMBERS_MANAGE
_PARTS = frozenset({"roles", "ownRoles"})
ROLES_CHANGED = EventKind("member.roles_changed", "Member", "A member was given other roles.", _PARTS)
DISABLED = EventKind("member.disabled", "Member", "A member was shut out, and its sessions ended.")
ENABLED = EventKind("member.enabled", "Member", "A disabled member may enter again.")


async def set_roles(unit: Unit, member: UUID, built_in: Collection[Role], own: Collection[UUID]) -> None:
    """The roles that the member has from then on. Those it has already may stay, whatever they grant.

    Raises `Refused`: TOO_MANY, NOT_FOUND, LAST_OWNER, and BEYOND_YOUR_RIGHTS for a role that is more than the giver
    has; `Forbidden` for who takes a role of a member who governs what the giver does not.
    """
    if len(own) > MOST_OWN_ROLES:
        sentence = f"A member has at most {MOST_OWN_ROLES} roles of the tenant's own."
        raise Refused([UserError("TOO_MANY", ("ownRoles",), sentence)])
    giver = await granting.lock(unit, _MANAGE)
    now = await _get(unit, member)
    given = await _refuse_unknown(unit, frozenset(own) - now.own_roles)
    granting.refuse_beyond(giver, [SPECS[role] for role in set(built_in) - now.roles], ("roles",))
    granting.refuse_beyond(giver, given, ("ownRoles",))
    if now.roles.difference(built_in) or now.own_roles.difference(own):
        await governing.check(unit, giver, now)
    if Role.OWNER in now.roles.difference(built_in):
        await _refuse_last_owner(unit, now)
    await _replace(unit, MemberRole, now, [{"role": role.value} for role in sorted(set(built_in))])
    await _replace(unit, MemberOwnRole, now, [{"role_id": role} for role in sorted(set(own))])
    _tell(unit, now, replace(now, roles=frozenset(built_in), own_roles=frozenset(own)))


async def disable(unit: Unit, member: UUID) -> None:
    """From the next request on the member is shut out, also by API keys; asking again changes nothing.

    Raises `Refused`: NOT_FOUND, INVITED, LAST_OWNER; `Forbidden` for a member who governs what the giver does not.
    """
    giver = await granting.lock(unit, _MANAGE)
    now = await _get(unit, member)
    if now.status == "DISABLED":
        return
    if now.status == "INVITED":
        raise Refused([UserError("INVITED", ("id",), "This member has not joined yet; use cancelInvitation.")])
    await governing.check(unit, giver, now)
    if Role.OWNER in now.roles:
        await _refuse_last_owner(unit, now)
    await unit.run(update(Member).where(*_is(unit, Member.id, member)).values(status="DISABLED"))
    unit.publish(DISABLED, [member])
    await sessions.end(unit, sessions.Why.MEMBER_DISABLED, of=MemberId(member))


async def enable(unit: Unit, member: UUID) -> None:
    """To let in again is to give all that the member has, but no session. Asking again changes nothing.

    Raises `Refused`: NOT_FOUND, BEYOND_YOUR_RIGHTS.
    """
    giver = await granting.lock(unit, _MANAGE)
    now = await _get(unit, member)
    if now.status != "DISABLED":
        return
    given = [SPECS[role] for role in now.roles] + await _refuse_unknown(unit, now.own_roles)
    granting.refuse_beyond(giver, given, ("id",))
    await unit.run(update(Member).where(*_is(unit, Member.id, member)).values(status="ACTIVE"))
    unit.publish(ENABLED, [member])
    await sessions.end(unit, sessions.Why.MEMBER_DISABLED, of=MemberId(member))  # begun while the member was disabled


def _tell(unit: Unit, before: Held, after: Held) -> None:
    changed = {"roles": before.roles ^ after.roles, "ownRoles": before.own_roles ^ after.own_roles}
    parts = [part for part, differing in changed.items() if differing]
    old, new = before.roles | before.own_roles, after.roles | after.own_roles
    details = {"given": " ".join(sorted(map(str, new - old))), "taken": " ".join(sorted(map(str, old - new)))}
    if parts:
        unit.publish(ROLES_CHANGED, [before.id], parts, details=details)


async def _get(unit: Unit, member: UUID) -> Held:
    held = await rights.held(unit, [member])
    if member not in held:
        raise Refused([UserError("NOT_FOUND", ("id",), "There is no member of that id.")])
    return held[member]


async def _refuse_unknown(unit: Unit, own: Collection[UUID]) -> list[RoleSpec]:
    """What these roles grant."""
    found = await roles.get_many(unit, own)
    if None in found:
        raise Refused([UserError("NOT_FOUND", ("ownRoles",), "ownRoles names a role that is not there.")])
    return [role.spec for role in found if role is not None]


async def _refuse_last_owner(unit: Unit, owner: Held) -> None:
    if owner.is_active and owner.kind == "PERSON" and not await rights.has_other_owner(unit, owner.id):
        raise Refused([UserError("LAST_OWNER", ("id",), "This is the last active owner; make another one first.")])


async def _replace(unit: Unit, table: type[MemberRole | MemberOwnRole], now: Held, rows: list[dict[str, Any]]) -> None:
    await unit.run(delete(table).where(*_is(unit, table.member_id, now.id)))
    if rows:
        mine = {"tenant_id": unit.tenant.id, "member_id": now.id}
        await unit.run(insert(table), [mine | row for row in rows])


def _is(unit: Unit, column: Any, member: UUID) -> tuple[Any, Any]:
    return column.class_.tenant_id == unit.tenant.id, column == member
