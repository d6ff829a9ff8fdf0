"""Teams over GraphQL: groups of members who, by a role of the scope TEAM, reach one another's customers."""

from collections.abc import Awaitable
from datetime import datetime
from typing import Annotated, Any, cast
from uuid import UUID

import strawberry
from strawberry import Info

from api.directives import Input, argument, public, requires
from api.members import Member, members_of
from api.operation import Operation
from api.paging import Connection, Node, UserError, cursor, global_id, local_id, user_errors, window
from domain import teams
from domain.errors import BadInput, Refused
from domain.members import MemberView
from domain.paging import Page
from domain.teams import MOST_AT_ONCE
from tenants import roles as tables
from tenants.access import Permission

_READ = Permission.MEMBERS_READ
_MANAGE = Permission.MEMBERS_MANAGE
_SHAPE = "the shape of a payload"
_LIST = "teams"
_FIRST = Annotated[int | None, argument(Input(why="a size"), "1 to 100; 20 unless told.")]
_CURSOR = Annotated[
    str | None, argument(Input(why="holds a moment and an id, under a MAC"), "An end or edge of the list.")
]


@strawberry.type(description="Members who work together.")
class Team(Node):
    name: str = requires(_READ)
    created_at: datetime = requires(_READ)

    @requires(_READ, description="Who is in it, in the order in which they came to the tenant.")
    async def members(
        self: Any,
        info: Info[Operation],
        first: _FIRST = None,
        after: _CURSOR = None,
        last: _FIRST = None,
        before: _CURSOR = None,
    ) -> Connection[Member]:
        unit, team = info.context.unit, self.id
        order = f"members of {team}"
        found = await teams.members(unit, team, window(unit, order, first, after, last, before))
        since = {row.id: row.created_at for row in found.nodes}
        views = await members_of(info.context).load_many(list(since))

        def cursor_of(view: MemberView) -> str:
            return cursor(unit, order, (since[view.id], view.id))

        page = Page(views, found.has_next, found.has_previous)
        return Connection(page=page, cursor_of=cursor_of, count=lambda: teams.count_members(unit, team))

    @classmethod
    def is_type_of(cls, value: object, _info: Any) -> bool:
        return isinstance(value, tables.Team)


@strawberry.type
class TeamPayload:
    team: Team | None = public(_SHAPE)
    user_errors: list[UserError] = public(_SHAPE)


@strawberry.type
class DeleteTeamPayload:
    deleted_id: strawberry.ID | None = public(_SHAPE)
    user_errors: list[UserError] = public(_SHAPE)


_ID = Annotated[strawberry.ID, argument(Input(why="an id opens nothing by itself"), "The team's.")]
_NAME = Annotated[str, argument(Input(why="a word for a group, no person's"), "1 to 60 characters; unique.")]
_MEMBERS = Annotated[
    list[strawberry.ID], argument(Input(why="an id opens nothing by itself"), f"1 to {MOST_AT_ONCE} members.")
]


@strawberry.type
class TeamQueries:
    @requires(_READ, description="All teams, oldest first; a tenant has at most 500.")
    async def teams(
        self,
        info: Info[Operation],
        first: _FIRST = None,
        after: _CURSOR = None,
        last: _FIRST = None,
        before: _CURSOR = None,
    ) -> Connection[Team] | None:
        unit = info.context.unit

        def cursor_of(team: tables.Team) -> str:
            return cursor(unit, _LIST, (team.created_at, team.id))

        found = await teams.page(unit, window(unit, _LIST, first, after, last, before))
        return Connection(page=found, cursor_of=cursor_of, count=lambda: teams.count(unit))


@strawberry.type
class TeamMutations:
    @requires(_MANAGE, description="Make a team, with nobody in it yet.")
    async def create_team(self, info: Info[Operation], name: _NAME) -> TeamPayload | None:
        return await _answered(teams.create(info.context.unit, name))

    @requires(_MANAGE, description="Give a team another name; nothing else changes.")
    async def rename_team(self, info: Info[Operation], id: _ID, name: _NAME) -> TeamPayload | None:
        return await _answered(teams.rename(info.context.unit, local_id("Team", id), name))

    @requires(_MANAGE, description="Its members stay; they no longer reach one another's customers by it.")
    async def delete_team(self, info: Info[Operation], id: _ID) -> DeleteTeamPayload | None:
        team = local_id("Team", id)
        try:
            await teams.erase(info.context.unit, team)
        except Refused as refused:
            return DeleteTeamPayload(deleted_id=None, user_errors=user_errors(refused))
        return DeleteTeamPayload(deleted_id=global_id("Team", team), user_errors=[])

    @requires(
        _MANAGE,
        description="A team has at most 1,000 members. This widens what they reach: it takes reading all customers.",
    )
    async def add_team_members(self, info: Info[Operation], team: _ID, members: _MEMBERS) -> TeamPayload | None:
        named = _members(members)
        return await _answered(teams.add_members(info.context.unit, local_id("Team", team), named), "team")

    @requires(_MANAGE, description="Take members out of a team; whoever is not in it is passed over.")
    async def remove_team_members(self, info: Info[Operation], team: _ID, members: _MEMBERS) -> TeamPayload | None:
        named = _members(members)
        return await _answered(teams.remove_members(info.context.unit, local_id("Team", team), named), "team")


async def _answered(change: Awaitable[tables.Team], argument_: str = "id") -> TeamPayload:
    """`argument_` is the one that names the team."""
    try:
        return TeamPayload(team=cast(Team, await change), user_errors=[])
    except Refused as refused:
        errors = [
            UserError(code=e.code, path=[argument_] if e.path == ["id"] else e.path, message=e.message)
            for e in user_errors(refused)
        ]
        return TeamPayload(team=None, user_errors=errors)


def _members(ids: list[strawberry.ID]) -> list[UUID]:
    if not 1 <= len(ids) <= MOST_AT_ONCE:
        raise BadInput(f"`members` has 1 to {MOST_AT_ONCE} ids.")
    return [local_id("Member", id) for id in ids]
