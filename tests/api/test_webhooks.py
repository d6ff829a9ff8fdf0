"""Endpoints of webhooks over GraphQL: within one's own rights, to public places alone; secrets are shown once."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from api.paging import global_id
from domain.webhooks.endpoints import MOST_ENDPOINTS
from tenants.access import Grants, Level, Permission, Role, RoleSpec, Sensitivity
from tenants.ids import new_id
from tests.canaries import Canaries
from tests.house import House
from tests.test_egress import HOSTS

URL = "https://93.184.215.14/hook"
CREATE = """mutation($i: WebhookEndpointInput!) { createWebhookEndpoint(input: $i) { secret publicKey
    endpoint { id url state payload types roles version secrets { publicKey expiresAt } health { pending } }
    userErrors { code path message } } }"""
UPDATE = """mutation($id: ID!, $v: Int!, $i: WebhookEndpointInput!) {
    updateWebhookEndpoint(id: $id, version: $v, input: $i) {
        endpoint { url payload types roles version } userErrors { code path } } }"""
ROTATE = """mutation($id: ID!) { rotateWebhookSecret(id: $id) { secret publicKey
    endpoint { secrets { publicKey expiresAt } } userErrors { code path } } }"""
LIST = "{ webhookEndpoints { nodes { id url state disabledWhy secrets { publicKey } } totalCount } }"
LOG = """query($e: ID) { webhookDeliveries(endpoint: $e) { nodes { id messageId type state dueAt subject
    endpoint { id } attempts { number } } totalCount } }"""
PREVIEW = """query($e: ID, $r: [Role!], $o: [ID!], $c: ID, $p: WebhookPayload) {
    webhookPreview(endpoint: $e, roles: $r, ownRoles: $o, customer: $c, payload: $p) { isSent body fields } }"""


@pytest.fixture
async def tenant(house: House) -> AsyncIterator[str]:
    """Whose endpoints are gone afterwards, before somebody's sender finds them."""
    slug = f"api-hooks-{new_id().hex[-12:]}"
    made = await house.add_tenant(slug)
    yield slug
    superuser = await asyncpg.connect(house.superuser_url)
    await superuser.execute("DELETE FROM webhook_endpoints WHERE tenant_id = $1", made.id)
    await superuser.close()


async def create(house: House, tenant: str, role: Role = Role.OWNER, **sent: Any) -> Any:
    given = {"name": "CRM", "url": URL, "roles": ["INTEGRATION"], **sent}
    return (await house.data(CREATE, {"i": given}, tenant=tenant, role=role))["createWebhookEndpoint"]


def codes(payload: Any) -> list[tuple[str, list[str]]]:
    return [(error["code"], error["path"]) for error in payload["userErrors"]]


async def test_an_endpoint_is_made_and_its_secret_is_shown_once(house: House, tenant: str) -> None:
    made = await create(house, tenant, types=["customer.*"])
    assert made["secret"].startswith("whsec_")
    assert made["endpoint"] == {
        "id": made["endpoint"]["id"],
        "url": URL,
        "state": "ACTIVE",
        "payload": "THIN",
        "types": ["customer.*"],
        "roles": ["INTEGRATION"],
        "version": 1,
        "secrets": [{"publicKey": made["publicKey"], "expiresAt": None}],
        "health": {"pending": 0},
    }
    listed = await house.data(LIST, tenant=tenant)
    assert listed["webhookEndpoints"]["totalCount"] == 1
    assert Canaries({"secret": made["secret"].removeprefix("whsec_")}).found("the list", str(listed).encode()) == []


@pytest.mark.parametrize("role", [role for role in Role if role not in (Role.OWNER, Role.ADMIN)])
async def test_who_may_not_manage_webhooks_sees_and_makes_none(house: House, role: Role) -> None:
    for document, variables in ((LIST, {}), (CREATE, {"i": {"name": "x", "url": URL, "roles": ["ANALYST"]}})):
        answer = await house.ask(document, variables, role=role)
        assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"


