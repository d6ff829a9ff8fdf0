"""What an endpoint is sent is decided at each attempt, from the row and the rights as they are by then."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson
import pytest
from jsonschema import Draft202012Validator, FormatChecker

from domain.webhooks import audience, payloads
from tenants import ids
from tenants.access import Grants, Level, Permission, Role, RoleSpec, Scope, Sensitivity
from tenants.events import KINDS
from tenants.ids import new_id
from tenants.roles import OwnRole
from tenants.webhooks import Payload
from tests.canaries import Canaries
from tests.house import House
from tests.webhooks.post import PostOffice, post_office
from tests.webhooks.receivers import OK, receiving, status

PERSON = {
    "givenName": "Zoë-Quillander",
    "familyName": "Vandermeer",
    "emails": ["zoe.vandermeer@example.org"],
    "phones": ["+12022243441"],
    "governmentId": "QX-Brambling-Z",
    "note": "likes harpsichords",
    "birthDate": "1984-02-03",
    "address": {"city": "Utrecht", "lines": ["Oudegracht 12"], "postalCode": "3511", "country": "NL"},
}


async def test_a_role_changed_between_event_and_attempt_changes_the_payload(house: House) -> None:
    async with receiving() as receiver, post_office(house, receiver.place) as post:
        receiver.answer = lambda _got: status(500) if len(receiver.got) == 1 else OK
        view, _ = await post.add(receiver.url, roles=[Role.MANAGER], payload=Payload.FULL)
        await post.customer(**PERSON)
        await post.settle()
        await post.superuser.execute("UPDATE member_roles SET role = 'ANALYST' WHERE member_id = $1", view.member_id)
        await post.run_out()
    before, after = (got.json["data"]["customer"] for got in receiver.got)
    assert (before["givenName"], before["emails"]) == (PERSON["givenName"], PERSON["emails"])
    assert not {"givenName", "emails", "note", "governmentId"} & set(after)
    assert after["address"]["city"] == "Utrecht"
    assert receiver.ids[0] == receiver.ids[1]


async def test_a_value_changed_between_event_and_attempt_is_sent_as_it_is_by_then(house: House) -> None:
    async with receiving() as receiver, post_office(house, receiver.place) as post:
        receiver.answer = lambda _got: status(500) if len(receiver.got) == 1 else OK
        await post.add(receiver.url, payload=Payload.FULL)
        ada = await post.customer(givenName="Ada")
        await post.settle()
        await post.change(ada, given_name="Ann")
        await post.run_out()
    assert [got.json["data"]["customer"]["givenName"] for got in receiver.got] == ["Ada", "Ann", "Ann"]


@pytest.mark.parametrize("role", list(Role))
async def test_what_a_role_hides_is_in_none_of_its_messages(house: House, role: Role) -> None:
    async with receiving() as receiver, post_office(house, receiver.place) as post:
        await post.add(receiver.url, roles=[role], payload=Payload.FULL)
        await post.customer(**PERSON)
        await post.settle()
        (got,) = receiver.got
        validator = Draft202012Validator(payloads.schema(KINDS["customer.created"]), format_checker=FormatChecker())
        assert list(validator.iter_errors(got.json)) == []
        shown = {each.partition(":")[0] for each in await _attempted(post) if each.endswith(":PLAIN")}
    data = got.json["data"]
    plain = {name for name, level in data["levels"].items() if level == "PLAIN"}
    cores = {"givenName": "Quillander", "familyName": "andermeer", "governmentId": "brambling", "note": "harpsichord"}
    hidden = Canaries({name: core for name, core in cores.items() if name not in plain})
    assert hidden.found("the body", got.body) == []
    assert shown == plain


async def _attempted(post: PostOffice) -> list[str]:
    (row,) = await post.rows("SELECT fields FROM webhook_attempts WHERE tenant_id = $1")
    return list(row["fields"])


async def test_a_customer_beyond_the_scope_of_the_roles_is_not_told_of(house: House) -> None:
    async with receiving() as receiver, post_office(house, receiver.place) as post:
        spec = RoleSpec(Grants(frozenset({Permission.CUSTOMERS_READ}), {Sensitivity.IDENTITY: Level.PLAIN}), Scope.OWN)
        await post.add(receiver.url, roles=[], own=[await _role(post, spec)], payload=Payload.THIN)
        await post.customer(givenName="Ada")
        await post.settle()
        (row,) = await post.rows("SELECT state, reason, attempt FROM webhook_deliveries WHERE tenant_id = $1")
    assert receiver.got == []
    assert tuple(row) == ("SKIPPED", "OUT_OF_REACH", 0)


async def test_an_erased_customer_is_told_of_by_its_id(house: House) -> None:
    async with receiving(lambda _got: status(500)) as receiver, post_office(house, receiver.place) as post:
        await post.add(receiver.url, payload=Payload.FULL)
        ada = await post.customer(givenName="Ada")
        await post.settle()
        await _erase(post, ada)
        receiver.answer = lambda _got: OK
        await post.run_out()
    assert [set(got.json["data"]) - {"eventId", "version", "subject", "fields"} for got in receiver.got] == [
        {"customer", "levels", "nonce"},
        set(),
    ]


async def test_one_that_is_gone_is_told_of_where_it_was_told_of_before(house: House) -> None:
    async with receiving() as receiver, post_office(house, receiver.place) as post:
        reading = Grants(frozenset({Permission.CUSTOMERS_READ}), {})
        own = await _role(post, RoleSpec(reading, Scope.OWN))
        view, _ = await post.add(receiver.url, roles=[], own=[own])
        known, unknown = await post.customer(givenName="Ada"), await post.customer(givenName="Bea")
        await post.superuser.execute("UPDATE customers SET owner_id = $2 WHERE id = $1", known, view.member_id)
        await post.settle()
        assert len(receiver.got) == 1
        for customer in (known, unknown):
            await post.change(customer, note="x")
            await _erase(post, customer)
        await post.settle()
    told = [got.json["data"]["subject"]["id"] for got in receiver.got]
    assert told == [ids.global_id("Customer", known)] * 2


async def test_nothing_is_sent_that_is_not_on_record(house: House) -> None:
    async with receiving() as receiver, post_office(house, receiver.place) as post:
        await post.add(receiver.url, payload=Payload.FULL)
        await post.customer(givenName="Ada")
        await post.superuser.execute("REVOKE INSERT ON audit_entries FROM coffer_recorder")
        try:
            await post.settle()
        finally:
            await post.superuser.execute("GRANT INSERT ON audit_entries TO coffer_recorder")
        assert receiver.got == []
        post.clock.turn(timedelta(seconds=5))
        await post.settle()
        (row,) = await post.rows("SELECT attempt, state FROM webhook_deliveries WHERE tenant_id = $1")
    assert (len(receiver.got), tuple(row)) == (1, (1, "DELIVERED"))


async def test_a_spent_budget_masks_what_is_sent(house: House) -> None:
    async with receiving() as receiver, post_office(house, receiver.place) as post:
        await post.add(receiver.url, payload=Payload.FULL)
        await post.customer(givenName="Zoë-Quill Maria")
        await post.superuser.execute("UPDATE tenants SET disclosure_budget = 0 WHERE id = $1", post.tenant.id)
        await post.settle()
    assert set(receiver.got[0].json["data"]["levels"].values()) == {"MASKED"}


async def test_neither_bodies_nor_addresses_nor_answers_are_stored(house: House) -> None:
    answer = b"HTTP/1.1 500 No\r\nContent-Length: 13\r\n\r\nsecret answer"
    async with receiving(lambda _got: answer) as receiver, post_office(house, receiver.place) as post:
        _, secret = await post.add(f"{receiver.url}?key=hidden-path", payload=Payload.FULL)
        await post.customer(**PERSON)
        await post.settle()
        tables = ("webhook_endpoints", "webhook_secrets", "webhook_deliveries", "webhook_attempts", "events")
        stored = b"".join(
            orjson.dumps([{name: _text(value) for name, value in row.items()} for row in rows])
            for rows in [await post.rows(f"SELECT * FROM {table} WHERE tenant_id = $1") for table in tables]
        )
    assert b"harpsichord" in receiver.got[0].body
    found = {"address": "hidden-path", "answer": "secret answer", "note": "harpsichord", "secret": secret.secret}
    assert Canaries(found).found("the tables", stored) == []


def _text(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def test_each_kind_of_event_has_an_audience() -> None:
    assert {kind.subject for kind in KINDS.values()} <= audience.PERMISSIONS.keys()


async def _role(post: PostOffice, spec: RoleSpec) -> UUID:
    role = new_id()
    async with post.house.api.units.enter(post.tenant.id, None, write=True) as unit:
        moments = {"created_at": unit.now, "updated_at": unit.now}
        named = {"name": f"Role {role}", "description": "", "spec": spec.dump(), "version": 1}
        unit.add(OwnRole(tenant_id=post.tenant.id, id=role, **named, **moments))
    return role


async def _erase(post: PostOffice, customer: UUID) -> None:
    await post.superuser.execute("DELETE FROM customers WHERE id = $1", customer)
    await post.superuser.execute("DELETE FROM subjects WHERE id = $1", customer)
