"""Members looked after over GraphQL: listed, given roles, shut out and let in; nobody gives beyond their own."""

import asyncio
from datetime import datetime
from typing import Any
from uuid import uuid4

import asyncpg
import orjson
import pytest

from api.paging import global_id
from tenants import members
from tenants.access import BUILT_IN, Role
from tenants.signing_in import sessions
from tenants.signing_in.sessions import Method
from tenants.viewers import Credential
from tests.api.staff import (
    DISABLE,
    ENABLE,
    SERVICE,
    SET,
    ask,
    done,
    held,
    id_of,
    join,
    local,
    make_role,
    refused,
)
from tests.house import House

GUILD = "chapter"  # a tenant whose members come and go
LIST = """query($status: MemberStatus, $kind: MemberKind, $role: Role, $own: ID, $first: Int, $after: String) {
  at: members(status: $status, kind: $kind, role: $role, ownRole: $own, first: $first, after: $after) {
    totalCount pageInfo { endCursor hasNextPage }
    nodes { id name email status kind createdAt roles ownRoles { id name } } } }"""
ME = "{ me { roles permissions ownRoles { name } } }"


@pytest.fixture(scope="module")
async def owner(house: House) -> Credential:
    await house.add_tenant(GUILD)
    return house.members[GUILD][Role.OWNER]


@pytest.fixture
async def admin(house: House, owner: Credential) -> Credential:
    return await join(house, GUILD, [Role.ADMIN])


async def superuser(house: House, statement: str, *arguments: Any) -> list[Any]:
    connection = await asyncpg.connect(house.superuser_url)
    try:
        return list(await connection.fetch(statement, *arguments))
    finally:
        await connection.close()


async def code_of(house: House, who: Credential) -> str | None:
    """What a request of that member is answered with; None where it is served."""
    answer = await ask(house, who, ME)
    return answer["errors"][0]["extensions"]["code"] if "errors" in answer else None


async def test_a_listed_member_tells_who_it_is_and_what_it_may(house: House, owner: Credential) -> None:
    role = await make_role(house, owner)
    who = await join(house, GUILD, [Role.AGENT, Role.ANALYST], [role["id"]])
    page = await done(house, owner, LIST, own=role["id"])
    (node,) = page["nodes"]
    assert (page["totalCount"], node["id"], node["name"]) == (1, id_of(who), "Grace Hopper")
    assert (node["status"], node["kind"], node["roles"]) == ("ACTIVE", "PERSON", ["AGENT", "ANALYST"])
    assert node["ownRoles"] == [{"id": role["id"], "name": role["name"]}]


async def test_a_list_shows_names_by_the_viewers_level(house: House, owner: Credential) -> None:
    who = await join(house, GUILD, [Role.ANALYST])
    nodes = (await done(house, house.members[GUILD][Role.AUDITOR], LIST, role="ANALYST", first=100))["nodes"]
    (found,) = [node for node in nodes if node["id"] == id_of(who)]
    assert (found["name"], found["email"][1:]) == ("G. H.", "***@e***.org")


async def test_a_list_is_filtered_and_paged(house: House, owner: Credential) -> None:
    role = await make_role(house, owner)
    made = [await join(house, GUILD, own=[role["id"]], kind=kind) for kind in ["PERSON", "SERVICE"] * 2]
    await done(house, owner, DISABLE, id=id_of(made[2]))
    assert [n["id"] for n in (await done(house, owner, LIST, own=role["id"], kind="SERVICE"))["nodes"]] == [
        id_of(made[1]),
        id_of(made[3]),
    ]
    assert [n["id"] for n in (await done(house, owner, LIST, own=role["id"], status="DISABLED"))["nodes"]] == [
        id_of(made[2])
    ]
    first = await done(house, owner, LIST, own=role["id"], first=3)
    rest = await done(house, owner, LIST, own=role["id"], first=3, after=first["pageInfo"]["endCursor"])
    assert [n["id"] for n in first["nodes"] + rest["nodes"]] == [id_of(each) for each in made]
    assert (first["totalCount"], first["pageInfo"]["hasNextPage"]) == (4, True)


