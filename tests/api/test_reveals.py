"""Revealing: one value whole, for whoever sees its mask; recorded before it answers, and never too often."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from api.app import Api
from api.directives import label
from api.operation import Operations
from api.paging import local_id
from domain import reveals
from domain.customers import FIELDS
from domain.errors import Refused
from tenants.access import Role
from tenants.audit.chains import AuditChains
from tenants.audit.store import CheckpointStore
from tenants.signing_in import sessions
from tenants.unit import Unit
from tenants.viewers import Credential
from tests.house import House
from tests.tenants.chained import fetch

REVEAL = """mutation($id: ID!, $field: CustomerField!, $purpose: String! = "support-case", $ticket: String) {
  revealCustomerField(id: $id, field: $field, purpose: $purpose, ticket: $ticket) {
    revealed { customerId field values } userErrors { code path } } }"""
SECRETS: dict[str, Any] = {
    "givenName": ["Wilhelmina"],
    "familyName": ["Revealed"],
    "displayName": ["Wilhelmina Revealed"],
    "emails": ["wilhelmina@example.org", "w@example.com"],
    "phones": ["+12022243441"],
    "addressLines": ["1 Main Street", "Flat 2"],
    "city": ["Springfield"],
    "postalCode": ["12345"],
    "country": ["US"],
    "birthDate": ["1975-03-04"],
    "governmentId": ["1234567"],
    "note": ["likes tea"],
    "externalId": ["REV-1001"],
}
# Who has the permission, and of which fields no more than nothing.
HIDDEN = {Role.OWNER: set(), Role.MANAGER: set(), Role.AGENT: {"governmentId", "note"}}


@pytest.fixture(scope="module")
async def known(house: House) -> str:
    made = await house.create(
        **{name: SECRETS[name][0] for name in ("givenName", "familyName", "birthDate", "governmentId", "note")},
        **{name: SECRETS[name] for name in ("emails", "phones")},
        externalId=SECRETS["externalId"][0],
        address={"lines": SECRETS["addressLines"], "city": "Springfield", "postalCode": "12345", "country": "US"},
    )
    return str(made["id"])


@pytest.fixture
async def slug(house: House) -> AsyncIterator[str]:
    """A tenant whose members have revealed nothing yet."""
    name = f"reveal-{uuid4().hex[:8]}"
    await house.add_tenant(name)
    yield name


async def asked(house: House, id: str, field: str = "phones", **who: Any) -> dict[str, Any]:
    sent: dict[str, str] = {name: who.pop(name) for name in ("purpose", "ticket") if name in who}
    return await house.ask(REVEAL, {"id": id, "field": field, **sent}, **who)


async def recorded(house: House, tenant: str = "acme") -> list[Any]:
    statement = "SELECT * FROM audit_entries WHERE tenant_id = $1 AND action = 'personal.revealed' ORDER BY xid, id"
    return await fetch(house, statement, house.tenants[tenant].id)


def code(answer: dict[str, Any]) -> str:
    """Of the only error or user error."""
    (error,) = answer.get("errors") or [{"extensions": answer["data"]["revealCustomerField"]["userErrors"][0]}]
    return str(error["extensions"]["code"])


def test_every_field_of_a_customer_is_asked_for_here() -> None:
    assert {label(name) for name in FIELDS} == {f"Customer.{name}" for name in SECRETS}


@pytest.mark.parametrize("field", SECRETS)
@pytest.mark.parametrize("role", Role)
async def test_who_sees_a_mask_may_have_the_value(house: House, known: str, role: Role, field: str) -> None:
    before = len(await recorded(house))
    answer = await asked(house, known, field, role=role)
    is_open = role in HIDDEN and field not in HIDDEN[role]
    if is_open:
        told = {"customerId": known, "field": field, "values": SECRETS[field]}
        assert answer["data"]["revealCustomerField"] == {"revealed": told, "userErrors": []}
    else:
        assert (answer["data"], code(answer)) == ({"revealCustomerField": None}, "FORBIDDEN")
    assert len(await recorded(house)) == before + is_open


async def test_it_is_on_record_with_purpose_and_ticket_and_without_the_value(house: House, known: str) -> None:
    await asked(house, known, "addressLines", ticket="CASE-1042/a", headers={"coffer-purpose": "browsing"})
    entry = (await recorded(house))[-1]
    assert entry["actor"] == house.members["acme"][Role.OWNER].principal
    assert (entry["fields"], entry["purpose"]) == (["Customer.address.lines:PLAIN"], "support-case")
    assert (len(entry["subjects"]), entry["subject_type"]) == (1, "Customer")
    assert json.loads(entry["details"]) == {"records": 1, "plain": 1, "masked": 0, "ticket": "CASE-1042/a"}
    assert "Main Street" not in str(entry)


async def test_where_nothing_is_known_no_value_is_given_and_it_is_on_record(house: House) -> None:
    made = await house.create(givenName="Ada")
    before = len(await recorded(house))
    for field in ("note", "phones", "birthDate"):
        answer = await asked(house, made["id"], field)
        assert answer["data"]["revealCustomerField"]["revealed"]["values"] == []
    assert len(await recorded(house)) == before + 3


@asynccontextmanager
async def unwritable(house: House) -> AsyncIterator[None]:
    await fetch(house, "REVOKE INSERT ON audit_entries FROM coffer_app")
    try:
        yield
    finally:
        await fetch(house, "GRANT INSERT ON audit_entries TO coffer_app")


async def test_what_cannot_be_recorded_is_not_revealed(house: House, known: str) -> None:
    async with unwritable(house):
        answer = await asked(house, known)
    assert answer["errors"]
    assert SECRETS["phones"][0] not in str(answer)
    assert (await asked(house, known))["data"]["revealCustomerField"]["revealed"]["values"] == SECRETS["phones"]


async def test_nothing_leaves_with_an_operation_that_fails_as_a_whole(
    house: House, known: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_arguments: Any) -> None:
        raise RuntimeError

    before = await recorded(house)
    monkeypatch.setattr("api.tags.tags.create", broken)
    document = """mutation($id: ID!) {
      revealCustomerField(id: $id, field: phones, purpose: "x") { revealed { values } }
      createTag(name: "broken") { tag { id } } }"""
    answer = await house.ask(document, {"id": known})
    assert SECRETS["phones"][0] not in str(answer)
    assert await recorded(house) == before


@pytest.mark.parametrize(
    ("sent", "path"),
    [
        ({"purpose": ""}, "purpose"),
        ({"purpose": "Because I want to"}, "purpose"),
        ({"ticket": ""}, "ticket"),
        ({"ticket": "x" * 65}, "ticket"),
        ({"ticket": "Zoë"}, "ticket"),
        ({"ticket": "a b"}, "ticket"),
        *(({"ticket": each}, "ticket") for each in ("Jane.Doe", "Doe", "jane.doe1@example.org", "J.Doe1")),
        *(({"ticket": each}, "ticket") for each in ("4915112345678", "+4915112345678", "-1", "1-a", "#", "A-1\n")),
    ],
)
async def test_purpose_and_ticket_are_codes(house: House, known: str, sent: dict[str, str], path: str) -> None:
    before = await recorded(house)
    answer = (await asked(house, known, **sent))["data"]["revealCustomerField"]
    assert answer == {"revealed": None, "userErrors": [{"code": "INVALID", "path": [path]}]}
    assert await recorded(house) == before


async def test_another_tenants_customer_is_not_found(house: House, known: str) -> None:
    before = await recorded(house, "globex")
    answers = [await asked(house, id, tenant="globex") for id in (known, "nonsense")]
    assert [code(answer) for answer in answers] == ["NOT_FOUND", "NOT_FOUND"]
    assert answers[0]["data"] == answers[1]["data"] == {"revealCustomerField": None}
    assert await recorded(house, "globex") == before


SCOPED = """mutation($name: String!, $scope: RoleScope!, $permissions: [Permission!]!) { createRole(input: {
  name: $name, scope: $scope, permissions: $permissions, levels: [{ class: CONTACT, level: MASKED }] }) {
  role { id } userErrors { code } } }"""
GIVE = "mutation($id: ID!, $own: [ID!]!) { setMemberRoles(id: $id, roles: [], ownRoles: $own) { userErrors { code } } }"


async def test_the_right_to_reveal_ends_where_its_roles_scope_ends(house: House, slug: str) -> None:
    roles = []
    for scope, permissions in (("ALL", ["CUSTOMERS_READ"]), ("OWN", ["CUSTOMERS_READ", "CUSTOMERS_REVEAL"])):
        sent = {"name": scope, "scope": scope, "permissions": permissions}
        roles.append((await house.data(SCOPED, sent, tenant=slug))["createRole"]["role"]["id"])
    me = await house.data("{ me { id } }", tenant=slug, role=Role.ANALYST)
    await house.data(GIVE, {"id": me["me"]["id"], "own": roles}, tenant=slug)
    theirs = await house.create(tenant=slug, phones=["+12022243441"])
    own = await house.create(tenant=slug, phones=["+12022243441"], ownerId=me["me"]["id"])
    refused = await asked(house, theirs["id"], tenant=slug, role=Role.ANALYST)
    assert (code(refused), len(await recorded(house, slug))) == ("FORBIDDEN", 0)
    answer = await asked(house, own["id"], tenant=slug, role=Role.ANALYST)
    assert answer["data"]["revealCustomerField"]["revealed"]["values"] == ["+12022243441"]


async def test_it_counts_as_disclosed(house: House, slug: str) -> None:
    made = await house.create(tenant=slug, phones=["+12022243441"])
    for field in ("phones", "emails"):
        await asked(house, made["id"], field, tenant=slug, role=Role.AGENT)
    store = CheckpointStore(house.api.settings.audit_store)
    await AuditChains(house.api.units, house.api.keys, store).link(house.tenants[slug].id)
    hours = await house.data("{ disclosureCounts { records plain masked } }", tenant=slug, role=Role.AUDITOR)
    sums = [sum(hour[name] for hour in hours["disclosureCounts"]) for name in ("records", "plain", "masked")]
    assert sums == [2, 2, 0]


async def earlier(house: House, slug: str, count: int, ago: timedelta) -> None:
    """Reveals of the tenant's agent, made so long ago."""
    statement = """INSERT INTO audit_entries (tenant_id, id, at, actor, action, subjects, fields, outcome, details)
        SELECT $1, gen_random_uuid(), $2, $3, 'personal.revealed', '{}', '{}', 'OK', '{}' FROM generate_series(1, $4)"""
    agent = house.members[slug][Role.AGENT]
    await fetch(house, statement, agent.tenant, datetime.now(UTC) - ago, agent.principal, count)


