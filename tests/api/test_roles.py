"""Roles of a tenant's own over GraphQL: made, changed, deleted, and never beyond the rights of who does it."""

import asyncio
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from domain.roles import MOST_ROLES
from tenants.access import Permission, Role
from tenants.viewers import Credential
from tests.api.staff import CREATE, DELETE, ROLE, SET, UPDATE, ask, done, id_of, join, local, make_role, refused
from tests.house import House

LIST = f"{{ at: roles {{ {ROLE} }} }}"
ONE = f"query($id: ID!) {{ at: role(id: $id) {{ {ROLE} }} }}"
NODE = "query($id: ID!) { at: node(id: $id) { id ... on OwnRole { name } } }"
GUILD = "guild"  # a tenant whose roles come and go


@pytest.fixture(scope="module")
async def owner(house: House) -> Credential:
    await house.add_tenant(GUILD)
    return house.members[GUILD][Role.OWNER]


@pytest.fixture
async def admin(house: House, owner: Credential) -> Credential:
    return await join(house, GUILD, [Role.ADMIN])


async def names(house: House, owner: Credential) -> list[str]:
    answer = await ask(house, owner, "{ roles { name } }")
    return [role["name"] for role in answer["data"]["roles"]]


async def recorded(house: House, action: str) -> list[Any]:
    connection = await asyncpg.connect(house.superuser_url)
    try:
        wanted = "SELECT * FROM audit_entries WHERE tenant_id = $1 AND action = $2 ORDER BY xid, id"
        return list(await connection.fetch(wanted, house.tenants[GUILD].id, action))
    finally:
        await connection.close()


async def test_a_role_is_what_was_asked_for(house: House, owner: Credential) -> None:
    parts: dict[str, Any] = {
        "scope": "TEAM",
        "permissions": ["CUSTOMERS_READ", "CUSTOMERS_WRITE"],
        "levels": [{"class": "CONTACT", "level": "MASKED"}],
        "fields": [{"field": "birthDate", "level": "PLAIN"}],
        "ownLevels": [{"class": "CONTACT", "level": "PLAIN"}],
        "ownFields": [{"field": "governmentId", "level": "MASKED"}],
        "searches": ["CONTACT"],
        "writes": ["CONTACT"],
        "fieldWrites": ["note"],
    }
    made = await make_role(house, owner, description="Answers the phone", **parts)
    assert made["grants"] == parts
    assert (made["version"], made["description"], made["holders"]) == (1, "Answers the phone", 0)
    assert await done(house, owner, ONE, id=made["id"]) == made
    assert made in (await ask(house, owner, LIST))["data"]["at"]


async def test_what_is_left_out_grants_nothing(house: House, owner: Credential) -> None:
    grants = (await make_role(house, owner))["grants"]
    assert grants.pop("scope") == "ALL"
    assert not any(grants.values())


async def test_an_update_keeps_what_it_does_not_name(house: House, owner: Credential) -> None:
    made = await make_role(house, owner, permissions=["JOBS_READ"], searches=["CONTACT"])
    changed = await done(house, owner, UPDATE, id=made["id"], v=1, i={"searches": [], "scope": "OWN"})
    assert changed["userErrors"] == []
    grants = changed["role"]["grants"]
    assert (grants["permissions"], grants["searches"], grants["scope"]) == (["JOBS_READ"], [], "OWN")
    assert (changed["role"]["version"], changed["role"]["name"]) == (2, made["name"])


async def test_an_old_reading_changes_nothing(house: House, owner: Credential) -> None:
    made = await make_role(house, owner)
    await done(house, owner, UPDATE, id=made["id"], v=1, i={"description": "first"})
    assert await refused(house, owner, UPDATE, id=made["id"], v=1, i={"description": "second"}) == ["STALE_VERSION"]
    assert (await done(house, owner, ONE, id=made["id"]))["description"] == "first"


@pytest.mark.parametrize("spelling", [str, str.upper])
async def test_a_name_is_taken_once_whatever_its_case(house: House, owner: Credential, spelling: Any) -> None:
    made, other = await make_role(house, owner), await make_role(house, owner)
    before, taken = await names(house, owner), spelling(made["name"])
    assert await refused(house, owner, CREATE, i={"name": taken}) == ["NAME_TAKEN"]
    assert await refused(house, owner, UPDATE, id=other["id"], v=1, i={"name": taken}) == ["NAME_TAKEN"]
    assert await names(house, owner) == before


