"""The Python client `gql`, over httpx."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from gql import Client, GraphQLRequest
from gql.client import AsyncClientSession
from gql.transport.exceptions import TransportQueryError
from gql.transport.httpx import HTTPXAsyncTransport
from graphql import GraphQLError

from api.schema import build
from tests.clients.conftest import Served
from tests.house import House

SIGN_IN = """mutation SignIn($tenant: String!, $email: String!, $password: String!) {
  signIn(tenant: $tenant, email: $email, password: $password) { accessToken tokenType userErrors { code } } }"""
PAGE = """query Page($after: String) {
  customers(filter: { source: "gql" }, sort: { field: CREATED_AT, direction: ASC }, first: 2, after: $after) {
    totalCount nodes { externalId } pageInfo { hasNextPage endCursor } } }"""
CREATE = """mutation Create($input: CustomerInput!) {
  createCustomer(input: $input) { customer { id emails stage version } userErrors { code path message } } }"""
CUSTOMER = "query Customer($id: ID!) { customer(id: $id) { id } }"


def client(url: str, token: str | None = None, **options: Any) -> Client:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return Client(transport=HTTPXAsyncTransport(url, headers=headers, trust_env=False), **options)


async def ask(session: AsyncClientSession, document: str, **variables: Any) -> dict[str, Any]:
    answer: dict[str, Any] = await session.execute(GraphQLRequest(document, variable_values=variables))
    return answer


def code(raised: pytest.ExceptionInfo[TransportQueryError]) -> Any:
    assert raised.value.errors
    return raised.value.errors[0]["extensions"]["code"]


@pytest.fixture
async def member(production: Served, token: str) -> AsyncIterator[AsyncClientSession]:
    async with client(production.url, token) as session:
        yield session


@pytest.fixture
async def anonymous(production: Served) -> AsyncIterator[AsyncClientSession]:
    async with client(production.url) as session:
        yield session


async def test_signing_in_gives_a_token_that_opens_the_next_session(
    anonymous: AsyncClientSession, production: Served
) -> None:
    form = {"tenant": production.tenant, "email": production.email, "password": production.password}

    payload = (await ask(anonymous, SIGN_IN, **form))["signIn"]

    async with client(production.url, payload["accessToken"]) as session:
        assert await ask(session, "{ me { email } }") == {"me": {"email": production.email}}


async def test_pages_are_walked_by_their_cursors_to_the_end(
    member: AsyncClientSession, house: House, tenant: str
) -> None:
    made = [f"gql-{n}" for n in range(5)]
    for external_id in made:
        await house.create(tenant=tenant, source="gql", externalId=external_id)
    pages: list[Any] = []
    after = None

    while not pages or pages[-1]["pageInfo"]["hasNextPage"]:
        pages.append((await ask(member, PAGE, after=after))["customers"])
        after = pages[-1]["pageInfo"]["endCursor"]

    assert [len(page["nodes"]) for page in pages] == [2, 2, 1]
    assert [node["externalId"] for page in pages for node in page["nodes"]] == made
    assert {page["totalCount"] for page in pages} == {5}


async def test_a_customer_is_created_from_variables(member: AsyncClientSession) -> None:
    payload = (await ask(member, CREATE, input={"emails": ["ada@example.org"], "stage": "PROSPECT"}))["createCustomer"]

    assert payload["customer"].pop("id")
    assert payload == {
        "customer": {"emails": ["ada@example.org"], "stage": "PROSPECT", "version": 1},
        "userErrors": [],
    }


async def test_what_a_user_can_mend_raises_nothing(member: AsyncClientSession) -> None:
    payload = (await ask(member, CREATE, input={"emails": ["no e-mail"]}))["createCustomer"]

    assert payload["customer"] is None
    assert [(each["code"], each["path"]) for each in payload["userErrors"]] == [("INVALID", ["input", "emails", "0"])]


async def test_an_absent_customer_raises_its_code_and_keeps_the_data(member: AsyncClientSession) -> None:
    with pytest.raises(TransportQueryError) as raised:
        await ask(member, CUSTOMER, id="absent")

    assert code(raised) == "NOT_FOUND"
    assert raised.value.data == {"customer": None}


async def test_a_token_that_is_none_raises_its_code(production: Served) -> None:
    async with client(production.url, "no-token") as session:
        with pytest.raises(TransportQueryError) as raised:
            await ask(session, CUSTOMER, id="absent")

    assert code(raised) == "UNAUTHENTICATED"


async def test_a_wrong_field_raises_its_code(member: AsyncClientSession) -> None:
    with pytest.raises(TransportQueryError) as raised:
        await ask(member, "{ nothing }")

    assert code(raised) == "VALIDATION_FAILED"


async def test_a_member_fetches_the_schema_and_has_queries_checked_by_it(production: Served, token: str) -> None:
    async with client(production.url, token, fetch_schema_from_transport=True) as session:
        with pytest.raises(GraphQLError, match="Cannot query field 'nothing'"):
            await ask(session, "{ nothing }")

    assert session.client.schema is not None
    assert session.client.schema.type_map.keys() == build()[0].type_map.keys()


async def test_the_anonymous_fetch_no_schema(production: Served) -> None:
    with pytest.raises(TransportQueryError) as raised:
        async with client(production.url, fetch_schema_from_transport=True):
            pass

    assert code(raised) == "INTROSPECTION_DISABLED"