@pytest.mark.parametrize("role", [Role.AGENT, Role.ANALYST, Role.INTEGRATION])
async def test_who_may_not_read_members_reads_neither_list_nor_roles(
    house: House, owner: Credential, role: Role
) -> None:
    who = house.members[GUILD][role]
    node = "query($id: ID!) { at: node(id: $id) { id ... on Member { roles } } }"
    assert await refused(house, who, LIST) == ["FORBIDDEN"]
    assert await refused(house, who, node, id=id_of(owner)) == ["FORBIDDEN"]


async def test_other_tenants_members_are_not_listed(house: House, owner: Credential) -> None:
    mine = {node["id"] for node in (await done(house, owner, LIST, first=100))["nodes"]}
    theirs = {id_of(each) for each in house.members["acme"].values()}
    assert not mine & theirs


async def test_given_roles_act_on_the_next_request(house: House, owner: Credential) -> None:
    role = await make_role(house, owner, permissions=["JOBS_READ"])
    who = await join(house, GUILD, [Role.ANALYST])
    before = await ask(house, who, ME)
    given = await done(house, owner, SET, id=id_of(who), roles=["AGENT"], own=[role["id"]])
    after = (await ask(house, who, ME))["data"]["me"]
    assert given == {
        "member": {"id": id_of(who), "roles": ["AGENT"], "ownRoles": [{"id": role["id"]}]},
        "userErrors": [],
    }
    assert "ANALYTICS_READ" in before["data"]["me"]["permissions"]
    assert after["permissions"] == sorted({"JOBS_READ", *BUILT_IN[Role.AGENT].permissions})
    assert after["ownRoles"] == [{"name": role["name"]}]


async def test_taken_roles_are_gone_on_the_next_request(house: House, owner: Credential) -> None:
    role = await make_role(house, owner, permissions=["JOBS_READ"])
    who = await join(house, GUILD, [Role.AGENT], [role["id"]])
    assert (await ask(house, who, ME))["data"]["me"]["permissions"]
    await done(house, owner, SET, id=id_of(who), roles=[], own=[])
    assert (await ask(house, who, ME))["data"]["me"] == {"roles": [], "permissions": [], "ownRoles": []}


async def test_an_operation_answers_with_the_roles_after_each_of_its_changes(house: House, owner: Credential) -> None:
    who = await join(house, GUILD)
    twice = """mutation($id: ID!) {
      one: setMemberRoles(id: $id, roles: [AGENT], ownRoles: []) { member { roles } }
      two: setMemberRoles(id: $id, roles: [ANALYST], ownRoles: []) { member { roles } } }"""
    data = (await ask(house, owner, twice, id=id_of(who)))["data"]
    assert [data[each]["member"]["roles"] for each in ("one", "two")] == [["AGENT"], ["ANALYST"]]


async def test_a_disabled_member_is_shut_out_and_its_sessions_end(house: House, owner: Credential) -> None:
    who = await join(house, GUILD, [Role.AGENT])
    async with house.api.units.enter(who.tenant, None, write=True) as unit:
        under = await sessions.begin(unit, who.principal, Method.PASSWORD)
    assert (await done(house, owner, DISABLE, id=id_of(who)))["member"]["status"] == "DISABLED"
    assert await code_of(house, who) == "UNAUTHENTICATED"
    (session,) = await superuser(house, "SELECT * FROM member_sessions WHERE id = $1", under.session)
    assert (session["ended_at"] is not None, session["ended_why"]) == (True, "MEMBER_DISABLED")


async def test_an_enabled_member_is_served_again_but_not_by_an_old_session(house: House, owner: Credential) -> None:
    who = await join(house, GUILD, [Role.AGENT])
    async with house.api.units.enter(who.tenant, None, write=True) as unit:
        under = await sessions.begin(unit, who.principal, Method.PASSWORD)
    await done(house, owner, DISABLE, id=id_of(who))
    assert (await done(house, owner, ENABLE, id=id_of(who)))["member"]["status"] == "ACTIVE"
    assert await code_of(house, who) is None
    assert await code_of(house, under) == "UNAUTHENTICATED"


