"""explainAccess says what the guard does: of random roles, for rows in each relation, and of every kind of rule."""

import os
from typing import Any
from uuid import uuid4

import pytest
from graphql import GraphQLObjectType
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from api import labels
from api.paging import global_id
from api.schema import build
from domain.customers import FIELDS
from tenants.access import BUILT_IN, Level, Permission, Relation, Role, SearchRight, Sensitivity
from tenants.ids import new_id
from tenants.roles import Team, TeamMember
from tenants.viewers import Credential
from tests.api.staff import DISABLE, SET, UPDATE, ask, done, id_of, join, make_role, refused
from tests.api.test_disclosure import LEAVES
from tests.house import House

GUILD = "explained"
EXAMPLES = 400 if os.environ.get("COFFER_SOAK") else 20
# Shrinking would ask a whole API for minutes, and roles are short to read as they are.
PHASES = set(Phase) - {Phase.shrink, Phase.explain}
RANDOM = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), phases=PHASES)
GRANT = "{ role roleId scope kind name level }"
ANSWER = f"""{{ field rule allowed level maySearch mayWrite grants {GRANT}
  rows {{ relation level readable maySearch mayWrite grants {GRANT} }} }}"""
EXPLAIN = f"""query($type: String!, $field: String!, $member: ID, $role: ID, $id: ID) {{
  at: explainAccess(type: $type, field: $field, member: $member, role: $role, id: $id) {ANSWER} }}"""
SEEN = {name for name in LEAVES if name.partition(".")[0] in ("Customer", "Address")}
CUSTOMER = " ".join(name.partition(".")[2] for name in LEAVES if name.startswith("Customer."))
ADDRESS = " ".join(name.partition(".")[2] for name in LEAVES if name.startswith("Address."))
READ = f"query($id: ID!) {{ at: customer(id: $id) {{ {CUSTOMER} address {{ {ADDRESS} }} }} }}"
VALUES: dict[str, Any] = {
    "givenName": "Zenobia",
    "familyName": "Disclosed",
    "emails": ["zenobia@example.org"],
    "phones": ["+12022243441"],
    "birthDate": "1975-03-04",
    "governmentId": "1234567",
    "note": "likes tea",
    "address": {"lines": ["1 Main Street"], "city": "Springfield", "postalCode": "12345", "country": "US"},
}


class Scene:
    """A member with three roles of the tenant's own, and a customer of each relation to it."""

    def __init__(self, house: House, owner: Credential) -> None:
        self.house = house
        self.owner = owner

    async def set(self) -> "Scene":
        self.roles = [await make_role(self.house, self.owner) for _ in range(3)]
        self.member = await join(self.house, GUILD)
        mate, stranger = await join(self.house, GUILD), await join(self.house, GUILD)
        async with self.house.api.units.enter(self.owner.tenant, None, write=True) as unit:
            team = new_id()
            unit.add(Team(tenant_id=unit.tenant.id, id=team, name=f"team {team}", created_at=unit.now))
            await unit.flush()
            for each in (self.member, mate):
                unit.add(TeamMember(tenant_id=unit.tenant.id, team_id=team, member_id=each.principal))
        owners = {Relation.OWN: self.member, Relation.TEAM: mate, Relation.OTHER: stranger}
        self.customers = {
            relation: (await self.house.create(tenant=GUILD, ownerId=id_of(who), externalId=external, **VALUES))["id"]
            for external, (relation, who) in zip(("DISC-1001", "DISC-2001", "DISC-3001"), owners.items(), strict=True)
        }
        return self

    async def grant(self, built_in: list[str], parts: list[dict[str, Any]]) -> None:
        for role, grants in zip(self.roles, parts, strict=False):
            wanted = {"id": role["id"], "v": role["version"], "i": grants}
            role["version"] = (await done(self.house, self.owner, UPDATE, **wanted))["role"]["version"]
        own = [role["id"] for role, _ in zip(self.roles, parts, strict=False)]
        await done(self.house, self.owner, SET, id=id_of(self.member), roles=built_in, own=own)

    async def explained(self, coordinate: str, **what: Any) -> dict[str, Any]:
        kind, _, name = coordinate.partition(".")
        what = {"member": id_of(self.member), **what}
        return await done(self.house, self.owner, EXPLAIN, type=kind, field=name, **what)

    async def shown(self, relation: Relation) -> dict[str, Any] | None:
        """The personal leaves of the customer in that relation, as the member gets them; None where it is not there."""
        answer = await ask(self.house, self.member, READ, id=self.customers[relation])
        if "errors" in answer:
            assert answer["errors"][0]["extensions"]["code"] in ("NOT_FOUND", "FORBIDDEN")
            return None
        at = dict(answer["data"]["at"])
        address = at.pop("address")
        found = {f"Customer.{name}": value for name, value in at.items()}
        return found | {f"Address.{name}": value for name, value in address.items()}