@pytest.mark.parametrize(
    ("count", "ago", "is_open"),
    [
        (59, timedelta(seconds=20), True),
        (60, timedelta(seconds=20), False),
        (60, timedelta(seconds=61), True),
        (499, timedelta(hours=23), True),
        (500, timedelta(hours=23), False),
        (500, timedelta(hours=25), True),
    ],
)
async def test_a_member_reveals_so_many_a_minute_and_a_day(
    house: House, slug: str, count: int, ago: timedelta, is_open: bool
) -> None:
    made = await house.create(tenant=slug, phones=["+12022243441"])
    await earlier(house, slug, count, ago)
    answer = await asked(house, made["id"], tenant=slug, role=Role.AGENT)
    payload = answer["data"]["revealCustomerField"]
    assert [error["code"] for error in payload["userErrors"]] == ([] if is_open else ["RATE_LIMITED"])
    assert (payload["revealed"] is not None) == is_open
    assert len(await recorded(house, slug)) == count + is_open
    other = await asked(house, made["id"], tenant=slug, role=Role.MANAGER)
    assert other["data"]["revealCustomerField"]["revealed"] is not None


async def test_a_refusal_says_when_to_come_back(house: House, slug: str) -> None:
    made = await house.create(tenant=slug, phones=["+12022243441"])
    await earlier(house, slug, 60, timedelta(seconds=20))
    document = REVEAL.replace("{ code path }", "{ message }")
    answer = await house.data(document, {"id": made["id"], "field": "phones"}, tenant=slug, role=Role.AGENT)
    (error,) = answer["revealCustomerField"]["userErrors"]
    seconds = int(error["message"].split()[-2])
    assert 30 < seconds <= 41


