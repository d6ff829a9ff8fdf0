"""Events: what is published commits with the change, names fields and no values, and fits its schema."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg
import orjson
import pytest
from jsonschema import Draft202012Validator, FormatChecker

from domain.webhooks import payloads
from tenants import events
from tenants.access import Role
from tenants.errors import Unauthenticated
from tenants.events import Event, EventKind
from tenants.webhooks import Payload
from tests.house import House

UPDATE = """mutation($i: ID!, $v: Int!, $c: CustomerInput!) {
    updateCustomer(id: $i, version: $v, input: $c) { userErrors { code } } }"""


@dataclass(frozen=True)
class Told:
    """An event as a delivery keeps it."""

    event: Event

    def __getattr__(self, name: str) -> Any:
        return getattr(self.event, {"event_id": "id", "type_version": "version", "happened_at": "at"}.get(name, name))


async def told(house: House, tenant: str = "acme") -> list[Any]:
    connection = await asyncpg.connect(house.superuser_url)
    try:
        mine = house.tenants[tenant].id
        return list(await connection.fetch("SELECT * FROM events WHERE tenant_id = $1 ORDER BY xid, id", mine))
    finally:
        await connection.close()


async def test_a_change_tells_which_fields_it_changed_and_no_more(house: House) -> None:
    made = await house.create(givenName="Ada", phones=["+12022243441"])
    changes = {"givenName": "Ada", "familyName": "Byron", "address": {"city": "London"}, "phones": []}
    await house.data(UPDATE, {"i": made["id"], "v": 1, "c": changes})
    created, updated = (await told(house))[-2:]
    assert (created["type"], created["fields"]) == ("customer.created", ["givenName", "phones"])
    assert (updated["type"], updated["fields"]) == ("customer.updated", ["address.city", "familyName", "phones"])
    assert updated["actor"] == house.members["acme"][Role.OWNER].principal


async def test_a_refused_change_tells_nothing(house: House) -> None:
    made = await house.create(givenName="Ada")
    before = await told(house)
    await house.data(UPDATE, {"i": made["id"], "v": 7, "c": {"givenName": "Bob"}})
    assert await told(house) == before


async def test_of_a_batch_only_the_rows_that_were_made_are_told_of(house: House) -> None:
    before = len(await told(house))
    many = "mutation($i: [CustomerInput!]!) { createCustomers(input: $i) { created } }"
    answer = await house.data(
        many, {"i": [{"givenName": "Ada"}, {"phones": ["none"]}, {"emails": ["a@b.example.org"]}]}
    )
    assert answer["createCustomers"]["created"] == 2
    assert [event["type"] for event in (await told(house))[before:]] == ["customer.created"] * 2


async def test_archiving_twice_is_told_once(house: House) -> None:
    made = await house.create(givenName="Ada")
    before = len(await told(house))
    for _ in range(2):
        await house.data("mutation($i: ID!) { archiveCustomer(id: $i) { userErrors { code } } }", {"i": made["id"]})
    assert [event["type"] for event in (await told(house))[before:]] == ["customer.archived"]


async def test_a_unit_that_fails_tells_nothing(house: House) -> None:
    kind, mine = events.KINDS["customer.archived"], house.tenants["acme"].id
    before = await told(house)
    with pytest.raises(Unauthenticated):
        async with house.api.units.enter(mine, None, write=True) as unit:
            unit.publish(kind, [UUID(int=1)])
            raise Unauthenticated
    assert await told(house) == before


def test_a_value_can_not_slip_in_as_a_fields_name() -> None:
    with pytest.raises(TypeError, match="declares no field"):
        events.checked(events.KINDS["customer.updated"], ["ada@example.org"])


def test_a_type_is_declared_once() -> None:
    with pytest.raises(TypeError, match="declared twice"):
        EventKind("customer.updated", "Customer", "again")


async def test_the_catalogue_describes_what_is_sent(house: House) -> None:
    await house.create(givenName="Ada")
    async with house.api.units.enter(house.tenants["acme"].id, None, write=False) as unit:
        event = await events.find(unit, (await told(house))[-1]["id"])
    assert event is not None
    catalogue = (await house.data("{ eventTypes { name version schema } }"))["eventTypes"]
    assert [each["name"] for each in catalogue] == sorted(events.KINDS)
    schema = next(orjson.loads(each["schema"]) for each in catalogue if each["name"] == event.type)
    payload = orjson.loads(payloads.body("Customer", Told(event)))
    validator = Draft202012Validator(schema, format_checker=FormatChecker())
    assert list(validator.iter_errors(payload)) == []
    assert list(validator.iter_errors({**payload, "data": {**payload["data"], "fields": ["ada@example.org"]}}))


@pytest.mark.parametrize("payload", list(Payload))
@pytest.mark.parametrize("name", sorted(events.KINDS))
def test_each_types_example_fits_its_schema(name: str, payload: Payload) -> None:
    kind = events.KINDS[name]
    validator = Draft202012Validator(payloads.schema(kind), format_checker=FormatChecker())
    assert list(validator.iter_errors(orjson.loads(payloads.example(kind, payload)))) == []
