"""Teams: flat groups of members; whoever has a role of the scope TEAM reaches the customers of its team mates.

Whoever adds members to a team widens what they reach, so it takes more than the permission: see `_refuse_beyond`.
"""

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, delete, func, insert, select

from domain import normalise, required
from domain.customers.covering import covers
from domain.errors import Forbidden, Refused, UserError
from domain.granting import BEYOND
from domain.normalise import Invalid
from domain.paging import Page, Window, cut, windowed
from tenants.access import Access, Permission, Relation
from tenants.events import EventKind
from tenants.ids import new_id
from tenants.members import Member
from tenants.rights import hold_still
from tenants.roles import Team, TeamMember
from tenants.unit import Unit

MOST_TEAMS = 500
MOST_MEMBERS = 1_000
MOST_AT_ONCE = 100
_LONGEST = 60
CREATED = EventKind("team.created", "Team", "A team was made.")
RENAMED = EventKind("team.renamed", "Team", "A team has another name.", frozenset({"name"}))
DELETED = EventKind("team.deleted", "Team", "A team is gone; its members stay.")
MEMBER_ADDED = EventKind("team.member_added", "Member", "A member came into a team.")
MEMBER_REMOVED = EventKind("team.member_removed", "Member", "A member is no longer in a team.")
_NOT_THERE = UserError("NOT_FOUND", ("id",), "There is no team of that id.")


async def page(unit: Unit, window: Window) -> Page[Team]:
    """Oldest first."""
    statement = windowed(_all(unit), (Team.created_at, Team.id), window, descending=False)
    return Page(*cut(await unit.scalars(statement), window))


async def count(unit: Unit) -> int:
    return int((await unit.scalars(select(func.count()).where(Team.tenant_id == unit.tenant.id)))[0])


async def get_many(unit: Unit, teams: Collection[UUID]) -> dict[UUID, Team]:
    """By id, without those that are not there."""
    return {team.id: team for team in await unit.scalars(_all(unit).where(Team.id.in_(set(teams))))}


async def members(unit: Unit, team: UUID, window: Window) -> Page[Row[Any]]:
    """Rows with `id` and `created_at` of the team's members, in the order in which they came to the tenant."""
    shown: list[Any] = [Member.id, Member.created_at]
    statement = (
        select(*shown)
        .join(TeamMember, (TeamMember.tenant_id == Member.tenant_id) & (TeamMember.member_id == Member.id))
        .where(*_of(unit, team))
    )
    statement = windowed(statement, (Member.created_at, Member.id), window, descending=False)
    return Page(*cut(await unit.rows(statement), window))


async def count_members(unit: Unit, team: UUID) -> int:
    return int((await unit.scalars(select(func.count()).where(*_of(unit, team))))[0])


async def create(unit: Unit, name: str) -> Team:
    """Raises `Refused`: REQUIRED, INVALID, NAME_TAKEN, TOO_MANY."""
    kept = required.one(("name",), name, _name)
    _check(await hold_still(unit))
    if await count(unit) >= MOST_TEAMS:
        raise Refused([UserError("TOO_MANY", ("name",), f"A tenant has at most {MOST_TEAMS} teams.")])
    await _refuse_taken(unit, kept)
    team = Team(tenant_id=unit.tenant.id, id=new_id(), name=kept, created_at=unit.now)
    unit.add(team)
    await unit.flush()
    unit.publish(CREATED, [team.id])
    return team


async def rename(unit: Unit, team: UUID, name: str) -> Team:
    """Raises `Refused`: REQUIRED, INVALID, NAME_TAKEN, NOT_FOUND."""
    kept = required.one(("name",), name, _name)
    _check(await hold_still(unit))
    row = await _get(unit, team)
    if row.name != kept:
        await _refuse_taken(unit, kept, but=team)
        row.name = kept
        await unit.flush()
        unit.publish(RENAMED, [team], ["name"])
    return row


async def erase(unit: Unit, team: UUID) -> None:
    """Raises `Refused`: NOT_FOUND."""
    _check(await hold_still(unit))
    await _get(unit, team)
    await unit.run(delete(Team).where(Team.tenant_id == unit.tenant.id, Team.id == team))
    unit.publish(DELETED, [team])


