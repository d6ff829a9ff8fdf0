"""Invitations over GraphQL: somebody becomes a member by the link of a letter; accepting is in `api/passwords.py`."""

from typing import Annotated, cast

import strawberry
from strawberry import Info

from api.directives import Input, argument, public, requires
from api.member_acts import MemberPayload
from api.members import Member
from api.operation import Operation
from api.paging import UserError, local_id, user_errors
from domain import invitations, members
from domain.errors import Refused
from tenants.access import Permission, Role

_MANAGE = Permission.MEMBERS_MANAGE
_SHAPE = "the shape of a payload"
_GRANT = Input(why="nobody grants beyond their own rights")
_PERSON = Input(why="of a member to be, which is no customer; MEMBERS_MANAGE may give it")


@strawberry.type
class CancelInvitationPayload:
    cancelled_id: strawberry.ID | None = public(_SHAPE)
    user_errors: list[UserError] = public(_SHAPE)


@strawberry.type
class InvitationMutations:
    @requires(
        _MANAGE,
        description="Invite somebody by a letter whose link works for seven days. Inviting again sends a fresh link, "
        "voids the old, and says anew which roles it will be.",
    )
    async def invite_member(
        self,
        info: Info[Operation],
        email: Annotated[str, argument(_PERSON, "Where the invitation goes, and what one signs in with.")],
        name: Annotated[str, argument(_PERSON, "What the person is called; acceptInvitation may change it.")],
        roles: Annotated[list[Role], argument(_GRANT, "Built-in ones.")],
        own_roles: Annotated[list[strawberry.ID] | None, argument(_GRANT, "Of the tenant's own.")] = None,
    ) -> MemberPayload | None:
        unit, own = info.context.unit, [local_id("OwnRole", role) for role in own_roles or ()]
        try:
            invited = await invitations.invite(unit, email, name, roles, own)
        except Refused as refused:
            return MemberPayload(member=None, user_errors=user_errors(refused))
        for loader in ("held", "members"):  # what an earlier field of the operation read is old
            info.context.loaders.pop(loader, None)
        (member,) = await members.get_many(unit, [invited])
        return MemberPayload(member=cast(Member | None, member), user_errors=[])

    @requires(_MANAGE, description="Take an invitation back: the member to be is gone, and the link is void.")
    async def cancel_invitation(
        self,
        info: Info[Operation],
        id: Annotated[strawberry.ID, argument(Input(why="an id opens nothing by itself"), "The member to be.")],
    ) -> CancelInvitationPayload | None:
        try:
            await invitations.cancel(info.context.unit, local_id("Member", id))
        except Refused as refused:
            return CancelInvitationPayload(cancelled_id=None, user_errors=user_errors(refused))
        return CancelInvitationPayload(cancelled_id=id, user_errors=[])