async def test_what_is_done_to_members_is_recorded_once_by_name(house: House, owner: Credential) -> None:
    who = await join(house, GUILD, [Role.AGENT])
    role = await make_role(house, owner)
    for own in ([role["id"]], [role["id"]]):
        await done(house, owner, SET, id=id_of(who), roles=["AGENT"], own=own)
    for act in (DISABLE, DISABLE, ENABLE, ENABLE):
        await done(house, owner, act, id=id_of(who))
    wanted = "SELECT * FROM audit_entries WHERE $1 = ANY(subjects) AND actor = $2 ORDER BY xid, id"
    entries = await superuser(house, wanted, who.principal, owner.principal)
    assert [(entry["action"], entry["fields"]) for entry in entries] == [
        ("member.roles_changed", ["ownRoles"]),
        ("member.disabled", []),
        ("member.enabled", []),
    ]
    assert orjson.loads(entries[0]["details"]) == {"given": str(local(role["id"])), "taken": ""}
    told = await superuser(house, "SELECT type FROM events WHERE subject = $1 AND actor IS NOT NULL", who.principal)
    assert {event["type"] for event in told} == {entry["action"] for entry in entries}


async def unchanged(house: House, asked: Credential, target: Credential, document: str, **what: Any) -> list[str]:
    """The codes of a refusal after which the target holds what it held."""
    before = await held(house, target)
    codes = await refused(house, asked, document, id=id_of(target), **what)
    assert await held(house, target) == before
    return codes


MORE_THAN_ADMIN = [Role.OWNER, Role.MANAGER, Role.AGENT, Role.ANALYST, Role.AUDITOR, Role.INTEGRATION]


@pytest.mark.parametrize("role", MORE_THAN_ADMIN)
async def test_nobody_gives_themselves_more_than_they_have(house: House, admin: Credential, role: Role) -> None:
    codes = await unchanged(house, admin, admin, SET, roles=["ADMIN", role], own=[])
    assert codes == ["BEYOND_YOUR_RIGHTS"]


@pytest.mark.parametrize("kind", ["PERSON", "SERVICE"])
@pytest.mark.parametrize("role", MORE_THAN_ADMIN)
async def test_nobody_gives_others_more_than_they_have(house: House, admin: Credential, role: Role, kind: str) -> None:
    target = await join(house, GUILD, kind=kind)
    assert await unchanged(house, admin, target, SET, roles=[role], own=[]) == ["BEYOND_YOUR_RIGHTS"]


@pytest.mark.parametrize("kind", ["PERSON", "SERVICE"])
async def test_nobody_gives_a_role_of_the_tenants_own_that_is_more_than_they_have(
    house: House, owner: Credential, admin: Credential, kind: str
) -> None:
    target, role = await join(house, GUILD, kind=kind), await make_role(house, owner, writes=["BIRTH"])
    for who in (target, admin):
        roles = sorted((await held(house, who)).roles)
        assert await unchanged(house, admin, who, SET, roles=roles, own=[role["id"]]) == ["BEYOND_YOUR_RIGHTS"]


async def test_who_has_it_may_give_it(house: House, owner: Credential, admin: Credential) -> None:
    target, role = await join(house, GUILD, kind=SERVICE), await make_role(house, admin, permissions=["JOBS_READ"])
    given = await done(house, admin, SET, id=id_of(target), roles=["ADMIN"], own=[role["id"]])
    assert given["member"]["roles"] == ["ADMIN"]
    assert (await held(house, target)).own_roles == {local(role["id"])}


async def test_a_member_has_so_many_roles_and_no_more(house: House, owner: Credential) -> None:
    target, role = await join(house, GUILD), await make_role(house, owner)
    assert await unchanged(house, owner, target, SET, roles=[], own=[role["id"]] * 21) == ["TOO_MANY"]