async def add_members(unit: Unit, team: UUID, added: Sequence[UUID]) -> Team:
    """Those who are in it already stay so. Raises `Refused`: NOT_FOUND, TOO_MANY, BEYOND_YOUR_RIGHTS."""
    now = await hold_still(unit)
    _check(now)
    row, present = await _get(unit, team), await _members_of(unit, team)
    await _refuse_unknown(unit, added)
    fresh = [member for member in dict.fromkeys(added) if member not in present]
    _refuse_beyond(now, is_own=unit.viewer.principal in {*present, *fresh})
    if len(present) + len(fresh) > MOST_MEMBERS:
        raise Refused([UserError("TOO_MANY", ("members",), f"A team has at most {MOST_MEMBERS} members.")])
    if fresh:
        rows = [{"tenant_id": unit.tenant.id, "team_id": team, "member_id": member} for member in fresh]
        await unit.run(insert(TeamMember), rows)
        unit.publish(MEMBER_ADDED, fresh, details={"team": str(team)})
    return row


async def remove_members(unit: Unit, team: UUID, removed: Sequence[UUID]) -> Team:
    """Who is not in it stays out. Raises `Refused`: NOT_FOUND."""
    _check(await hold_still(unit))
    row = await _get(unit, team)
    going = await _members_of(unit, team) & set(removed)
    if going:
        await unit.run(delete(TeamMember).where(*_of(unit, team), TeamMember.member_id.in_(going)))
        unit.publish(MEMBER_REMOVED, sorted(going), details={"team": str(team)})
    return row


def _check(now: Access) -> None:
    """The guard asked this of what was true when the operation began."""
    if Permission.MEMBERS_MANAGE not in now.on[Relation.NONE].permissions:
        raise Forbidden(f"This needs the permission {Permission.MEMBERS_MANAGE}.")


def _refuse_beyond(now: Access, *, is_own: bool) -> None:
    """Only who reads all customers may let others reach more; and who may see more of team mates' customers than of
    all others, gets no more team mates by its own hand.
    """
    anybodys, mates = now.on[Relation.OTHER], now.on[Relation.TEAM]
    if Permission.CUSTOMERS_READ in anybodys.permissions and (not is_own or covers(anybodys, mates)):
        return
    sentence = "The team would reach more customers than you do by yourself; let somebody do it who reaches them all."
    raise Refused([UserError(BEYOND, ("members",), sentence)])


async def _refuse_taken(unit: Unit, name: str, but: UUID | None = None) -> None:
    present = await unit.rows(select(Team.id, Team.name).where(Team.tenant_id == unit.tenant.id))
    if any(row.name.casefold() == name.casefold() and row.id != but for row in present):
        raise Refused([UserError("NAME_TAKEN", ("name",), "A team of that name exists already.")])


async def _refuse_unknown(unit: Unit, named: Sequence[UUID]) -> None:
    known = select(Member.id).where(Member.tenant_id == unit.tenant.id, Member.id.in_(set(named)))
    found = set(await unit.scalars(known))
    errors = [
        UserError("NOT_FOUND", ("members", place), f"members.{place} is no member's id.")
        for place, member in enumerate(named)
        if member not in found
    ]
    if errors:
        raise Refused(errors)


async def _get(unit: Unit, team: UUID) -> Team:
    found = await get_many(unit, [team])
    if not found:
        raise Refused([_NOT_THERE])
    return found[team]


async def _members_of(unit: Unit, team: UUID) -> set[UUID]:
    return set(await unit.scalars(select(TeamMember.member_id).where(*_of(unit, team))))


def _name(text: str) -> str:
    kept = normalise.name(text)
    if len(kept) > _LONGEST:
        raise Invalid(f"is longer than {_LONGEST} characters")
    return kept


def _all(unit: Unit) -> Select[Any]:
    return select(Team).where(Team.tenant_id == unit.tenant.id)


def _of(unit: Unit, team: UUID) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return TeamMember.tenant_id == unit.tenant.id, TeamMember.team_id == team