async def test_a_built_in_roles_name_is_its_own(house: House, owner: Credential) -> None:
    assert await refused(house, owner, CREATE, i={"name": "Owner"}) == ["NAME_TAKEN"]
    assert "Owner" not in await names(house, owner)


async def test_a_role_may_take_another_spelling_of_its_own_name(house: House, owner: Credential) -> None:
    made = await make_role(house, owner)
    changed = await done(house, owner, UPDATE, id=made["id"], v=1, i={"name": made["name"].upper()})
    assert changed["role"]["name"] == made["name"].upper()


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        ({}, "REQUIRED"),
        ({"name": None}, "REQUIRED"),
        ({"name": "  "}, "REQUIRED"),
        ({"name": "x" * 61}, "INVALID"),
        ({"name": "a\u202eb"}, "INVALID"),
    ],
)
async def test_a_role_without_a_usable_name_is_not_made(house: House, owner: Credential, sent: Any, told: str) -> None:
    before = await names(house, owner)
    assert await refused(house, owner, CREATE, i=sent) == [told]
    assert await names(house, owner) == before


@pytest.mark.parametrize(
    ("part", "entry"),
    [("levels", {"class": "BIRTH", "level": "MASKED"}), ("ownFields", {"field": "note", "level": "PLAIN"})],
)
async def test_what_is_named_twice_is_refused(house: House, owner: Credential, part: str, entry: Any) -> None:
    before = await names(house, owner)
    assert await refused(house, owner, CREATE, i={"name": "twice", part: [entry, entry]}) == ["INVALID"]
    assert await names(house, owner) == before


async def test_a_role_in_use_stays_and_tells_how_many_have_it(house: House, owner: Credential) -> None:
    made = await make_role(house, owner)
    for _ in range(2):
        await join(house, GUILD, own=[made["id"]])
    (error,) = (await done(house, owner, DELETE, id=made["id"]))["userErrors"]
    assert (error["code"], error["path"]) == ("ROLE_IN_USE", ["id"])
    assert error["message"].startswith("2 members")
    assert (await done(house, owner, ONE, id=made["id"]))["holders"] == 2


async def test_a_role_that_nobody_has_is_deleted(house: House, owner: Credential) -> None:
    made = await make_role(house, owner)
    gone = await done(house, owner, DELETE, id=made["id"])
    assert gone == {"deletedId": made["id"], "userErrors": []}
    assert await refused(house, owner, ONE, id=made["id"]) == ["NOT_FOUND"]
    assert await refused(house, owner, DELETE, id=made["id"]) == ["NOT_FOUND"]


async def test_changes_of_roles_are_told_and_recorded_by_name(house: House, owner: Credential) -> None:
    made = await make_role(house, owner, permissions=["JOBS_READ"])
    await done(house, owner, UPDATE, id=made["id"], v=1, i={"writes": ["BIRTH"], "permissions": ["JOBS_READ"]})
    await done(house, owner, DELETE, id=made["id"])
    for action, fields in [("created", ["name", "permissions"]), ("updated", ["writes"]), ("deleted", [])]:
        (entry,) = [e for e in await recorded(house, f"role.{action}") if e["subjects"] == [local(made["id"])]]
        assert (entry["fields"], entry["actor"]) == (fields, owner.principal)


async def test_a_keyed_request_makes_one_role(house: House, owner: Credential) -> None:
    key = {"authorization": f"Bearer {await house.token(owner)}", "idempotency-key": uuid4().hex}
    sent = {"i": {"name": "made once"}}
    first, second = [await house.ask(CREATE, sent, role=None, headers=key) for _ in range(2)]
    assert first["data"] == second["data"]
    assert (await names(house, owner)).count("made once") == 1


