"""A keyed request that is sent again after what it made is gone: that is said, and nothing is made anew."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tenants.access import SPECS, Role, Scope
from tests.api.staff import CREATE as CREATE_ROLE
from tests.api.staff import done, id_of
from tests.erasing import ERASE, Leaver
from tests.house import House

ERRORS = "userErrors { code path }"
CREATE = f"mutation($i: CustomerInput!) {{ at: createCustomer(input: $i) {{ customer {{ id }} {ERRORS} }} }}"
MANY = f"""mutation($i: [CustomerInput!]!) {{ at: createCustomers(input: $i) {{
  created outcomes {{ customer {{ id }} {ERRORS} }} {ERRORS} }} }}"""
UPDATE = f"""mutation($c: ID!, $i: CustomerInput!) {{
  at: updateCustomer(id: $c, version: 1, input: $i) {{ customer {{ id }} {ERRORS} }} }}"""
TAG = f"mutation($n: String!) {{ at: createTag(name: $n) {{ tag {{ id }} {ERRORS} }} }}"
HAND_OVER = f"mutation($c: ID!, $t: ID!) {{ at: handOverCustomer(id: $c, to: $t) {{ customer {{ id }} {ERRORS} }} }}"
HAND_OVER_MANY = f"""mutation($c: [ID!], $t: ID!) {{ at: handOverCustomers(ids: $c, to: $t) {{
  handedOver outcomes {{ customer {{ id }} {ERRORS} }} {ERRORS} }} }}"""


@pytest.fixture
async def leaver(house: House, tmp_path: Path) -> AsyncIterator[Leaver]:
    made = await Leaver.made(house, tmp_path)
    yield made
    await made.close()


async def keyed(leaver: Leaver, document: str, key: str, **variables: Any) -> dict[str, Any]:
    headers = {"idempotency-key": key}
    answer = await leaver.house.data(document, variables, tenant=leaver.tenant.slug, headers=headers)
    payload: dict[str, Any] = answer["at"]
    return payload


async def erase(leaver: Leaver, id: str) -> None:
    assert (await done(leaver.house, await leaver.proven(Role.OWNER), ERASE, id=id))["userErrors"] == []


async def test_an_erased_customer_is_said_to_be_gone(leaver: Leaver) -> None:
    sent: dict[str, Any] = {"i": {"givenName": "Ada"}}
    id = (await keyed(leaver, CREATE, "made", **sent))["customer"]["id"]
    change = {"c": id, "i": {"note": "x"}}
    assert (await keyed(leaver, UPDATE, "changed", **change))["customer"]["id"] == id
    await erase(leaver, id)

    again = await keyed(leaver, CREATE, "made", **sent)
    changed = await keyed(leaver, UPDATE, "changed", **change)

    assert again == {"customer": None, "userErrors": [{"code": "NOT_FOUND", "path": ["input"]}]}
    assert changed == {"customer": None, "userErrors": [{"code": "NOT_FOUND", "path": ["id"]}]}
    assert await leaver.count("customers") == 0


async def test_of_many_each_that_is_gone_is_said_so(leaver: Leaver) -> None:
    sent = {"i": [{"givenName": "Ada"}, {"givenName": "Grace"}]}
    (first, second) = (await keyed(leaver, MANY, "many", **sent))["outcomes"]
    await erase(leaver, first["customer"]["id"])

    again = await keyed(leaver, MANY, "many", **sent)

    gone = {"customer": None, "userErrors": [{"code": "NOT_FOUND", "path": ["input", "0"]}]}
    assert again == {"created": 1, "outcomes": [gone, second], "userErrors": []}
    assert await leaver.count("customers") == 1


async def test_what_a_change_itself_put_out_of_reach_is_answered_as_before(leaver: Leaver) -> None:
    slug, house = leaver.tenant.slug, leaver.house
    own = await house.add_member(replace(SPECS[Role.MANAGER], scope=Scope.OWN), tenant=slug)
    other = await house.add_member(SPECS[Role.MANAGER], tenant=slug)
    one, two = [await leaver.customer(emails=[], ownerId=id_of(own)) for _ in range(2)]
    headers = {"authorization": f"Bearer {await house.token(own)}", "idempotency-key": uuid4().hex}
    for document, customers in ((HAND_OVER, one), (HAND_OVER_MANY, [two])):
        sent = {"c": customers, "t": id_of(other)}
        first, again = [await house.ask(document, sent, role=None, headers=headers) for _ in range(2)]
        headers["idempotency-key"] = uuid4().hex

        assert first["data"] == again["data"]
        told = first["data"]["at"].get("outcomes", [first["data"]["at"]])
        assert told == [{"customer": None, "userErrors": []}]


async def test_a_tag_and_a_role_that_are_gone_are_said_to_be(leaver: Leaver) -> None:
    role = {"i": {"name": "made once"}}
    assert (await keyed(leaver, TAG, "tag", n="vip"))["tag"]["id"]
    assert (await keyed(leaver, CREATE_ROLE, "role", **role))["role"]["id"]
    for table in ("tags", "roles"):
        await leaver.fetch(f"DELETE FROM {table} WHERE tenant_id = $1")

    for document, key, sent in ((TAG, "tag", {"n": "vip"}), (CREATE_ROLE, "role", role)):
        again = await keyed(leaver, document, key, **sent)
        assert again[key] is None
        assert [error["code"] for error in again["userErrors"]] == ["NOT_FOUND"]
