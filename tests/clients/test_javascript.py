"""Clients from npm hold one conversation each; nothing is done for Coffer's sake but the Authorization header."""

from typing import Any

import pytest

from tests.clients.conftest import Served
from tests.clients.node_packages import Run


@pytest.fixture(scope="module", params=["graphql-request", "apollo", "urql"])
async def said(request: pytest.FixtureRequest, node: Run, production: Served) -> Any:
    form = {"tenant": production.tenant, "email": production.email, "password": production.password}
    return await node(f"{request.param}.mjs", url=production.url, **form)


def test_a_query_answers_the_member_who_signed_in(said: Any, production: Served) -> None:
    me = {"email": production.email, "roles": ["OWNER"], "tenant": {"slug": production.tenant}}

    assert said["me"] == {"data": {"me": me}, "codes": []}


def test_a_mutation_answers_with_what_it_made(said: Any) -> None:
    made = said["created"]["data"]["createCustomer"]["customer"]

    assert made.pop("id")
    assert made == {"displayName": "Ada Example", "emails": ["ada@example.org"], "version": 1}


def test_what_a_user_can_mend_is_data_and_no_error(said: Any) -> None:
    error = {"code": "INVALID", "path": ["input", "emails", "0"]}

    assert said["refused"] == {"data": {"createCustomer": {"customer": None, "userErrors": [error]}}, "codes": []}


@pytest.mark.parametrize(
    ("question", "data", "code"),
    [
        ("absent", {"customer": None}, "NOT_FOUND"),
        ("anonymous", {"customer": None}, "UNAUTHENTICATED"),
        ("impostor", None, "UNAUTHENTICATED"),
        ("invalid", None, "VALIDATION_FAILED"),
    ],
)
def test_each_error_reaches_the_program_with_its_code(said: Any, question: str, data: Any, code: str) -> None:
    assert said[question] == {"data": data, "codes": [code]}


@pytest.mark.parametrize("client", ["apollo", "urql"])
async def test_the_text_of_a_persisted_query_is_sent_only_once(
    node: Run, production: Served, token: str, client: str
) -> None:
    told = await node(f"{client}-persisted.mjs", url=production.url, token=token)

    assert told["answers"] == [production.email] * 2
    assert [each["text"] for each in told["sent"]] == [False, True, False]
    assert told["sent"][0]["method"] == told["sent"][2]["method"] == "GET"