async def test_nobody_gives_an_endpoint_more_than_they_have(house: House, tenant: str) -> None:
    assert codes(await create(house, tenant, Role.ADMIN, roles=["MANAGER"])) == [
        ("BEYOND_YOUR_RIGHTS", ["input", "roles"])
    ]
    owners = (await create(house, tenant, roles=["MANAGER"]))["endpoint"]["id"]
    elsewhere = {"id": owners, "v": 1, "i": {"url": "https://93.184.215.14/mine"}}
    moved = (await house.data(UPDATE, elsewhere, tenant=tenant, role=Role.ADMIN))["updateWebhookEndpoint"]
    assert codes(moved) == [("BEYOND_YOUR_RIGHTS", ["input", "roles"])]
    rotated = (await house.data(ROTATE, {"id": owners}, tenant=tenant, role=Role.ADMIN))["rotateWebhookSecret"]
    assert (codes(rotated), rotated["secret"]) == ([("BEYOND_YOUR_RIGHTS", ["id"])], None)
    assert (await house.data(LIST, tenant=tenant))["webhookEndpoints"]["nodes"][0]["url"] == URL


SPELLINGS = [f"https://{host}/" for hosts in HOSTS.values() for host in hosts if host.isascii() and " " not in host]


async def test_no_spelling_of_an_inside_address_is_taken(house: House, tenant: str) -> None:
    bad = ["http://93.184.215.14/", "https://u:p@93.184.215.14/", "https://93.184.215.14:22/", "ftp://93.184.215.14/"]
    for url in [*SPELLINGS, *bad]:
        made = await create(house, tenant, url=url)
        assert codes(made) == [("INVALID", ["input", "url"])], url
    assert (await house.data(LIST, tenant=tenant))["webhookEndpoints"]["totalCount"] == 0


async def test_what_is_wrong_is_named(house: House, tenant: str) -> None:
    assert codes(await create(house, tenant, url=None)) == [("REQUIRED", ["input", "url"])]
    assert codes(await create(house, tenant, roles=[])) == [("REQUIRED", ["input", "roles"])]
    assert codes(await create(house, tenant, types=["customer.sold"])) == [("INVALID", ["input", "types"])]
    assert MOST_ENDPOINTS == 50


async def test_while_a_secret_rotates_two_are_valid_at_most(house: House, tenant: str) -> None:
    made = await create(house, tenant)
    for _ in range(3):
        rotated = (await house.data(ROTATE, {"id": made["endpoint"]["id"]}, tenant=tenant))["rotateWebhookSecret"]
    now, before = rotated["endpoint"]["secrets"]
    assert (now["publicKey"], now["expiresAt"]) == (rotated["publicKey"], None)
    assert before["expiresAt"] is not None


async def test_an_update_needs_the_version_that_was_read(house: House, tenant: str) -> None:
    id = (await create(house, tenant))["endpoint"]["id"]
    change = {"id": id, "v": 1, "i": {"payload": "FULL", "types": ["member.*"], "roles": ["ANALYST"], "name": "Anew"}}
    changed = (await house.data(UPDATE, change, tenant=tenant))["updateWebhookEndpoint"]
    assert changed["endpoint"] == {
        "url": URL,
        "payload": "FULL",
        "types": ["member.*"],
        "roles": ["ANALYST"],
        "version": 2,
    }
    again = (await house.data(UPDATE, change, tenant=tenant))["updateWebhookEndpoint"]
    assert codes(again) == [("STALE_VERSION", ["version"])]


async def test_one_is_disabled_enabled_and_deleted(house: House, tenant: str) -> None:
    id = (await create(house, tenant))["endpoint"]["id"]
    act = "mutation($id: ID!) { ACT(id: $id) { endpoint { state disabledWhy } userErrors { code } } }"
    off = await house.data(act.replace("ACT", "disableWebhookEndpoint"), {"id": id}, tenant=tenant)
    assert off["disableWebhookEndpoint"]["endpoint"] == {"state": "DISABLED", "disabledWhy": "BY_MEMBER"}
    test = "mutation($id: ID!) { sendTestEvent(endpoint: $id) { userErrors { code } } }"
    refused = (await house.data(test, {"id": id}, tenant=tenant))["sendTestEvent"]
    assert refused["userErrors"] == [{"code": "ENDPOINT_DISABLED"}]
    on = await house.data(act.replace("ACT", "enableWebhookEndpoint"), {"id": id}, tenant=tenant)
    assert on["enableWebhookEndpoint"]["endpoint"] == {"state": "ACTIVE", "disabledWhy": None}
    gone = "mutation($id: ID!) { deleteWebhookEndpoint(id: $id) { id userErrors { code } } }"
    assert (await house.data(gone, {"id": id}, tenant=tenant))["deleteWebhookEndpoint"]["id"] == id
    again = (await house.data(gone, {"id": id}, tenant=tenant))["deleteWebhookEndpoint"]
    assert again["userErrors"] == [{"code": "NOT_FOUND"}]


