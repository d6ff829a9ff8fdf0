"""The log of deliveries tells its reader no more than the reader may know anyway; it still tells how they did."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from sqlalchemy import event

from api.paging import global_id
from domain import teams
from tenants.access import Grants, Level, Permission, Role, RoleSpec, Scope, Sensitivity
from tenants.viewers import Credential
from tenants.webhooks import Payload
from tests.house import House
from tests.webhooks.post import PostOffice, post_office
from tests.webhooks.receivers import receiving

OF_ONE = "id type subject fields state reason happenedAt messageId attempts { number status fields bodySha256 }"
LOG = f"query($e: ID) {{ webhookDeliveries(endpoint: $e) {{ nodes {{ {OF_ONE} }} }} }}"
NODE = f"query($id: ID!) {{ node(id: $id) {{ ... on WebhookDelivery {{ {OF_ONE} }} }} }}"
AGAIN = f"mutation($id: ID!) {{ redeliverWebhook(id: $id) {{ delivery {{ {OF_ONE} }} userErrors {{ code }} }} }}"
READER = Permission.CUSTOMERS_READ
MANAGER = Permission.WEBHOOKS_MANAGE
UNTOLD = ("type", "subject", "fields")


async def test_who_may_manage_webhooks_alone_reads_how_they_did_and_not_of_what(house: House) -> None:
    async with sent(house) as (post, endpoint, ada):
        low = await _member(post, MANAGER)
        rows = [row for row in await _log(post, endpoint, low) if row["state"] == "DELIVERED"]
        whole = [row for row in await _log(post, endpoint) if row["state"] == "DELIVERED"]
    assert len(rows) == len(whole) == 2
    assert {row["subject"] for row in whole} == {global_id("Customer", ada)}
    assert all(row[name] is None for row in rows for name in UNTOLD)
    assert all(
        attempt[name] is None for row in rows for attempt in row["attempts"] for name in ("fields", "bodySha256")
    )
    assert [row["attempts"][0]["status"] for row in rows] == [200, 200]
    kept = ("id", "state", "reason", "happenedAt", "messageId")
    assert [[row[name] for name in kept] for row in rows] == [[row[name] for name in kept] for row in whole]


async def test_what_is_told_is_told_by_type(house: House) -> None:
    async with sent(house, types=(), roles=[Role.OWNER]) as (post, endpoint, _):
        async with post.writing() as unit:
            await teams.create(unit, "Night shift")
        await post.settle()
        low = await _member(post, MANAGER, Permission.MEMBERS_READ)
        told = {row["type"] for row in await _log(post, endpoint, low)}
        whole = {row["type"] for row in await _log(post, endpoint)}
    assert {"customer.created", "customer.updated", "team.created"} <= whole
    assert "team.created" in told
    assert None in told and not any(name.startswith("customer.") for name in told if name)


async def test_another_members_customer_is_not_told_to_one_who_sees_own_ones(house: House) -> None:
    async with sent(house) as (post, endpoint, other):
        low = await _member(post, MANAGER, READER, scope=Scope.OWN)
        mine = await post.customer(givenName="Bea")
        await post.superuser.execute("UPDATE customers SET owner_id = $2 WHERE id = $1", mine, low.principal)
        await post.settle()
        rows = await _log(post, endpoint, low)
    assert sorted(str(row["type"]) for row in rows) == ["None", "None", "customer.created"]
    assert {row["subject"] for row in rows} == {None, global_id("Customer", mine)}
    (sent_fields,) = [row["attempts"][0]["fields"] for row in rows if row["subject"]]
    assert "givenName:PLAIN" in sent_fields
    assert global_id("Customer", other) not in str(rows)


async def test_a_customer_that_is_gone_is_told_of_to_those_who_saw_everybody(house: House) -> None:
    async with sent(house) as (post, endpoint, ada):
        low = await _member(post, MANAGER, READER, scope=Scope.OWN)
        await post.superuser.execute("UPDATE customers SET owner_id = $2 WHERE id = $1", ada, low.principal)
        before = {row["subject"] for row in await _log(post, endpoint, low)}
        await post.superuser.execute("DELETE FROM customers WHERE id = $1", ada)
        after = {row["subject"] for row in await _log(post, endpoint, low)}
        whole = {row["subject"] for row in await _log(post, endpoint)}
    assert before == whole == {global_id("Customer", ada)}
    assert after == {None}


async def test_one_delivery_and_one_sent_again_tell_no_more_than_the_list(house: House) -> None:
    async with sent(house) as (post, endpoint, _):
        low = await _member(post, MANAGER)
        (first, *_) = await _log(post, endpoint, low)
        one = (await house.data(NODE, {"id": first["id"]}, member=low))["node"]
        again = (await house.data(AGAIN, {"id": first["id"]}, member=low))["redeliverWebhook"]
    assert one == first
    assert again["userErrors"] == [] and again["delivery"]["state"] == "PENDING"
    assert all(again["delivery"][name] is None for name in UNTOLD)
    assert again["delivery"]["attempts"] == first["attempts"]


async def test_a_test_event_is_told_to_whoever_asked_for_it(house: House) -> None:
    async with sent(house) as (post, endpoint, _):
        low = await _member(post, MANAGER)
        ask = "mutation($e: ID!) { sendTestEvent(endpoint: $e) { delivery { type subject } userErrors { code } } }"
        made = (await house.data(ask, {"e": endpoint}, member=low))["sendTestEvent"]
    assert made["delivery"] == {"type": "webhook.test", "subject": endpoint}


async def test_all_rows_of_a_page_are_decided_in_one_statement(house: House) -> None:
    statements = list[str]()

    def note(_connection: object, _cursor: object, statement: str, *_more: object) -> None:
        statements.append(statement)

    async with sent(house) as (post, endpoint, _):
        low = await _member(post, MANAGER, READER, scope=Scope.OWN)
        await post.customer(givenName="Bea")
        await post.settle()
        engine = house.api.database._engine.sync_engine
        event.listen(engine, "before_cursor_execute", note)
        rows = await _log(post, endpoint, low)
        event.remove(engine, "before_cursor_execute", note)
    assert len(rows) == 3
    assert sum("FROM customers" in each for each in statements) == 1


@asynccontextmanager
async def sent(house: House, **options: Any) -> AsyncIterator[tuple[PostOffice, str, UUID]]:
    """An endpoint that was told of one customer twice: its global id, and the customer."""
    async with receiving() as receiver, post_office(house, receiver.place) as post:
        view, _ = await post.add(receiver.url, payload=Payload.FULL, **options)
        ada = await post.customer(givenName="Ada")
        await post.change(ada, given_name="Ann")
        await post.settle()
        yield post, global_id("WebhookEndpoint", view.id), ada


async def _member(post: PostOffice, *permissions: Permission, scope: Scope = Scope.ALL) -> Credential:
    grants = Grants(frozenset(permissions), {Sensitivity.IDENTITY: Level.PLAIN})
    return await post.house.add_member(RoleSpec(grants, scope), tenant=post.tenant.slug)


async def _log(post: PostOffice, endpoint: str, member: Credential | None = None) -> list[dict[str, Any]]:
    """As that member reads it, or the owner."""
    answer = await post.house.data(LOG, {"e": endpoint}, tenant=post.tenant.slug, member=member)
    found: list[dict[str, Any]] = answer["webhookDeliveries"]["nodes"]
    return found