async def test_an_owner_may_give_single_fields(house: House, owner: Credential) -> None:
    fields = {"fields": [{"field": "birthDate", "level": "PLAIN"}], "fieldWrites": ["birthDate"]}
    target, role = await join(house, GUILD), await make_role(house, owner, **fields)
    assert (await done(house, owner, SET, id=id_of(target), roles=[], own=[role["id"]]))["userErrors"] == []


async def test_roles_beyond_the_givers_own_may_stay_but_not_come_back(
    house: House, owner: Credential, admin: Credential
) -> None:
    big = await make_role(house, owner, writes=["BIRTH"])
    target = await join(house, GUILD, [Role.MANAGER], [big["id"]])
    kept = await done(house, admin, SET, id=id_of(target), roles=["MANAGER", "ADMIN"], own=[big["id"]])
    assert kept["userErrors"] == []
    taken = await done(house, admin, SET, id=id_of(target), roles=["ADMIN"], own=[])
    assert taken["member"]["roles"] == ["ADMIN"]
    assert await unchanged(house, admin, target, SET, roles=["MANAGER"], own=[]) == ["BEYOND_YOUR_RIGHTS"]
    assert await unchanged(house, admin, target, SET, roles=[], own=[big["id"]]) == ["BEYOND_YOUR_RIGHTS"]


async def test_only_an_owner_unmakes_or_shuts_out_an_owner(house: House, admin: Credential) -> None:
    other = await join(house, GUILD, [Role.OWNER])
    assert await unchanged(house, admin, other, SET, roles=[], own=[]) == ["FORBIDDEN"]
    assert await unchanged(house, admin, other, DISABLE) == ["FORBIDDEN"]


async def test_to_let_somebody_in_again_is_to_give_all_they_have(
    house: House, owner: Credential, admin: Credential
) -> None:
    big = await make_role(house, owner, writes=["BIRTH"])
    for target in (await join(house, GUILD, [Role.OWNER]), await join(house, GUILD, own=[big["id"]])):
        await done(house, owner, DISABLE, id=id_of(target))
        assert await unchanged(house, admin, target, ENABLE) == ["BEYOND_YOUR_RIGHTS"]
        assert await code_of(house, target) == "UNAUTHENTICATED"


@pytest.mark.parametrize("role", [Role.MANAGER, Role.AGENT, Role.AUDITOR, Role.INTEGRATION])
async def test_only_who_manages_members_does_this(house: House, owner: Credential, role: Role) -> None:
    who, target = house.members[GUILD][role], await join(house, GUILD, [Role.ANALYST])
    assert await unchanged(house, who, target, SET, roles=[], own=[]) == ["FORBIDDEN"]
    assert await unchanged(house, who, target, DISABLE) == ["FORBIDDEN"]
    assert await unchanged(house, who, target, ENABLE) == ["FORBIDDEN"]


@pytest.mark.parametrize(("document", "what"), [(SET, {"roles": [], "own": []}), (DISABLE, {}), (ENABLE, {})])
async def test_another_tenants_member_is_not_there(
    house: House, owner: Credential, document: str, what: dict[str, Any]
) -> None:
    theirs = house.members["acme"][Role.AGENT]
    assert await unchanged(house, owner, theirs, document, **what) == ["NOT_FOUND"]
    absent = await ask(house, owner, document, id=global_id("Member", uuid4()), **what)
    assert (await ask(house, owner, document, id=id_of(theirs), **what))["data"] == absent["data"]


async def test_another_tenants_role_is_not_given(house: House, owner: Credential) -> None:
    role, target = await make_role(house, house.members["acme"][Role.OWNER]), await join(house, GUILD)
    assert await unchanged(house, owner, target, SET, roles=[], own=[role["id"]]) == ["NOT_FOUND"]


@pytest.fixture
async def lone(house: House) -> Credential:
    """The only owner of a tenant."""
    slug = f"t{uuid4().hex[:12]}"
    await house.add_tenant(slug)
    return house.members[slug][Role.OWNER]


def slug_of(house: House, who: Credential) -> str:
    return next(slug for slug, tenant in house.tenants.items() if tenant.id == who.tenant)


