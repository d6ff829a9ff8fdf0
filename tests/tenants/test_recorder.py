"""What leaves is on record first: the recorder's role, its grouping, and that nothing is shown where it can't write."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import orjson
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from api.paging import global_id
from tenants.access import Role
from tenants.audit.entries import Entry
from tenants.database import Database
from tenants.errors import AuditUnavailable
from tenants.recorder import Recorder
from tests.house import House

PAGE = "{ customers(first: 100) { nodes { id givenName emails tags { name } owner { name } } } }"


async def fetch(house: House, statement: str, *arguments: Any) -> list[Any]:
    connection = await asyncpg.connect(house.superuser_url)
    try:
        return list(await connection.fetch(statement, *arguments))
    finally:
        await connection.close()


@asynccontextmanager
async def unwritable(house: House) -> AsyncIterator[None]:
    await fetch(house, "REVOKE INSERT ON audit_entries FROM coffer_recorder")
    try:
        yield
    finally:
        await fetch(house, "GRANT INSERT ON audit_entries TO coffer_recorder")


async def of(house: House, role: Role, tenant: str = "acme") -> list[Any]:
    actor = house.members[tenant][role].principal
    return await fetch(house, "SELECT * FROM audit_entries WHERE actor = $1 ORDER BY xid, id", actor)


def an_entry(house: House, action: str = "test.acted") -> Entry:
    return Entry(tenant=house.tenants["acme"].id, at=datetime.now(UTC), actor=None, action=action)


@pytest.fixture
async def database(house: House) -> AsyncIterator[Database]:
    made = Database(house.api.settings.recorder_database_url, pool_size=1)
    yield made
    await made.close()


async def test_a_page_says_who_read_which_fields_of_whom(house: House) -> None:
    made = [await house.create(givenName=name) for name in ("Ada", "Bob")]
    await house.data(PAGE, role=Role.MANAGER, headers={"coffer-purpose": "support-case"})
    entry = [entry for entry in await of(house, Role.MANAGER) if entry["subject_type"] == "Customer"][-1]
    assert (entry["action"], entry["purpose"]) == ("personal.disclosed", "support-case")
    assert entry["fields"] == ["Customer.emails:PLAIN", "Customer.givenName:PLAIN"]
    assert len(entry["subjects"]) >= len(made)


async def test_nothing_is_recorded_where_all_is_hidden(house: House) -> None:
    await house.create(givenName="Ada")
    before = await of(house, Role.INTEGRATION)
    await house.data("{ customers { nodes { id givenName } } }", role=Role.INTEGRATION)
    assert await of(house, Role.INTEGRATION) == before


async def test_a_refusal_is_on_record(house: House) -> None:
    await house.ask('mutation { createTag(name: "x") { tag { id } } }', role=Role.AUDITOR)
    entry = (await of(house, Role.AUDITOR))[-1]
    assert (entry["action"], entry["fields"], entry["outcome"]) == ("access.refused", ["createTag"], "FORBIDDEN")


async def test_a_free_text_purpose_is_refused(house: House) -> None:
    response = await house.post("{ me { id } }", headers={"coffer-purpose": "for Ada Lovelace"})
    assert response.status_code == 400
    assert "Lovelace" not in response.text


async def test_what_can_not_be_recorded_is_not_shown(house: House) -> None:
    await house.create(givenName="Xanthippe")
    async with unwritable(house):
        answer = await house.ask(PAGE)
    assert answer["errors"][0]["extensions"]["code"] == "AUDIT_UNAVAILABLE"
    assert answer.get("data") is None


async def test_a_change_whose_answer_can_not_be_recorded_is_undone(house: House) -> None:
    create = 'mutation { createCustomer(input: {givenName: "Unseen"}) { customer { id givenName } } }'
    async with unwritable(house):
        answer = await house.ask(create)
    found = await house.data('{ findCustomers(by: {namePrefix: "Unseen"}) { nodes { id } } }')
    assert answer["errors"][0]["extensions"]["code"] == "AUDIT_UNAVAILABLE"
    assert found["findCustomers"]["nodes"] == []


async def test_what_shows_no_personal_value_needs_no_record(house: House) -> None:
    async with unwritable(house):
        await house.data("{ customers { nodes { id stage } } }")


async def test_many_at_once_share_commits(house: House, database: Database) -> None:
    recorder = Recorder(database)
    await asyncio.gather(*(recorder.record([an_entry(house, "test.grouped")]) for _ in range(200)))
    rows = await fetch(house, "SELECT xid FROM audit_entries WHERE action = 'test.grouped'")
    assert len(rows) == 200
    assert len({row["xid"] for row in rows}) < 20


async def test_one_who_gives_up_takes_nobody_along(house: House, database: Database) -> None:
    recorder = Recorder(database)
    records = [asyncio.create_task(recorder.record([an_entry(house, "test.given-up")])) for _ in range(20)]
    await asyncio.sleep(0)
    records[0].cancel()
    results = await asyncio.gather(*records, return_exceptions=True)
    assert results[1:] == [None] * 19


async def test_a_recorder_without_a_database_says_so_and_comes_back(house: House, database: Database) -> None:
    recorder = Recorder(database)
    async with unwritable(house):
        with pytest.raises(AuditUnavailable):
            await recorder.record([an_entry(house)])
    await recorder.record([an_entry(house)])


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM audit_entries",
        "UPDATE audit_entries SET action = 'x'",
        "DELETE FROM audit_entries",
        "TABLE customers",
    ],
)
async def test_the_recorders_role_can_only_add(database: Database, statement: str) -> None:
    with pytest.raises(DBAPIError):
        async with database.connection() as connection:
            await connection.execute(text(statement))


async def test_the_serving_role_changes_no_entry(house: House) -> None:
    for statement in ("UPDATE audit_entries SET action = 'x'", "DELETE FROM audit_entries", "TRUNCATE audit_entries"):
        with pytest.raises(DBAPIError):
            async with house.api.units.enter(house.tenants["acme"].id, None, write=True) as unit:
                await unit.run(text(statement))


async def test_a_sign_in_is_on_record_however_it_ends(house: House) -> None:
    sign_in = (
        'mutation($p: String!) { signIn(tenant: "acme", email: "agent@acme.example.org", password: $p) { expiresIn } }'
    )
    for password in ("wrong", "correct horse battery staple"):
        await house.ask(sign_in, {"p": password}, role=None)
    outcomes = [entry["outcome"] for entry in await of(house, Role.AGENT) if entry["action"] == "member.signed_in"]
    assert outcomes[-2:] == ["SIGN_IN_REFUSED", "OK"]


async def test_values_never_stand_in_the_log(house: House) -> None:
    await house.create(givenName="Canarybird", emails=["canarybird@example.org"], note="canarybird note")
    await house.data('{ findCustomers(by: {namePrefix: "Canarybird"}) { nodes { givenName emails note } } }')
    for table in ("audit_entries", "events", "jobs"):
        rows = await fetch(house, f"SELECT count(*) FROM {table} t WHERE t::text ILIKE '%canarybird%'")
        assert rows[0][0] == 0


async def test_entries_carry_the_request_and_the_tenant(house: House) -> None:
    await house.create(givenName="Ada")
    headers = {"x-request-id": "request-4711"}
    await house.data("{ customers { nodes { givenName } } }", headers=headers)
    rows = await fetch(house, "SELECT tenant_id FROM audit_entries WHERE request_id = 'request-4711'")
    assert [UUID(str(row["tenant_id"])) for row in rows] == [UUID(str(house.tenants["acme"].id))]


async def test_members_who_read_their_own_identity_are_on_record_too(house: House) -> None:
    await house.data("{ me { name } }", role=Role.ANALYST)
    entry = (await of(house, Role.ANALYST))[-1]
    assert (entry["subjects"], entry["fields"]) == ([house.members["acme"][Role.ANALYST].principal], ["Me.name:PLAIN"])
    async with unwritable(house):
        assert (await house.ask("{ me { name } }"))["errors"][0]["extensions"]["code"] == "AUDIT_UNAVAILABLE"
        await house.data("{ me { id roles } }")


async def test_a_search_is_on_record_even_if_it_shows_nothing(house: House) -> None:
    made = await house.create(givenName="Ada", emails=["searched@example.org"])
    find = '{ findCustomers(by: {email: "searched@example.org"}) { nodes { id } } }'
    await house.data(find, role=Role.MANAGER)
    searched, opened = (await of(house, Role.MANAGER))[-2:]
    assert (searched["action"], searched["fields"]) == ("customer.searched", ["emails"])
    assert [global_id("Customer", found) for found in searched["subjects"]] == [made["id"]]
    assert (opened["action"], opened["fields"]) == ("personal.opened", ["customers.profile"])
    async with unwritable(house):
        assert (await house.ask(find))["errors"][0]["extensions"]["code"] == "AUDIT_UNAVAILABLE"


async def test_what_a_change_opens_is_on_record_with_its_reason(house: House) -> None:
    made = await house.create(givenName="Ada")
    update = "mutation($i: ID!) { updateCustomer(id: $i, version: 1, input: {stage: PROSPECT}) { customer { id } } }"
    await house.data(update, {"i": made["id"]})
    opened = [entry for entry in await of(house, Role.OWNER) if entry["action"] == "personal.opened"][-1]
    assert orjson.loads(opened["details"]) == {"why": "to change it", "customers.profile": 1}
