"""Teams over GraphQL: who reads and who changes them, and what a change does to what members reach."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from api.paging import global_id
from tenants.access import Grants, Level, Permission, Role, RoleSpec, Scope, Sensitivity
from tenants.viewers import Credential
from tests.house import House

CREATE = "mutation($n: String!) { at: createTeam(name: $n) { team { id name createdAt } userErrors { code path } } }"
RENAME = (
    "mutation($t: ID!, $n: String!) { at: renameTeam(id: $t, name: $n) { team { name } userErrors { code path } } }"
)
DELETE = "mutation($t: ID!) { at: deleteTeam(id: $t) { deletedId userErrors { code path } } }"
ADD = """mutation($t: ID!, $m: [ID!]!) { at: addTeamMembers(team: $t, members: $m)
    { team { members { totalCount nodes { id } } } userErrors { code path } } }"""
REMOVE = ADD.replace("addTeamMembers", "removeTeamMembers")
TEAM = """query($t: ID!) { at: node(id: $t) { ... on Team { id name createdAt members(first: 50)
    { totalCount nodes { id name email } } } } }"""
MANAGERS = {Role.OWNER, Role.ADMIN}
READERS = {Role.OWNER, Role.ADMIN, Role.MANAGER, Role.AUDITOR}


@pytest.fixture
async def superuser(house: House) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(house.superuser_url)
    yield connection
    await connection.close()


def id_of(member: Credential) -> str:
    return global_id("Member", member.principal)


async def teams_of(superuser: asyncpg.Connection) -> list[Any]:
    statement = "SELECT id, name, ARRAY(SELECT member_id FROM team_members WHERE team_id = teams.id) FROM teams"
    return sorted(tuple(row) for row in await superuser.fetch(statement))


async def test_a_team_is_made_named_filled_and_deleted(house: House) -> None:
    word, member = uuid4().hex, await house.add_member()
    made = (await house.data(CREATE, {"n": f"Sales {word}"}))["at"]["team"]
    team = {"t": made["id"]}
    renamed = await house.data(RENAME, {**team, "n": f"Support {word}"})
    added = await house.data(ADD, {**team, "m": [id_of(member)]})
    assert renamed["at"] == {"team": {"name": f"Support {word}"}, "userErrors": []}
    assert added["at"]["team"]["members"] == {"totalCount": 1, "nodes": [{"id": id_of(member)}]}
    removed = await house.data(REMOVE, {**team, "m": [id_of(member)]})
    assert removed["at"]["team"]["members"] == {"totalCount": 0, "nodes": []}
    assert (await house.data(DELETE, team))["at"] == {"deletedId": made["id"], "userErrors": []}
    assert (await house.data(TEAM, team))["at"] is None


@pytest.mark.parametrize("role", sorted(set(Role) - MANAGERS))
async def test_who_does_not_manage_members_changes_no_team(
    house: House, superuser: asyncpg.Connection, role: Role
) -> None:
    member = await house.add_member()
    team = global_id("Team", await house.add_team(member))
    before = await teams_of(superuser)
    for document in (CREATE, RENAME, DELETE, ADD, REMOVE):
        variables = {"t": team, "n": uuid4().hex, "m": [id_of(house.members["acme"][role])]}
        answer = await house.ask(document, {k: v for k, v in variables.items() if f"${k}:" in document}, role=role)
        assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"
        assert answer["data"] == {"at": None}
    assert await teams_of(superuser) == before


@pytest.mark.parametrize("role", Role)
async def test_teams_are_read_by_who_reads_members(house: House, role: Role) -> None:
    member = await house.add_member()
    team = global_id("Team", await house.add_team(member))
    found = (await house.ask(TEAM, {"t": team}, role=role))["data"]["at"]
    listed = await house.ask("{ teams(last: 1) { totalCount nodes { id } } }", role=role)
    if role in READERS:
        assert [node["id"] for node in found["members"]["nodes"]] == [id_of(member)]
        assert listed["data"]["teams"]["totalCount"] >= 1
    else:
        assert found is None
        assert listed["errors"][0]["extensions"]["code"] == "FORBIDDEN"


@pytest.mark.parametrize(("role", "name"), [(Role.OWNER, "Scoped"), (Role.ADMIN, "S."), (Role.AUDITOR, "S.")])
async def test_members_of_a_team_are_shown_at_the_viewers_level(house: House, role: Role, name: str) -> None:
    team = global_id("Team", await house.add_team(await house.add_member()))
    found = (await house.data(TEAM, {"t": team}, role=role))["at"]
    assert [node["name"] for node in found["members"]["nodes"]] == [name]


async def test_teams_are_paged_oldest_first(house: House) -> None:
    tenant = await house.add_tenant(f"paged-{uuid4().hex[:8]}")
    made = [global_id("Team", await house.add_team(tenant=tenant.slug)) for _ in range(3)]
    page = "query($a: String) { teams(first: 2, after: $a) { totalCount nodes { id } pageInfo { endCursor } } }"
    first = (await house.data(page, tenant=tenant.slug))["teams"]
    second = (await house.data(page, {"a": first["pageInfo"]["endCursor"]}, tenant=tenant.slug))["teams"]
    assert [node["id"] for node in [*first["nodes"], *second["nodes"]]] == made
    assert first["totalCount"] == 3


async def test_a_cursor_of_one_teams_members_is_none_of_anothers(house: House) -> None:
    member = await house.add_member()
    one, other = [global_id("Team", await house.add_team(member)) for _ in range(2)]
    page = """query($t: ID!, $a: String) { node(id: $t) { ... on Team {
        members(after: $a) { nodes { id } pageInfo { endCursor } } } } }"""
    end = (await house.data(page, {"t": one}))["node"]["members"]["pageInfo"]["endCursor"]
    assert (await house.data(page, {"t": one, "a": end}))["node"]["members"]["nodes"] == []
    answer = await house.ask(page, {"t": other, "a": end})
    assert answer["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"


async def test_another_tenants_team_is_not_found(house: House, superuser: asyncpg.Connection) -> None:
    team = global_id("Team", await house.add_team(tenant="globex"))
    before = await teams_of(superuser)
    assert (await house.data(TEAM, {"t": team}))["at"] is None
    not_found = [{"code": "NOT_FOUND", "path": ["id"]}]
    assert (await house.data(RENAME, {"t": team, "n": "Mine"}))["at"]["userErrors"] == not_found
    assert (await house.data(DELETE, {"t": team}))["at"]["userErrors"] == not_found
    added = await house.data(ADD, {"t": team, "m": [id_of(house.members["acme"][Role.AGENT])]})
    assert added["at"]["userErrors"] == [{"code": "NOT_FOUND", "path": ["team"]}]
    assert await teams_of(superuser) == before


async def test_an_error_names_the_member_that_is_not_there(house: House) -> None:
    team, here = global_id("Team", await house.add_team()), id_of(house.members["acme"][Role.AGENT])
    elsewhere = id_of(house.members["globex"][Role.AGENT])
    answer = await house.data(ADD, {"t": team, "m": [here, elsewhere, global_id("Member", UUID(int=7))]})
    wanted = [{"code": "NOT_FOUND", "path": ["members", place]} for place in ("1", "2")]
    assert answer["at"] == {"team": None, "userErrors": wanted}
    assert (await house.data(TEAM, {"t": team}))["at"]["members"]["totalCount"] == 0


async def test_joining_and_leaving_a_team_shows_on_the_next_request(house: House) -> None:
    sees = Grants(frozenset({Permission.CUSTOMERS_READ}), {Sensitivity.IDENTITY: Level.PLAIN})
    viewer, mate = await house.add_member(RoleSpec(sees, Scope.TEAM)), await house.add_member()
    customer = (await house.create(givenName="Ada", ownerId=id_of(mate)))["id"]
    team = {"t": global_id("Team", await house.add_team(mate)), "m": [id_of(viewer)]}
    read, seen = "query($i: ID!) { node(id: $i) { ... on Customer { givenName } } }", []
    for change in (None, ADD, REMOVE, ADD):
        if change:
            assert (await house.data(change, team, role=Role.ADMIN))["at"]["userErrors"] == []
        seen.append((await house.data(read, {"i": customer}, member=viewer))["node"])
    assert seen == [None, {"givenName": "Ada"}, None, {"givenName": "Ada"}]
    await house.data(DELETE, {"t": team["t"]}, role=Role.ADMIN)
    assert (await house.data(read, {"i": customer}, member=viewer))["node"] is None


async def test_who_reaches_only_a_team_widens_none(house: House, superuser: asyncpg.Connection) -> None:
    rights = frozenset({Permission.CUSTOMERS_READ, Permission.MEMBERS_MANAGE, Permission.MEMBERS_READ})
    who = await house.add_member(RoleSpec(Grants(rights), Scope.TEAM))
    team = global_id("Team", await house.add_team(await house.add_member()))
    before = await teams_of(superuser)
    payload = (await house.data(ADD, {"t": team, "m": [id_of(who)]}, member=who))["at"]
    assert payload == {"team": None, "userErrors": [{"code": "BEYOND_YOUR_RIGHTS", "path": ["members"]}]}
    assert await teams_of(superuser) == before