async def test_the_last_active_owner_stays(house: House, lone: Credential) -> None:
    slug = slug_of(house, lone)
    await join(house, slug, [Role.OWNER], kind=SERVICE)
    gone = await join(house, slug, [Role.OWNER])
    await done(house, lone, DISABLE, id=id_of(gone))
    assert await unchanged(house, lone, lone, SET, roles=["ADMIN"], own=[]) == ["LAST_OWNER"]
    assert await unchanged(house, lone, lone, DISABLE) == ["LAST_OWNER"]


async def test_an_owner_may_step_down_where_another_stays(house: House, lone: Credential) -> None:
    await join(house, slug_of(house, lone), [Role.OWNER])
    stepped = await done(house, lone, SET, id=id_of(lone), roles=["AGENT"], own=[])
    assert stepped["member"]["roles"] == ["AGENT"]


@pytest.mark.parametrize("document", [SET, DISABLE])
async def test_of_owners_who_unmake_each_other_at_once_one_stays(house: House, lone: Credential, document: str) -> None:
    owners = [lone, *[await join(house, slug_of(house, lone), [Role.OWNER]) for _ in range(4)]]
    what: dict[str, Any] = {"roles": [], "own": []} if document == SET else {}
    await asyncio.gather(
        *(ask(house, one, document, id=id_of(other), **what) for one in owners for other in owners if one != other)
    )
    left = [each for each in [await held(house, one) for one in owners] if each.is_active and Role.OWNER in each.roles]
    assert len(left) == 1


BY_EMAIL = "query($email: String!) { at: members(email: $email) { totalCount nodes { id email } } }"


async def test_administrators_find_a_member_by_the_whole_e_mail(house: House, admin: Credential) -> None:
    address = f"{uuid4().hex}@example.org"
    async with house.api.units.enter(admin.tenant, None, write=True) as unit:
        made = await members.add(unit, email=address, name="Grace Hopper", password_hash="-", roles=[Role.AGENT])
    found = await done(house, admin, BY_EMAIL, email=f" {address.upper()}")
    assert (found["totalCount"], [node["id"] for node in found["nodes"]]) == (1, [global_id("Member", made)])
    assert found["nodes"][0]["email"] != address
    for wrong in (address[1:], "", "%"):
        assert await done(house, admin, BY_EMAIL, email=wrong) == {"totalCount": 0, "nodes": []}
    statement = "SELECT subjects, fields FROM audit_entries WHERE action = 'member.searched' AND actor = $1 ORDER BY at"
    entries = [(entry["subjects"], entry["fields"]) for entry in await superuser(house, statement, admin.principal)]
    assert entries == [([made], ["email"])] + [([], ["email"])] * 3


@pytest.mark.parametrize("role", [Role.MANAGER, Role.AUDITOR, Role.AGENT])
async def test_nobody_else_finds_members_by_e_mail(house: House, owner: Credential, role: Role) -> None:
    address = f"{role.value.lower()}@{GUILD}.example.org"
    for email in (address, f"not-{address}"):
        assert await refused(house, house.members[GUILD][role], BY_EMAIL, email=email) == ["FORBIDDEN"]


async def test_a_member_tells_when_it_signed_in(house: House, owner: Credential) -> None:
    role = await make_role(house, owner)
    inside, _ = [await join(house, GUILD, own=[role["id"]]) for _ in range(2)]
    async with house.api.units.enter(inside.tenant, None, write=True) as unit:
        await sessions.begin(unit, inside.principal, Method.PASSWORD)
        at = unit.now
    asked = "query($own: ID!) { at: members(ownRole: $own) { nodes { lastSignedInAt } } }"
    first, second = (await done(house, owner, asked, own=role["id"]))["nodes"]
    assert (datetime.fromisoformat(first["lastSignedInAt"]), second["lastSignedInAt"]) == (at, None)


async def test_members_of_a_role_that_is_not_there_are_not_found(house: House, owner: Credential) -> None:
    assert await refused(house, owner, LIST, own="zz") == ["NOT_FOUND"]
