"""Members over GraphQL, for who looks after them: the list, their roles, shutting out and letting in again."""

from collections.abc import Awaitable
from typing import Annotated, cast

import strawberry
from strawberry import Info

from api.directives import Input, argument, public, requires
from api.members import Member
from api.operation import Operation
from api.paging import Connection, UserError, cursor, local_id, user_errors, window
from domain import member_acts, members
from domain.errors import Refused
from domain.members import Filter, MemberKind, MemberStatus
from tenants.access import Permission, Role

_MANAGE = Permission.MEMBERS_MANAGE
_SHAPE = "the shape of a payload"
_LIST = "members"
_HARMLESS = Input(why="an id opens nothing by itself")
_CODE = Input(why="a code")
_GRANT = Input(why="nobody grants beyond their own rights")
_ID = Annotated[strawberry.ID, argument(_HARMLESS, "The member's.")]
_FIRST = Annotated[int | None, argument(Input(why="a size"), "1 to 100; 20 unless told.")]
_CURSOR = Annotated[
    str | None, argument(Input(why="holds a clear sort key and an id, under a MAC"), "An end or edge of the list.")
]


@strawberry.type
class MemberPayload:
    member: Member | None = public(_SHAPE)
    user_errors: list[UserError] = public(_SHAPE)


@strawberry.type
class MemberListQueries:
    @requires(Permission.MEMBERS_READ, description="Members, services too, oldest first.")
    async def members(
        self,
        info: Info[Operation],
        status: Annotated[MemberStatus | None, argument(_CODE, "Only those of this status.")] = None,
        kind: Annotated[MemberKind | None, argument(_CODE, "Only persons, or only services.")] = None,
        role: Annotated[Role | None, argument(_CODE, "Only those who have this built-in role.")] = None,
        own_role: Annotated[strawberry.ID | None, argument(_HARMLESS, "Only those who have this role.")] = None,
        email: Annotated[
            str | None,
            argument(Input(why="for MEMBERS_MANAGE, and on record"), "Only who has this whole e-mail."),
        ] = None,
        first: _FIRST = None,
        after: _CURSOR = None,
        last: _FIRST = None,
        before: _CURSOR = None,
    ) -> Connection[Member] | None:
        unit, of_role = info.context.unit, None if own_role is None else local_id("OwnRole", own_role)
        where = Filter(status=status, kind=kind, role=role, own_role=of_role, email=email)
        return Connection(
            page=await members.page(unit, where, window(unit, _LIST, first, after, last, before)),
            cursor_of=lambda member: cursor(unit, _LIST, (member.created_at, member.id)),
            count=lambda: members.count(unit, where),
        )


@strawberry.type
class MemberActMutations:
    @requires(_MANAGE, description="Say which roles a member or service has. The tenant's last owner stays one.")
    async def set_member_roles(
        self,
        info: Info[Operation],
        id: _ID,
        roles: Annotated[list[Role], argument(_GRANT, "All built-in ones that it is to have.")],
        own_roles: Annotated[list[strawberry.ID], argument(_GRANT, "All of the tenant's own that it is to have.")],
    ) -> MemberPayload | None:
        own = [local_id("OwnRole", role) for role in own_roles]
        return await _done(info, id, member_acts.set_roles(info.context.unit, local_id("Member", id), roles, own))

    @requires(_MANAGE, description="Shut a member out, from the next request on; its sessions end.")
    async def disable_member(self, info: Info[Operation], id: _ID) -> MemberPayload | None:
        return await _done(info, id, member_acts.disable(info.context.unit, local_id("Member", id)))

    @requires(_MANAGE, description="Let a disabled member in again, with the roles it has.")
    async def enable_member(self, info: Info[Operation], id: _ID) -> MemberPayload | None:
        return await _done(info, id, member_acts.enable(info.context.unit, local_id("Member", id)))


async def _done(info: Info[Operation], id: str, act: Awaitable[None]) -> MemberPayload:
    operation = info.context
    try:
        await act
    except Refused as refused:
        return MemberPayload(member=None, user_errors=user_errors(refused))
    for name in ("held", "members"):  # what an earlier field of the operation read is old
        operation.loaders.pop(name, None)
    (member,) = await members.get_many(operation.unit, [local_id("Member", id)])
    return MemberPayload(member=cast(Member | None, member), user_errors=[])
