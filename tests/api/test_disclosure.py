"""Every role gets of every personal leaf, on every way to it, what the role table says; the table is written out here.

Levels and masks are spelled from design section 5, not taken from the code, so that a slip in one shows in the other.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from graphql import GraphQLInterfaceType, GraphQLObjectType

from api import labels
from api.directives import Personal
from api.schema import build
from tenants.access import Role
from tenants.unit import Unit
from tests.house import House

SCHEMA, _ = build()
CLASSES = ["IDENTITY", "CONTACT", "LOCATION", "GOVERNMENT_ID", "BIRTH", "FINANCIAL", "HEALTH", "FREE_TEXT"]
TABLE = {
    Role.OWNER: "PPPPPPPP",
    Role.ADMIN: "MMMHMHHH",
    Role.MANAGER: "PPPMPMHP",
    Role.AGENT: "PMMHMHHH",
    Role.ANALYST: "HHMHMHHH",
    Role.AUDITOR: "MMMMMMHH",
    Role.INTEGRATION: "HHHHHHHH",
}
LEVELS = {"P": "PLAIN", "M": "MASKED", "H": "HIDDEN"}
DOTS = "•••"
# Coordinate: class, plain value, masked value.
LEAVES: dict[str, tuple[str, Any, Any]] = {
    "Customer.givenName": ("IDENTITY", "Zenobia", "Z."),
    "Customer.familyName": ("IDENTITY", "Disclosed", "D."),
    "Customer.displayName": ("IDENTITY", "Zenobia Disclosed", "Z. D."),
    "Customer.emails": ("CONTACT", ["zenobia@example.org"], ["z***@e***.org"]),
    "Customer.phones": ("CONTACT", ["+12022243441"], ["+1 ••• •••41"]),
    "Customer.birthDate": ("BIRTH", "1975-03-04", None),
    "Customer.birthYear": ("BIRTH", 1975, 1975),
    "Customer.governmentId": ("GOVERNMENT_ID", "1234567", "•••••••67"),
    "Customer.note": ("FREE_TEXT", "likes tea", DOTS),
    "Customer.externalId": ("IDENTITY", "DISC-1001", "•••••••01"),
    "Address.lines": ("LOCATION", ["1 Main Street"], [DOTS]),
    "Address.city": ("LOCATION", "Springfield", "Springfield"),
    "Address.postalCode": ("LOCATION", "12345", DOTS),
    "Address.country": ("LOCATION", "US", "US"),
    "Tag.name": ("IDENTITY", "disclosed ones", DOTS),
    "Member.name": ("IDENTITY", "Owner", "O."),
    "Member.email": ("CONTACT", "owner@acme.example.org", "o***@a***.org"),
}
OF = {
    kind: [c for c in LEAVES if c.startswith(f"{kind}.")] for kind in dict.fromkeys(c.partition(".")[0] for c in LEAVES)
}
PLACE = {"Customer": "{}", "Address": "address {{ {} }}", "Tag": "tags {{ {} }}", "Member": "owner {{ {} }}"}


def names(kind: str) -> str:
    return " ".join(coordinate.partition(".")[2] for coordinate in OF[kind])


ALL = " ".join(PLACE[kind].format(names(kind)) for kind in OF)
SPELLINGS = {
    "fields": (ALL, ""),
    "a fragment": ("...Everything", f"fragment Everything on Customer {{ {ALL} }}"),
    "an inline fragment": (f"... on Customer {{ {ALL} }}", ""),
}
WAYS = {
    "customer": "{{ at: customer(id: $id) {{ {} }} }}",
    "node": "{{ at: node(id: $id) {{ ... on Customer {{ {} }} }} }}",
    "nodes": "{{ at: nodes(ids: [$id]) {{ ... on Customer {{ {} }} }} }}",
    "customers.nodes": '{{ at: customers(filter: {{ source: "disclosure" }}) {{ nodes {{ {} }} }} }}',
    "customers.edges": '{{ at: customers(filter: {{ source: "disclosure" }}) {{ edges {{ node {{ {} }} }} }} }}',
    "find by name": '{{ at: findCustomers(by: {{ namePrefix: "zenobia" }}) {{ nodes {{ {} }} }} }}',
    "find by id": '{{ at: findCustomers(by: {{ externalId: "DISC-1001" }}) {{ edges {{ node {{ {} }} }} }} }}',
    "restore": "{{ at: restoreCustomer(id: $id) {{ customer {{ {} }} }} }}",
    "update": "{{ at: updateCustomer(id: $id, version: $version, input: {{}}) {{ customer {{ {} }} }} }}",
}
ONLY = {
    "find by name": {Role.OWNER, Role.MANAGER, Role.AGENT},
    "find by id": {Role.OWNER, Role.MANAGER, Role.INTEGRATION},
    "restore": {Role.OWNER, Role.MANAGER, Role.INTEGRATION},
    "update": {Role.OWNER, Role.MANAGER, Role.AGENT, Role.INTEGRATION},
}
PAIRS = [(role, way) for way in WAYS for role in Role if role in ONLY.get(way, set(Role))]


def level(role: Role, coordinate: str) -> str:
    return LEVELS[TABLE[role][CLASSES.index(LEAVES[coordinate][0])]]


def shown(role: Role, coordinate: str) -> Any:
    _, plain, masked = LEAVES[coordinate]
    return {"PLAIN": plain, "MASKED": masked, "HIDDEN": None}[level(role, coordinate)]


def expected(role: Role) -> dict[str, Any]:
    parts = {kind: {c.partition(".")[2]: shown(role, c) for c in OF[kind]} for kind in OF}
    return {**parts["Customer"], "address": parts["Address"], "tags": [parts["Tag"]], "owner": parts["Member"]}


def document(way: str, selection: str, rest: str = "") -> str:
    kind = "mutation" if way in ("restore", "update") else "query"
    declared = [f"${name}: {of}!" for name, of in (("id", "ID"), ("version", "Int")) if f"${name}" in WAYS[way]]
    heading = f"{kind}({', '.join(declared)})" if declared else kind
    return f"{heading} {WAYS[way].format(selection)} {rest}"


def unwrapped(value: Any) -> dict[str, Any]:
    """The one customer inside a list, a connection, an edge or a payload."""
    while True:
        if isinstance(value, list):
            (value,) = value
        elif len(value) == 1 and (inner := next(iter(value))) in ("nodes", "edges", "node", "customer"):
            value = value[inner]
        else:
            return dict(value)


@pytest.fixture(scope="module")
async def known(house: House) -> str:
    tag = await house.data('mutation { createTag(name: "disclosed ones") { tag { id } } }')
    made = await house.create(
        givenName="Zenobia",
        familyName="Disclosed",
        emails=["zenobia@example.org"],
        phones=["+12022243441"],
        birthDate="1975-03-04",
        governmentId="1234567",
        note="likes tea",
        externalId="DISC-1001",
        address={"lines": ["1 Main Street"], "city": "Springfield", "postalCode": "12345", "country": "US"},
        tagIds=[tag["createTag"]["tag"]["id"]],
        source="disclosure",
    )
    return str(made["id"])


async def asked(house: House, known: str, role: Role, way: str, selection: str, rest: str = "") -> dict[str, Any]:
    read = await house.data("query($id: ID!) { customer(id: $id) { version } }", {"id": known})
    variables = {"id": known, "version": read["customer"]["version"]}
    answer = await house.ask(document(way, selection, rest), variables, role=role)
    assert "errors" not in answer, answer
    return answer


def personal_leaves() -> Iterator[str]:
    for kind in SCHEMA.type_map.values():
        if isinstance(kind, GraphQLObjectType | GraphQLInterfaceType) and not kind.name.startswith("__"):
            for name, field in kind.fields.items():
                if isinstance(labels.rule_of(field), Personal):
                    yield f"{kind.name}.{name}"


def test_no_personal_leaf_is_left_out_of_these_tests() -> None:
    """But for those that lie on no way from a customer: `tests/leaks/` walks to them as well."""
    apart = ("Device.", "LegalHold.")
    assert sorted(leaf for leaf in personal_leaves() if not leaf.startswith(apart)) == sorted(LEAVES)


@pytest.mark.parametrize("coordinate", LEAVES)
def test_a_leafs_rule_names_its_class(coordinate: str) -> None:
    kind, _, name = coordinate.partition(".")
    owner = SCHEMA.type_map[kind]
    assert isinstance(owner, GraphQLObjectType)
    rule = labels.rule_of(owner.fields[name])
    assert isinstance(rule, Personal)
    assert rule.class_ == LEAVES[coordinate][0]


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize(("role", "way"), PAIRS, ids=[f"{role}-{way}" for role, way in PAIRS])
async def test_a_role_gets_what_the_table_says(house: House, known: str, role: Role, way: str, spelling: str) -> None:
    answer = await asked(house, known, role, way, *SPELLINGS[spelling])
    assert unwrapped(answer["data"]["at"]) == expected(role)
    told = {entry["field"]: entry["level"] for entry in answer["extensions"]["disclosure"]}
    assert told == {coordinate: level(role, coordinate) for coordinate in LEAVES}
    assert len(answer["extensions"]["disclosure"]) == len(LEAVES)


@pytest.mark.parametrize("role", Role)
async def test_an_alias_changes_nothing(house: House, known: str, role: Role) -> None:
    answer = await asked(house, known, role, "customer", "note: governmentId emails: phones phones: note")
    at = answer["data"]["at"]
    asked_for = ["Customer.governmentId", "Customer.phones", "Customer.note"]
    assert [at["note"], at["emails"], at["phones"]] == [shown(role, each) for each in asked_for]
    assert [entry["field"] for entry in answer["extensions"]["disclosure"]] == sorted(asked_for)


@pytest.mark.parametrize("coordinate", LEAVES)
async def test_a_leaf_asked_for_alone_is_told_of_alone(house: House, known: str, coordinate: str) -> None:
    kind, _, name = coordinate.partition(".")
    for role in Role:
        answer = await asked(house, known, role, "customer", PLACE[kind].format(name))
        inner = answer["data"]["at"] if kind == "Customer" else next(iter(answer["data"]["at"].values()))
        assert unwrapped(inner) == {name: shown(role, coordinate)}, role
        (entry,) = answer["extensions"]["disclosure"]
        assert (entry["field"], entry["level"]) == (coordinate, level(role, coordinate))


@pytest.mark.parametrize("way", ["customer", "node", "customers.nodes"])
@pytest.mark.parametrize(
    ("role", "opened"),
    [
        (Role.OWNER, {"customers.profile", "customers.guarded", "customers.note", "customers.external_id"}),
        (Role.AGENT, {"customers.profile", "customers.external_id"}),
        (Role.ANALYST, {"customers.profile"}),
        (Role.INTEGRATION, set()),
    ],
)
async def test_a_hidden_document_is_not_opened(
    house: House, known: str, monkeypatch: pytest.MonkeyPatch, role: Role, opened: set[str], way: str
) -> None:
    places: list[str] = []
    unspied = Unit.open

    def spied(unit: Unit, place: Any, *rest: Any) -> Any:
        places.append(place.label)
        return unspied(unit, place, *rest)

    monkeypatch.setattr(Unit, "open", spied)
    await asked(house, known, role, way, f"{names('Customer')} {PLACE['Address'].format(names('Address'))}")
    assert sorted(places) == sorted(opened)  # and each other one once


async def test_a_hidden_document_is_not_fetched(house: House, known: str, monkeypatch: pytest.MonkeyPatch) -> None:
    statements: list[str] = []
    unspied = Unit.rows

    async def spied(unit: Unit, statement: Any) -> Any:
        statements.append(str(statement))
        return await unspied(unit, statement)

    await asked(house, known, Role.AGENT, "customer", "version")
    monkeypatch.setattr(Unit, "rows", spied)
    await house.data("query($id: ID!) { customer(id: $id) { note governmentId } }", {"id": known}, role=Role.AGENT)
    assert statements
    assert not [s for s in statements if "customers.note" in s or "customers.guarded" in s or "secret" in s]


async def test_the_schema_itself_discloses_nothing(house: House) -> None:
    answer = await house.ask("{ __typename customers(first: 1) { nodes { id version } } }", role=Role.INTEGRATION)
    assert "extensions" not in answer
