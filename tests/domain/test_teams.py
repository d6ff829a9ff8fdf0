"""Teams: names, bounds, who may widen them, and that rights which change meanwhile count."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from domain import teams
from domain.errors import Forbidden, Refused
from domain.paging import Window
from tenants.access import Grants, Level, Permission, Role, RoleSpec, Scope, Sensitivity
from tenants.viewers import Credential
from tests.house import House

READ, MANAGE = Permission.CUSTOMERS_READ, Permission.MEMBERS_MANAGE
MANAGES = Grants(frozenset({READ, MANAGE}))
PLAIN = Grants(frozenset({READ}), {Sensitivity.IDENTITY: Level.PLAIN})


@pytest.fixture
async def superuser(house: House) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(house.superuser_url)
    yield connection
    await connection.close()


async def act(house: House, who: Credential, change: Any, *arguments: Any) -> Any:
    async with house.api.units.enter(who.tenant, who.principal, write=True) as unit:
        return await change(unit, *arguments)


async def code(house: House, who: Credential, change: Any, *arguments: Any) -> str:
    """Of the refusal that must come."""
    with pytest.raises((Refused, Forbidden)) as caught:
        await act(house, who, change, *arguments)
    return caught.value.errors[0].code if isinstance(caught.value, Refused) else caught.value.code


async def members_of(superuser: asyncpg.Connection, team: UUID) -> set[UUID]:
    rows = await superuser.fetch("SELECT member_id FROM team_members WHERE team_id = $1", team)
    return {row["member_id"] for row in rows}


def owner(house: House, tenant: str = "acme") -> Credential:
    return house.members[tenant][Role.OWNER]


async def test_a_name_is_kept_with_single_spaces_and_is_nobody_elses(house: House) -> None:
    who, word = owner(house), uuid4().hex
    made = await act(house, who, teams.create, f"  Sales   {word} ")
    assert made.name == f"Sales {word}"
    assert await code(house, who, teams.create, f"SALES {word}") == "NAME_TAKEN"
    other = await act(house, who, teams.create, f"Support {word}")
    assert await code(house, who, teams.rename, other.id, f"sales {word}") == "NAME_TAKEN"
    assert (await act(house, who, teams.rename, made.id, f"SALES {word}")).name == f"SALES {word}"
    await act(house, owner(house, "globex"), teams.create, f"Sales {word}")


@pytest.mark.parametrize(
    ("name", "told"),
    [("", "REQUIRED"), (" ", "REQUIRED"), ("a" * 61, "INVALID"), ("a\x00b", "INVALID"), ("a\u202eb", "INVALID")],
)
async def test_a_name_that_is_none_is_refused(
    house: House, superuser: asyncpg.Connection, name: str, told: str
) -> None:
    before = await superuser.fetchval("SELECT count(*) FROM teams")
    assert await code(house, owner(house), teams.create, name) == told
    assert await superuser.fetchval("SELECT count(*) FROM teams") == before


async def test_a_tenant_has_so_many_teams(
    house: House, superuser: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant = await house.add_tenant(f"teams-{uuid4().hex[:8]}")
    monkeypatch.setattr(teams, "MOST_TEAMS", 1)
    await act(house, owner(house, tenant.slug), teams.create, "First")
    assert await code(house, owner(house, tenant.slug), teams.create, "Second") == "TOO_MANY"
    assert await superuser.fetchval("SELECT count(*) FROM teams WHERE tenant_id = $1", tenant.id) == 1


async def test_two_who_fill_a_team_at_once_do_not_overfill_it(
    house: House, superuser: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teams, "MOST_MEMBERS", 1)
    one, other, team = await house.add_member(), await house.add_member(), await house.add_team()
    who = owner(house)
    async with house.api.units.enter(who.tenant, who.principal, write=True) as unit:
        await teams.add_members(unit, team, [one.principal])
        second = asyncio.create_task(code(house, who, teams.add_members, team, [other.principal]))
        await waiting(superuser)
    assert await second == "TOO_MANY"
    assert await members_of(superuser, team) == {one.principal}


async def waiting(superuser: asyncpg.Connection) -> None:
    """Until somebody waits for a lock."""
    async with asyncio.timeout(10):
        while not await superuser.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):  # noqa: ASYNC110  # Postgres has no word for it
            await asyncio.sleep(0.005)


async def test_adding_and_removing_again_changes_nothing_more(house: House, superuser: asyncpg.Connection) -> None:
    who, team, member = owner(house), await house.add_team(), await house.add_member()
    for change in (teams.add_members, teams.remove_members):
        for _ in range(2):
            await act(house, who, change, team, [member.principal, member.principal])
    assert await members_of(superuser, team) == set()
    told = await superuser.fetch("SELECT type FROM events WHERE subject = $1 ORDER BY xid", member.principal)
    assert [row["type"] for row in told] == ["member.added", "team.member_added", "team.member_removed"]


async def test_the_log_says_who_came_into_which_team(house: House, superuser: asyncpg.Connection) -> None:
    team, member = await house.add_team(), await house.add_member()
    await act(house, owner(house), teams.add_members, team, [member.principal])
    (entry,) = await superuser.fetch(
        "SELECT * FROM audit_entries WHERE action = 'team.member_added' AND subjects = $1", [member.principal]
    )
    assert (entry["subject_type"], entry["details"]) == ("Member", f'{{"team": "{team}"}}')
    assert entry["actor"] == owner(house).principal


async def test_a_team_that_is_deleted_leaves_its_members(house: House, superuser: asyncpg.Connection) -> None:
    member = await house.add_member()
    team = await house.add_team(member)
    await act(house, owner(house), teams.erase, team)
    assert await members_of(superuser, team) == set()
    assert await superuser.fetchval("SELECT status FROM members WHERE id = $1", member.principal) == "ACTIVE"
    assert await code(house, owner(house), teams.erase, team) == "NOT_FOUND"


async def test_members_are_paged_in_the_order_of_their_coming(house: House) -> None:
    people = [await house.add_member() for _ in range(3)]
    team = await house.add_team(*reversed(people))
    async with house.api.units.enter(house.tenants["acme"].id, None, write=False) as unit:
        first = await teams.members(unit, team, Window(2))
        key = (first.nodes[-1].created_at, first.nodes[-1].id)
        second = await teams.members(unit, team, Window(2, after=key))
        assert await teams.count_members(unit, team) == 3
    assert [row.id for row in [*first.nodes, *second.nodes]] == [each.principal for each in people]
    assert (first.has_next, second.has_next) == (True, False)


# Who may widen a team


@pytest.mark.parametrize("scope", [Scope.TEAM, Scope.OWN])
async def test_who_does_not_read_all_customers_adds_nobody(
    house: House, superuser: asyncpg.Connection, scope: Scope
) -> None:
    who, mate = await house.add_member(RoleSpec(MANAGES, scope)), await house.add_member()
    team = await house.add_team(mate)
    for added in (who, await house.add_member()):
        assert await code(house, who, teams.add_members, team, [added.principal]) == "BEYOND_YOUR_RIGHTS"
    assert await members_of(superuser, team) == {mate.principal}
    await act(house, who, teams.remove_members, team, [mate.principal])


async def test_who_sees_more_of_team_mates_adds_no_mates_of_its_own(
    house: House, superuser: asyncpg.Connection
) -> None:
    who, other = await house.add_member(RoleSpec(MANAGES), RoleSpec(PLAIN, Scope.TEAM)), await house.add_member()
    strange, own = await house.add_team(other), await house.add_team(who)
    assert await code(house, who, teams.add_members, strange, [who.principal]) == "BEYOND_YOUR_RIGHTS"
    assert await code(house, who, teams.add_members, own, [other.principal]) == "BEYOND_YOUR_RIGHTS"
    assert (await members_of(superuser, strange), await members_of(superuser, own)) == (
        {other.principal},
        {who.principal},
    )
    third = await house.add_member()
    await act(house, who, teams.add_members, strange, [third.principal])
    assert await members_of(superuser, strange) == {other.principal, third.principal}


@pytest.mark.parametrize("change", [teams.add_members, teams.remove_members])
async def test_a_right_that_is_lost_before_the_change_counts_no_more(
    house: House, superuser: asyncpg.Connection, change: Any
) -> None:
    who, mate = await house.add_member(roles=[Role.ADMIN]), await house.add_member()
    team, added = await house.add_team(mate), await house.add_member()
    named = [added.principal] if change is teams.add_members else [mate.principal]
    async with house.api.units.enter(who.tenant, who.principal, write=True) as unit:
        await superuser.execute("DELETE FROM member_roles WHERE member_id = $1", who.principal)
        with pytest.raises(Forbidden):
            await change(unit, team, named)
    assert await members_of(superuser, team) == {mate.principal}


async def test_another_tenants_team_and_members_are_not_found(house: House, superuser: asyncpg.Connection) -> None:
    theirs, here = await house.add_member(tenant="globex"), await house.add_member()
    elsewhere, team = await house.add_team(theirs, tenant="globex"), await house.add_team()
    assert await code(house, owner(house), teams.add_members, elsewhere, [here.principal]) == "NOT_FOUND"
    assert await code(house, owner(house), teams.add_members, team, [theirs.principal]) == "NOT_FOUND"
    assert await code(house, owner(house), teams.rename, elsewhere, "Mine") == "NOT_FOUND"
    assert await code(house, owner(house), teams.erase, elsewhere) == "NOT_FOUND"
    assert (await members_of(superuser, elsewhere), await members_of(superuser, team)) == ({theirs.principal}, set())