async def test_a_test_event_waits_in_the_log(house: House, tenant: str) -> None:
    id = (await create(house, tenant))["endpoint"]["id"]
    test = "mutation($id: ID!) { sendTestEvent(endpoint: $id) { delivery { id } userErrors { code } } }"
    delivery = (await house.data(test, {"id": id}, tenant=tenant))["sendTestEvent"]["delivery"]["id"]
    (row,) = (await house.data(LOG, {"e": id}, tenant=tenant))["webhookDeliveries"]["nodes"]
    assert (row["id"], row["type"], row["state"], row["endpoint"]["id"]) == (delivery, "webhook.test", "PENDING", id)
    assert row["messageId"].startswith("msg_")
    again = "mutation($id: ID!) { redeliverWebhook(id: $id) { delivery { state } userErrors { code } } }"
    assert (await house.data(again, {"id": delivery}, tenant=tenant))["redeliverWebhook"]["userErrors"] == []


async def test_another_tenants_endpoint_is_not_there(house: House, tenant: str) -> None:
    id = (await create(house, tenant))["endpoint"]["id"]
    for name in ("enableWebhookEndpoint", "disableWebhookEndpoint", "rotateWebhookSecret", "deleteWebhookEndpoint"):
        document = "mutation($id: ID!) { ACT(id: $id) { userErrors { code } } }".replace("ACT", name)
        answer = await house.data(document, {"id": id}, tenant="globex")
        assert answer[name]["userErrors"] == [{"code": "NOT_FOUND"}]
    assert (await house.data(LOG, {"e": id}, tenant="globex"))["webhookDeliveries"]["nodes"] == []
    found = await house.data("query($id: ID!) { node(id: $id) { id } }", {"id": id}, tenant="globex")
    assert found["node"] is None


async def test_a_preview_shows_what_the_role_would_get(house: House, tenant: str) -> None:
    customer = (await house.create(tenant=tenant, givenName="Ada", emails=["ada.lovelace@example.org"]))["id"]
    asked = {"r": ["AGENT"], "c": customer}
    shown = (await house.data(PREVIEW, asked, tenant=tenant))["webhookPreview"]
    assert shown["isSent"] and '"Ada"' in shown["body"] and '"a***@e***.org"' in shown["body"]
    thin = (await house.data(PREVIEW, asked | {"p": "THIN"}, tenant=tenant))["webhookPreview"]
    assert "Ada" not in thin["body"] and thin["fields"] == []
    entries = await house.data(
        '{ auditEntries(first: 1, filter: { action: "personal.disclosed" }) { nodes { fields } } }', tenant=tenant
    )
    assert "Customer.givenName:PLAIN" in entries["auditEntries"]["nodes"][0]["fields"]


async def test_a_preview_shows_nobody_more_than_they_see_anyway(house: House, tenant: str) -> None:
    customer = (await house.create(tenant=tenant, givenName="Ada", familyName="Lovelace-Byron"))["id"]
    asked = {"r": ["OWNER"], "c": customer}
    shown = (await house.data(PREVIEW, asked, tenant=tenant, role=Role.ADMIN))["webhookPreview"]
    assert "Ada" not in shown["body"] and "Lovelace" not in shown["body"]
    grants = Grants(frozenset({Permission.WEBHOOKS_MANAGE}), {Sensitivity.IDENTITY: Level.PLAIN})
    blind = await house.add_member(RoleSpec(grants), tenant=tenant)
    answer = await house.ask(PREVIEW, {"r": ["OWNER"], "c": customer}, member=blind)
    assert answer["errors"][0]["extensions"]["code"] == "NOT_FOUND"


async def test_a_preview_wants_one_of_each(house: House) -> None:
    for asked in ({}, {"r": ["AGENT"]}, {"c": global_id("Customer", house.tenants["acme"].id)}):
        answer = await house.ask(PREVIEW, asked)
        assert answer["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"