async def test_reveals_side_by_side_are_counted_exactly(house: House, slug: str) -> None:
    """Of two processes."""
    made = await house.create(tenant=slug, phones=["+12022243441"])
    agent = house.members[slug][Role.AGENT]
    await earlier(house, slug, 55, timedelta(seconds=20))
    second = Api(house.api.settings)
    try:
        racing = [_revealing(api, agent, made["id"]) for api in (house.api, second) for _ in range(8)]
        won = await asyncio.gather(*racing)
    finally:
        await second.close()
    assert sum(won) == 5
    assert len(await recorded(house, slug)) == 60


async def test_who_reveals_elsewhere_waits_for_what_is_under_way(house: House, slug: str) -> None:
    made = await house.create(tenant=slug, phones=["+12022243441"])
    agent = house.members[slug][Role.AGENT]
    await earlier(house, slug, 59, timedelta(seconds=20))
    async with house.api.units.enter(agent.tenant, agent.principal, write=True) as unit:
        await reveals.reveal(unit, _local(made["id"]), "phones", "support-case", None)
        rival = asyncio.create_task(_revealing(house.api, agent, made["id"]))
        waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        async with asyncio.timeout(10):
            while not rival.done() and not await fetch(house, waiting):
                pass
    assert not await rival
    assert len(await recorded(house, slug)) == 60


