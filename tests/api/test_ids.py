"""An id of another tenant answers byte for byte as one that nothing has, and as one that is no id at all."""

import base64
import re
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from api.paging import global_id
from tenants.access import Role
from tests.house import House

REQUEST_ID = re.compile(rb'"requestId":"[^"]*"')
PAYLOAD = "{ customer { id } userErrors { code path message } }"
INPUT = f"mutation($i: CustomerInput!) {{ createCustomer(input: $i) {PAYLOAD} }}"
UPDATE = f"mutation($id: ID!, $i: CustomerInput!) {{ updateCustomer(id: $id, version: 1, input: $i) {PAYLOAD} }}"
LIST = "query($f: CustomerFilter) { customers(filter: $f) { totalCount nodes { id } pageInfo { endCursor } } }"
ROLE = "mutation($n: String!) { createRole(input: { name: $n }) { role { id } } }"
KEY = 'mutation { createApiKey(name: "theirs", roles: [ANALYST]) { apiKey { service { id } } } }'
# Each id argument: the type it takes, a document, and the variables that put the id there.
ARGUMENTS: dict[str, tuple[str, str, Any]] = {
    "customer": ("Customer", "query($id: ID!) { customer(id: $id) { id givenName } }", lambda i: {"id": i}),
    "node": ("Customer", "query($id: ID!) { node(id: $id) { id ... on Customer { note } } }", lambda i: {"id": i}),
    "node of a tag": ("Tag", "query($id: ID!) { node(id: $id) { id ... on Tag { name } } }", lambda i: {"id": i}),
    "node of a member": (
        "Member",
        "query($id: ID!) { node(id: $id) { id ... on Member { name } } }",
        lambda i: {"id": i},
    ),
    "nodes": ("Customer", "query($id: ID!) { nodes(ids: [$id, $id]) { id } }", lambda i: {"id": i}),
    "update": ("Customer", UPDATE, lambda i: {"id": i, "i": {"givenName": "Mallory"}}),
    "archive": ("Customer", f"mutation($id: ID!) {{ archiveCustomer(id: $id) {PAYLOAD} }}", lambda i: {"id": i}),
    "restore": ("Customer", f"mutation($id: ID!) {{ restoreCustomer(id: $id) {PAYLOAD} }}", lambda i: {"id": i}),
    "ownerId": ("Member", INPUT, lambda i: {"i": {"givenName": "Eve", "ownerId": i}}),
    "tagIds": ("Tag", INPUT, lambda i: {"i": {"givenName": "Eve", "tagIds": [i]}}),
    "filter.ownerId": ("Member", LIST, lambda i: {"f": {"ownerId": i}}),
    "filter.tagId": ("Tag", LIST, lambda i: {"f": {"tagId": i}}),
    "sessions": ("Member", "query($id: ID!) { sessions(member: $id) { totalCount } }", lambda i: {"id": i}),
    "members": ("OwnRole", "query($id: ID!) { members(ownRole: $id) { totalCount } }", lambda i: {"id": i}),
    "keys of a service": (
        "Service",
        "mutation($id: ID!) { createApiKey(service: $id) { apiKey { id } userErrors { code message } } }",
        lambda i: {"id": i},
    ),
}
MALFORMED = ["garbage", "", "QQ", "é", "0", "A" * 300, "Q3VzdG9tZXI6", "null", "../../etc"]


@pytest.fixture(scope="module")
async def foreign(house: House) -> dict[str, str]:
    """Ids of globex, which acme's members will send."""
    tag = await house.data('mutation { createTag(name: "theirs") { tag { id } } }', tenant="globex")
    tag_id = str(tag["createTag"]["tag"]["id"])
    made = await house.create(tenant="globex", givenName="Theirs", tagIds=[tag_id])
    member = global_id("Member", house.members["globex"][Role.OWNER].principal)
    role = await house.data(ROLE, {"n": f"role {uuid4().hex}"}, tenant="globex")
    key = await house.data(KEY, tenant="globex")
    return {
        "Customer": str(made["id"]),
        "Tag": tag_id,
        "Member": str(member),
        "OwnRole": role["createRole"]["role"]["id"],
        "Service": key["createApiKey"]["apiKey"]["service"]["id"],
    }


async def answered(house: House, argument: str, sent: str, role: Role = Role.OWNER) -> bytes:
    _, document, variables = ARGUMENTS[argument]
    response = await house.post(document, variables(sent), role=role)
    return REQUEST_ID.sub(b'"requestId":""', response.content)