@pytest.fixture(scope="module")
async def owner(house: House) -> Credential:
    await house.add_tenant(GUILD)
    return house.members[GUILD][Role.OWNER]


@pytest.fixture(scope="module")
async def scene(house: House, owner: Credential) -> Scene:
    return await Scene(house, owner).set()


def some(of: Any) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.sampled_from(sorted(of)), unique=True, max_size=len(of))


def spelled(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def levels(key: str, of: Any) -> st.SearchStrategy[list[dict[str, str]]]:
    chosen = st.dictionaries(st.sampled_from(sorted(of)), st.sampled_from([each.name for each in Level]), max_size=4)
    return chosen.map(lambda found: [{key: name, "level": level} for name, level in found.items()])


NAMES = {spelled(name) for name in FIELDS}
CLASSES = [each.value for each in Sensitivity]
PARTS = st.fixed_dictionaries(
    {
        "scope": st.sampled_from(["ALL", "TEAM", "OWN"]),
        "permissions": st.sampled_from([[], ["CUSTOMERS_READ"], ["CUSTOMERS_READ", "CUSTOMERS_WRITE"]]),
        "levels": levels("class", CLASSES),
        "fields": levels("field", NAMES),
        "ownLevels": levels("class", CLASSES),
        "ownFields": levels("field", NAMES),
        "searches": some([each.value for each in SearchRight]),
        "writes": some(CLASSES),
        "fieldWrites": some(NAMES),
    }
)
BUILT_INS = st.lists(st.sampled_from(["AGENT", "ANALYST", "AUDITOR"]), unique=True, max_size=1)
EDITS = PARTS.map(lambda parts: {**parts, "permissions": ["CUSTOMERS_READ", "CUSTOMERS_WRITE"]})


def expected(coordinate: str, level: str, relation: Relation) -> Any:
    _, plain, masked = LEAVES[coordinate]
    if coordinate == "Customer.externalId":
        plain = {Relation.OWN: "DISC-1001", Relation.TEAM: "DISC-2001", Relation.OTHER: "DISC-3001"}[relation]
    return {"PLAIN": plain, "MASKED": masked, "HIDDEN": None}[level]


@RANDOM
@given(BUILT_INS, st.lists(PARTS, min_size=1, max_size=3))
async def test_what_is_explained_is_what_is_shown(
    scene: Scene, built_in: list[str], parts: list[dict[str, Any]]
) -> None:
    await scene.grant(built_in, parts)
    rows = {relation: await scene.shown(relation) for relation in scene.customers}
    for coordinate in sorted(SEEN):
        told = {row["relation"]: row for row in (await scene.explained(coordinate))["rows"]}
        assert list(told) == ["OTHER", "TEAM", "OWN"]
        for relation, row in rows.items():
            said = told[relation.name]
            assert said["readable"] == (row is not None)
            assert {grant["level"] for grant in said["grants"]} == ({said["level"]} - {"HIDDEN"})
            if row is not None:
                assert row[coordinate] == expected(coordinate, said["level"], relation), coordinate


@RANDOM
@given(BUILT_INS, st.lists(PARTS, min_size=1, max_size=3), st.sampled_from(sorted(SEEN)))
async def test_one_row_is_explained_as_all_of_its_relation(
    scene: Scene, built_in: list[str], parts: list[dict[str, Any]], coordinate: str
) -> None:
    await scene.grant(built_in, parts)
    every = {row["relation"]: row for row in (await scene.explained(coordinate))["rows"]}
    for relation, customer in scene.customers.items():
        (one,) = (await scene.explained(coordinate, id=customer))["rows"]
        assert one["relation"] in ("OTHER", relation.name)  # OTHER also where nothing hangs on the row
        assert {**one, "relation": relation.name} == every[relation.name]
    kind, _, name = coordinate.partition(".")
    assert await done(scene.house, scene.member, EXPLAIN, type=kind, field=name) == await scene.explained(coordinate)


@RANDOM
@given(st.lists(EDITS, min_size=1, max_size=3), st.sampled_from(sorted(VALUES.keys() - {"address"})))
async def test_what_may_be_written_and_searched_by_is_what_is_taken(
    scene: Scene, parts: list[dict[str, Any]], field: str
) -> None:
    await scene.grant([], parts)
    for row in (await scene.explained(f"Customer.{field}"))["rows"]:
        customer = scene.customers[Relation[row["relation"]]]
        assert await writes(scene, customer, field) == (row["mayWrite"] and row["readable"])
        if field == "emails":
            assert (customer in await found(scene)) == row["maySearch"]


FIND = '{ at: findCustomers(by: { email: "zenobia@example.org" }) { nodes { id } } }'
WRITE = """mutation($id: ID!, $v: Int!, $i: CustomerInput!) {
  at: updateCustomer(id: $id, version: $v, input: $i) { userErrors { code } } }"""


async def found(scene: Scene) -> list[str]:
    answer = await ask(scene.house, scene.member, FIND)
    return [] if "errors" in answer else [each["id"] for each in answer["data"]["at"]["nodes"]]


async def writes(scene: Scene, customer: str, field: str) -> bool:
    """Whether the right is there: the version is a wrong one, so that nothing changes."""
    return await refused(scene.house, scene.member, WRITE, id=customer, v=0, i={field: VALUES[field]}) == [
        "STALE_VERSION"
    ]


async def test_a_role_is_explained_by_its_id_or_its_built_in_name(house: House, owner: Credential) -> None:
    role = await make_role(house, owner, ownFields=[{"field": "birthDate", "level": "PLAIN"}])
    asked = {"type": "Customer", "field": "birthDate"}
    built_in, own = [await done(house, owner, EXPLAIN, **asked, role=each) for each in ("AGENT", role["id"])]
    assert (built_in["level"], built_in["allowed"]) == ("MASKED", True)
    assert built_in["rows"][0]["grants"] == [
        {"role": "AGENT", "roleId": None, "scope": "ALL", "kind": "CLASS", "name": "BIRTH", "level": "MASKED"}
    ]
    assert (own["level"], own["allowed"], [row["level"] for row in own["rows"]]) == (
        None,
        True,
        ["HIDDEN"] * 2 + ["PLAIN"],
    )
    assert own["rows"][2]["grants"] == [
        {
            "role": role["name"],
            "roleId": role["id"],
            "scope": "ALL",
            "kind": "OWN_FIELD",
            "name": "birthDate",
            "level": "PLAIN",
        }
    ]


async def test_of_several_roles_those_with_the_highest_level_decided(house: House, owner: Credential) -> None:
    role = await make_role(house, owner, levels=[{"class": "CONTACT", "level": "MASKED"}])
    who = await join(house, GUILD, [Role.AGENT, Role.MANAGER], [role["id"]])
    told = await done(house, owner, EXPLAIN, type="Customer", field="emails", member=id_of(who))
    assert {grant["role"] for row in told["rows"] for grant in row["grants"]} == {"MANAGER"}


async def test_a_right_to_write_ends_with_its_roles_scope(scene: Scene) -> None:
    every = {"permissions": ["CUSTOMERS_READ", "CUSTOMERS_WRITE"], "scope": "ALL", "writes": [], "fieldWrites": []}
    await scene.grant([], [every, {**every, "scope": "OWN", "fieldWrites": ["note"]}])
    told = await scene.explained("Customer.note")
    assert {row["relation"]: row["mayWrite"] for row in told["rows"]} == {"OTHER": False, "TEAM": False, "OWN": True}
    for relation, customer in scene.customers.items():
        assert await writes(scene, customer, "note") == (relation is Relation.OWN)


async def test_a_grant_for_ones_own_customers_decides_for_those_alone(house: House, owner: Credential) -> None:
    masked = [{"class": "CONTACT", "level": "MASKED"}]
    role = await make_role(house, owner, levels=masked, ownLevels=masked)
    told = await done(house, owner, EXPLAIN, type="Customer", field="emails", role=role["id"])
    kinds = {row["relation"]: [grant["kind"] for grant in row["grants"]] for row in told["rows"]}
    assert kinds == {"OTHER": ["CLASS"], "TEAM": ["CLASS"], "OWN": ["CLASS", "OWN_CLASS"]}


@pytest.mark.parametrize("role", Role)
async def test_a_needed_permission_is_traced_to_its_role(house: House, owner: Credential, role: Role) -> None:
    who = await join(house, GUILD, [role])
    told = await done(house, owner, EXPLAIN, type="Job", field="kind", member=id_of(who))
    assert (told["rule"].startswith("@public(reason: "), told["allowed"], told["grants"]) == (True, True, [])
    told = await done(house, owner, EXPLAIN, type="Query", field="auditEntries", member=id_of(who))
    has = Permission.AUDIT_READ in BUILT_IN[role].permissions
    assert (told["rule"], told["allowed"]) == ("@requires(permission: AUDIT_READ)", has)
    assert [(each["role"], each["name"]) for each in told["grants"]] == [(role, "AUDIT_READ")] * has


async def test_a_member_of_a_masked_class_is_explained_as_no_customer(house: House, owner: Credential) -> None:
    who = await join(house, GUILD, [Role.AUDITOR])
    told = await done(house, owner, EXPLAIN, type="Member", field="email", member=id_of(who))
    assert (told["rule"], told["level"]) == ("@personal(class: CONTACT, mask: EMAIL)", "MASKED")
    assert [row["relation"] for row in told["rows"]] == ["NONE"]
    assert (told["maySearch"], told["mayWrite"]) == (None, None)


@pytest.mark.parametrize(
    ("field", "may_search", "may_write"),
    [("stage", True, True), ("owner", True, False), ("tags", True, False), ("version", None, None)],
)
async def test_clear_fields_tell_how_they_are_found_and_written(
    house: House, field: str, may_search: bool | None, may_write: bool | None
) -> None:
    agent = house.members["acme"][Role.AGENT]
    told = await done(house, agent, EXPLAIN, type="Customer", field=field)
    assert (told["maySearch"], told["mayWrite"]) == (may_search, may_write)
    assert {(row["maySearch"], row["mayWrite"]) for row in told["rows"]} == {(may_search, may_write)}


async def test_every_rule_of_the_schema_is_explained_as_it_is_printed(house: House, owner: Credential) -> None:
    schema, sdl = build()
    printed = set()
    for kind in schema.type_map.values():
        if isinstance(kind, GraphQLObjectType) and not kind.name.startswith("__"):
            printed |= {labels.said(labels.rule_of(field)) for field in kind.fields.values()}
    assert all(rule in sdl for rule in printed)
    assert len(printed) > 20


async def test_a_disabled_member_gets_nothing(house: House, owner: Credential) -> None:
    who = await join(house, GUILD, [Role.OWNER])
    await done(house, owner, DISABLE, id=id_of(who))
    told = await done(house, owner, EXPLAIN, type="Customer", field="emails", member=id_of(who))
    assert (told["level"], told["allowed"], told["maySearch"], told["mayWrite"]) == ("HIDDEN", False, False, False)
    assert not any(row["readable"] for row in told["rows"])


@pytest.mark.parametrize("role", [Role.AGENT, Role.ANALYST, Role.INTEGRATION])
async def test_only_who_may_read_members_is_told_of_others(house: House, owner: Credential, role: Role) -> None:
    who, asked = house.members[GUILD][role], {"type": "Customer", "field": "emails"}
    assert await refused(house, who, EXPLAIN, **asked, member=id_of(owner)) == ["FORBIDDEN"]
    assert await refused(house, who, EXPLAIN, **asked, role="OWNER") == ["FORBIDDEN"]
    mine = await done(house, who, EXPLAIN, **asked, member=id_of(who))
    assert mine == await done(house, who, EXPLAIN, **asked)


@pytest.mark.parametrize("key", ["member", "role", "id"])
async def test_other_tenants_ids_answer_as_absent_ones(house: House, owner: Credential, key: str) -> None:
    stranger = house.members["globex"][Role.OWNER]
    theirs = {
        "member": ("Member", id_of(stranger)),
        "role": ("OwnRole", (await make_role(house, stranger))["id"]),
        "id": ("Customer", (await house.create(tenant="globex", givenName="Theirs"))["id"]),
    }
    kind, id = theirs[key]
    asked = {"type": "Customer", "field": "emails"}
    for text in (id, global_id(kind, uuid4()), "garbage"):
        assert await refused(house, owner, EXPLAIN, **asked, **{key: text}) == ["NOT_FOUND"]
    assert (await done(house, stranger, EXPLAIN, **asked, **{key: id}))["field"] == "Customer.emails"


async def test_a_customer_out_of_reach_is_not_explained(scene: Scene) -> None:
    own = {"scope": "OWN", "permissions": ["CUSTOMERS_READ", "MEMBERS_READ"], "levels": [], "ownLevels": []}
    await scene.grant([], [own])
    asked = {"type": "Customer", "field": "emails", "member": id_of(scene.owner)}
    codes = {
        relation: await refused(scene.house, scene.member, EXPLAIN, **asked, id=customer)
        for relation, customer in scene.customers.items()
        if relation is not Relation.OWN
    }
    assert set(map(tuple, codes.values())) == {("NOT_FOUND",)}


@pytest.mark.parametrize(
    "what",
    [
        {"type": "Customer", "field": "shoeSize"},
        {"type": "Person", "field": "name"},
        {"type": "CustomerInput", "field": "emails"},
        {"type": "__Type", "field": "name"},
        {"type": "Level", "field": "PLAIN"},
        {"type": "Customer", "field": "emails", "role": "AGENT", "member": "x"},
        {"type": "Customer", "field": "emails", "role": "AGENT", "id": "x"},
        {"type": "Member", "field": "email", "id": "x"},
    ],
)
async def test_what_can_not_be_explained_is_refused(house: House, owner: Credential, what: dict[str, str]) -> None:
    assert await refused(house, owner, EXPLAIN, **what) == ["BAD_USER_INPUT"]


async def test_without_a_token_nothing_is_explained(house: House) -> None:
    asked = {"type": "Customer", "field": "emails"}
    answer = await house.ask(EXPLAIN, asked, role=None)
    assert answer["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"