async def _revealing(api: Api, agent: Credential, id: str) -> bool:
    async with api.units.enter(agent.tenant, agent.principal, write=True) as unit:
        try:
            await reveals.reveal(unit, _local(id), "phones", "support-case", None)
        except Refused as refused:
            assert refused.errors[0].code == "RATE_LIMITED"
            return False
    return True


def _local(id: str) -> Any:
    return local_id("Customer", id)


async def test_aliases_of_one_document_count_each(house: House, slug: str) -> None:
    made = await house.create(tenant=slug, phones=["+12022243441"])
    await earlier(house, slug, 57, timedelta(seconds=20))
    one = 'revealCustomerField(id: $id, field: phones, purpose: "x") { revealed { values } userErrors { code } }'
    document = f"mutation($id: ID!) {{ {' '.join(f'a{n}: {one}' for n in range(5))} }}"
    answer = await house.data(document, {"id": made["id"]}, tenant=slug, role=Role.AGENT)
    assert [payload["revealed"] is not None for payload in answer.values()] == [True, True, True, False, False]
    assert len(await recorded(house, slug)) == 60


@pytest.mark.parametrize(
    ("confirmed", "is_service", "is_open"),
    [
        (None, False, False),
        (timedelta(minutes=6), False, False),
        (timedelta(minutes=4), False, True),
        (timedelta(minutes=4), True, False),
    ],
)
async def test_step_up_wants_a_fresh_proof(
    house: House, slug: str, confirmed: timedelta | None, is_service: bool, is_open: bool
) -> None:
    made = await house.create(tenant=slug, phones=["+12022243441"])
    await fetch(house, "UPDATE tenants SET reveal_needs_step_up = true WHERE slug = $1", slug)
    agent = house.members[slug][Role.AGENT]
    async with house.api.units.enter(agent.tenant, agent.principal, write=True) as unit:
        at = None if confirmed is None else unit.now - confirmed
        unit.viewer = replace(unit.viewer, confirmed_at=at, is_service=is_service)
        assert await _step_up_code(unit, made["id"]) == (None if is_open else "STEP_UP_REQUIRED")
    assert len(await recorded(house, slug)) == is_open


async def _step_up_code(unit: Unit, id: str) -> str | None:
    try:
        await reveals.reveal(unit, _local(id), "phones", "support-case", None)
    except Refused as refused:
        return refused.errors[0].code
    return None


async def test_without_a_session_step_up_is_asked_for_over_graphql(house: House, slug: str) -> None:
    made = await house.create(tenant=slug, phones=["+12022243441"])
    await fetch(house, "UPDATE tenants SET reveal_needs_step_up = true WHERE slug = $1", slug)
    answer = (await asked(house, made["id"], tenant=slug))["data"]["revealCustomerField"]
    assert answer == {"revealed": None, "userErrors": [{"code": "STEP_UP_REQUIRED", "path": []}]}
    assert await recorded(house, slug) == []


async def test_a_fresh_session_counts_for_five_minutes(house: House, slug: str) -> None:
    made = await house.create(tenant=slug, phones=["+12022243441"])
    await fetch(house, "UPDATE tenants SET reveal_needs_step_up = true WHERE slug = $1", slug)
    member = house.members[slug][Role.AGENT]
    async with house.api.units.enter(member.tenant, None, write=True) as unit:
        house.members[slug][Role.AGENT] = await sessions.begin(unit, member.principal, sessions.Method.PASSWORD)
    answer = await asked(house, made["id"], tenant=slug, role=Role.AGENT)
    assert answer["data"]["revealCustomerField"]["revealed"]["values"] == ["+12022243441"]
    await fetch(house, "UPDATE member_sessions SET confirmed_at = confirmed_at - interval '6 minutes'")
    assert code(await asked(house, made["id"], tenant=slug, role=Role.AGENT)) == "STEP_UP_REQUIRED"
    assert len(await recorded(house, slug)) == 1


async def test_the_answer_goes_after_the_commit(house: House, known: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    before = len(await recorded(house))
    heed = Operations.heed

    async def heeding(operations: Operations, unit: Unit) -> None:
        seen.append(len(await recorded(house)) - before)  # the unit has ended, and nothing was answered yet
        await heed(operations, unit)

    monkeypatch.setattr(Operations, "heed", heeding)
    await asked(house, known)
    assert seen == [1]