async def works(house: House, argument: str, foreign: dict[str, str]) -> bool:
    """Whether its owner gets another answer with the very id; else the tests below would prove nothing."""
    kind, document, variables = ARGUMENTS[argument]
    own = await house.post(document, variables(foreign[kind]), tenant="globex")
    return REQUEST_ID.sub(b'"requestId":""', own.content) != await answered(house, argument, foreign[kind])


@pytest.mark.parametrize("argument", ARGUMENTS)
async def test_another_tenants_id_answers_as_an_absent_one(
    house: House, foreign: dict[str, str], argument: str
) -> None:
    kind = ARGUMENTS[argument][0]
    absent = await answered(house, argument, global_id(kind, uuid4()))
    assert await answered(house, argument, foreign[kind]) == absent
    assert await works(house, argument, foreign)


@pytest.mark.parametrize("argument", ARGUMENTS)
async def test_what_is_no_id_answers_as_an_absent_one(house: House, foreign: dict[str, str], argument: str) -> None:
    kind = ARGUMENTS[argument][0]
    absent = await answered(house, argument, global_id(kind, uuid4()))
    for malformed in MALFORMED:
        assert await answered(house, argument, malformed) == absent, malformed


@pytest.mark.parametrize("argument", [name for name in ARGUMENTS if not name.startswith("node")])
async def test_an_id_of_another_type_answers_as_an_absent_one(house: House, argument: str) -> None:
    kind = ARGUMENTS[argument][0]
    made = await house.create(givenName="Typed")
    member = global_id("Member", house.members["acme"][Role.OWNER].principal)
    wrong = member if kind != "Member" else made["id"]
    assert await answered(house, argument, wrong) == await answered(house, argument, global_id(kind, uuid4()))


@pytest.mark.parametrize("argument", ["customer", "node", "nodes", "filter.ownerId", "filter.tagId"])
async def test_the_same_holds_for_every_role(house: House, foreign: dict[str, str], argument: str) -> None:
    kind = ARGUMENTS[argument][0]
    for role in Role:
        absent = await answered(house, argument, global_id(kind, uuid4()), role)
        assert await answered(house, argument, foreign[kind], role) == absent


async def test_a_refused_id_has_changed_nothing_of_the_other_tenant(house: House, foreign: dict[str, str]) -> None:
    read = "query($id: ID!) { customer(id: $id) { givenName version archivedAt updatedAt } }"
    before = await house.data(read, {"id": foreign["Customer"]}, tenant="globex")
    for argument in ("update", "archive", "restore"):
        await answered(house, argument, foreign["Customer"])
    assert await house.data(read, {"id": foreign["Customer"]}, tenant="globex") == before


async def test_nodes_answer_in_the_order_asked_for_with_gaps(house: House, foreign: dict[str, str]) -> None:
    one, two = [(await house.create(givenName=name))["id"] for name in ("Nora", "Nick")]
    ids = [two, foreign["Customer"], one, "garbage", two, global_id("Customer", uuid4())]
    found = await house.data("query($ids: [ID!]!) { nodes(ids: $ids) { id } }", {"ids": ids})
    assert [node and node["id"] for node in found["nodes"]] == [two, None, one, None, two, None]


async def test_more_than_a_hundred_ids_are_refused(house: House) -> None:
    answer = await house.ask("query($ids: [ID!]!) { nodes(ids: $ids) { id } }", {"ids": ["x"] * 101})
    assert answer["errors"][0]["extensions"]["code"] in {"BAD_USER_INPUT", "QUERY_TOO_COSTLY"}


async def test_the_same_email_in_two_tenants_works_and_gives_different_tokens(house: House) -> None:
    found = {}
    for tenant in ("acme", "globex"):
        made = await house.create(tenant=tenant, givenName="Shared", emails=["shared@example.org"])
        again = await house.data(
            'query { findCustomers(by: { email: "shared@example.org" }) { nodes { id } } }', tenant=tenant
        )
        assert again["findCustomers"]["nodes"] == [{"id": made["id"]}]
        found[tenant] = await _email_tokens(house, made["id"])
    assert [len(tokens) for tokens in found.values()] == [1, 1]
    assert found["acme"] != found["globex"]


async def _email_tokens(house: House, customer: str) -> set[bytes]:
    raw = base64.urlsafe_b64decode(customer + "=" * (-len(customer) % 4))
    local = UUID(bytes=raw.removeprefix(b"Customer:"))
    connection = await asyncpg.connect(house.superuser_url)
    try:
        statement = "SELECT token FROM customer_tokens WHERE customer_id = $1 AND index = 'email'"
        return {bytes(row["token"]) for row in await connection.fetch(statement, local)}
    finally:
        await connection.close()