async def test_a_tenant_has_so_many_roles_and_no_more(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    await house.add_tenant("crowded")
    owner = house.members["crowded"][Role.OWNER]
    monkeypatch.setattr("domain.roles.MOST_ROLES", 2)
    assert MOST_ROLES == 200
    many = [refused(house, owner, CREATE, i={"name": f"role {n}"}) for n in range(4)]
    assert sorted(await asyncio.gather(*many)) == [[], [], ["TOO_MANY"], ["TOO_MANY"]]
    assert len(await names(house, owner)) == 2


async def test_a_name_that_two_want_at_once_goes_to_one(house: House, owner: Credential) -> None:
    both = [refused(house, owner, CREATE, i={"name": name}) for name in ("Wanted", "WANTED")]
    assert sorted(await asyncio.gather(*both)) == [[], ["NAME_TAKEN"]]
    assert [name.casefold() for name in await names(house, owner)].count("wanted") == 1


async def test_the_built_in_roles_tell_what_they_grant(house: House) -> None:
    asked = "{ builtInRoles { role grants { scope permissions levels { class level } writes } } }"
    told = {each["role"]: each["grants"] for each in (await house.data(asked, role=Role.AUDITOR))["builtInRoles"]}
    assert list(told) == list(Role)
    assert told["OWNER"]["permissions"] == sorted(Permission)
    assert {"class": "CONTACT", "level": "MASKED"} in told["AGENT"]["levels"]
    assert "HIDDEN" not in {each["level"] for each in told["AGENT"]["levels"]}


@pytest.mark.parametrize("role", [Role.AGENT, Role.ANALYST, Role.INTEGRATION])
async def test_who_may_not_read_members_reads_no_roles(house: House, owner: Credential, role: Role) -> None:
    made, who = await make_role(house, owner), house.members[GUILD][role]
    assert await refused(house, who, LIST) == ["FORBIDDEN"]
    assert await refused(house, who, ONE, id=made["id"]) == ["FORBIDDEN"]
    assert (await ask(house, who, NODE, id=made["id"]))["data"]["at"] is None


async def test_a_member_reads_the_roles_it_has(house: House, owner: Credential) -> None:
    made = await make_role(house, owner, permissions=["JOBS_READ"])
    who = await join(house, GUILD, own=[made["id"]])
    answer = await ask(house, who, "{ me { ownRoles { id name } permissions } }")
    assert answer["data"]["me"]["ownRoles"] == [{"id": made["id"], "name": made["name"]}]
    assert answer["data"]["me"]["permissions"] == ["JOBS_READ"]
    assert (await ask(house, who, NODE, id=made["id"]))["data"]["at"] == {"id": made["id"], "name": made["name"]}


@pytest.mark.parametrize("role", [Role.MANAGER, Role.AGENT, Role.AUDITOR, Role.INTEGRATION])
async def test_only_who_manages_roles_changes_them(house: House, owner: Credential, role: Role) -> None:
    made, who = await make_role(house, owner), house.members[GUILD][role]
    before = await names(house, owner)
    assert await refused(house, who, CREATE, i={"name": "mine"}) == ["FORBIDDEN"]
    assert await refused(house, who, UPDATE, id=made["id"], v=1, i={"name": "mine"}) == ["FORBIDDEN"]
    assert await refused(house, who, DELETE, id=made["id"]) == ["FORBIDDEN"]
    assert await names(house, owner) == before


async def test_another_tenants_role_is_not_there(house: House, owner: Credential) -> None:
    made, stranger = await make_role(house, owner), house.members["globex"][Role.OWNER]
    assert await refused(house, stranger, ONE, id=made["id"]) == ["NOT_FOUND"]
    assert await refused(house, stranger, UPDATE, id=made["id"], v=1, i={"name": "mine"}) == ["NOT_FOUND"]
    assert await refused(house, stranger, DELETE, id=made["id"]) == ["NOT_FOUND"]
    assert await refused(house, stranger, SET, id=id_of(stranger), roles=["OWNER"], own=[made["id"]]) == ["NOT_FOUND"]
    assert await done(house, owner, ONE, id=made["id"]) == made


BEYOND_ADMIN: list[tuple[dict[str, Any], str]] = [
    ({"permissions": ["AUDIT_READ"]}, "AUDIT_READ"),
    ({"levels": [{"class": "IDENTITY", "level": "PLAIN"}]}, "IDENTITY PLAIN"),
    ({"levels": [{"class": "HEALTH", "level": "MASKED"}]}, "HEALTH MASKED"),
    ({"fields": [{"field": "note", "level": "MASKED"}]}, "note MASKED"),
    ({"ownLevels": [{"class": "CONTACT", "level": "PLAIN"}]}, "CONTACT PLAIN"),
    ({"ownFields": [{"field": "emails", "level": "PLAIN"}]}, "emails PLAIN"),
    ({"searches": ["CONTACT"]}, "search by CONTACT"),
    ({"writes": ["BIRTH"]}, "write BIRTH"),
    ({"fieldWrites": ["birthDate"]}, "write birthDate"),
    ({"scope": "OWN", "writes": ["BIRTH"]}, "write BIRTH"),
]
WITHIN_ADMIN: list[dict[str, Any]] = [
    {"permissions": ["CUSTOMERS_READ", "ROLES_MANAGE"]},
    {"levels": [{"class": "IDENTITY", "level": "MASKED"}], "scope": "TEAM"},
    {"fields": [{"field": "birthDate", "level": "MASKED"}]},
    {"ownFields": [{"field": "emails", "level": "MASKED"}, {"field": "note", "level": "HIDDEN"}]},
]


@pytest.mark.parametrize(("parts", "said"), BEYOND_ADMIN)
async def test_nobody_makes_a_role_of_more_than_they_have(
    house: House, owner: Credential, admin: Credential, parts: dict[str, Any], said: str
) -> None:
    before = await names(house, owner)
    (error,) = (await done(house, admin, CREATE, i={"name": "more", **parts}))["userErrors"]
    assert error["code"] == "BEYOND_YOUR_RIGHTS"
    assert error["message"] == f"This is beyond your own rights: {said}."
    assert await names(house, owner) == before


@pytest.mark.parametrize("parts", WITHIN_ADMIN)
async def test_who_has_it_may_put_it_into_a_role(house: House, admin: Credential, parts: dict[str, Any]) -> None:
    assert (await make_role(house, admin, **parts))["id"]


@pytest.mark.parametrize(("parts", "_"), BEYOND_ADMIN)
async def test_nobody_makes_more_of_a_role_than_they_have(
    house: House, owner: Credential, admin: Credential, parts: dict[str, Any], _: str
) -> None:
    made = await make_role(house, owner)
    await done(house, owner, SET, id=id_of(admin), roles=["ADMIN"], own=[made["id"]])
    assert await refused(house, admin, UPDATE, id=made["id"], v=1, i=parts) == ["BEYOND_YOUR_RIGHTS"]
    assert (await done(house, owner, ONE, id=made["id"]))["grants"] == made["grants"]


@pytest.mark.parametrize(("parts", "_"), BEYOND_ADMIN)
async def test_nobody_touches_a_role_that_is_more_than_they_have(
    house: House, owner: Credential, admin: Credential, parts: dict[str, Any], _: str
) -> None:
    made = await make_role(house, owner, **parts)
    less: dict[str, Any] = {each: [] for each in parts if each != "scope"}
    assert await refused(house, admin, UPDATE, id=made["id"], v=1, i=less) == ["BEYOND_YOUR_RIGHTS"]
    assert await done(house, owner, ONE, id=made["id"]) == made


async def test_what_one_has_for_ones_own_customers_is_not_given_for_all(house: House, owner: Credential) -> None:
    levels = [{"class": "CONTACT", "level": "PLAIN"}]
    manages = await make_role(house, owner, permissions=["ROLES_MANAGE"])
    own = await make_role(house, owner, scope="OWN", levels=levels)
    who = await join(house, GUILD, own=[manages["id"], own["id"]])
    before = await names(house, owner)
    assert await refused(house, who, CREATE, i={"name": "all", "levels": levels}) == ["BEYOND_YOUR_RIGHTS"]
    assert await refused(house, who, CREATE, i={"name": "team", "scope": "TEAM", "levels": levels}) != []
    assert await names(house, owner) == before


async def test_a_refused_grasp_for_more_is_on_record(house: House, admin: Credential) -> None:
    await done(house, admin, CREATE, i={"name": "more", "permissions": ["AUDIT_READ"]})
    (entry,) = [each for each in await recorded(house, "access.refused") if each["actor"] == admin.principal]
    assert (entry["outcome"], entry["fields"]) == ("BEYOND_YOUR_RIGHTS", ["createRole"])


async def test_who_lost_the_right_while_waiting_makes_no_role(house: House, owner: Credential) -> None:
    manages = await make_role(house, owner, permissions=["ROLES_MANAGE"])
    who = await join(house, GUILD, own=[manages["id"]])
    less: dict[str, Any] = {"permissions": []}
    lost, made = await asyncio.gather(
        refused(house, owner, UPDATE, id=manages["id"], v=1, i=less),
        refused(house, who, CREATE, i={"name": "too late"}),
    )
    assert lost == []
    assert ("too late" in await names(house, owner)) == (made == [])
    assert await refused(house, who, CREATE, i={"name": "later still"}) == ["FORBIDDEN"]
