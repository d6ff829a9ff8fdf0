"""Access requests: all that is kept about one customer, for whoever sees all of it plain, on record first."""

import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from domain import access_requests
from domain.customers import FIELDS
from domain.customers.inputs import input_path
from tenants.access import SPECS, Level, Role, Scope, Sensitivity
from tests.api.staff import ask, done, refused
from tests.erasing import ERRORS, Leaver, local
from tests.house import House

EXPORT = f"""mutation($id: ID!, $p: String! = "access-request") {{
  at: exportCustomer(id: $id, purpose: $p) {{ export {{ json sha256 customerId format }} {ERRORS} }} }}"""
WHOLE = {
    "givenName": "Zoë",
    "familyName": "Lovelace",
    "emails": ["ada@example.org"],
    "phones": ["+12025550143"],
    "birthDate": "1985-12-10",
    "governmentId": "078-05-1120",
    "note": "prefers letters",
    "externalId": "A-77",
    "address": {"lines": ["12 St James's Sq"], "city": "London", "postalCode": "SW1Y", "country": "GB"},
    "language": "en",
    "source": "fair",
}


@pytest.fixture
async def leaver(house: House, tmp_path: Path) -> AsyncIterator[Leaver]:
    made = await Leaver.made(house, tmp_path)
    yield made
    await made.close()


async def exported(leaver: Leaver, id: str) -> dict[str, Any]:
    payload = await done(leaver.house, await leaver.proven(Role.OWNER), EXPORT, id=id)
    assert payload["userErrors"] == [], payload
    export = payload["export"]
    assert hashlib.sha256(export["json"].encode()).hexdigest() == export["sha256"]
    assert (export["customerId"], export["format"]) == (id, "coffer.access_request.v1")
    document: dict[str, Any] = json.loads(export["json"])
    return document


async def test_it_holds_every_value_of_the_customer(leaver: Leaver) -> None:
    tag = await leaver.house.data('mutation { createTag(name: "vip") { tag { id } } }', tenant=leaver.tenant.slug)
    said = await exported(leaver, await leaver.customer(**WHOLE, tagIds=[tag["createTag"]["tag"]["id"]]))

    values = said["values"]
    assert {name: values[name] for name in WHOLE.keys() & values.keys()} == {
        name: value for name, value in WHOLE.items() if name in values
    }
    for name in FIELDS:
        *above, last = map(str, input_path(name))
        assert last in (values[above[0]] if above else values)
    assert [each["name"] for each in said["tags"]] == ["vip"]
    assert said["record"]["language"] == "en" and said["record"]["version"] == 1
    assert said["record"]["ownerId"] is not None
    assert said["tenant"]["id"] == str(leaver.tenant.id)


async def test_it_says_who_read_and_changed_what(leaver: Leaver) -> None:
    slug, id = leaver.tenant.slug, await leaver.customer(**WHOLE)
    read = "query($id: ID!) { customer(id: $id) { emails governmentId } }"
    await leaver.house.data(
        read, {"id": id}, tenant=slug, role=Role.MANAGER, headers={"coffer-purpose": "support-case"}
    )
    reveal = """mutation($id: ID!) { revealCustomerField(id: $id, field: governmentId, purpose: "fraud-check") {
      revealed { values } } }"""
    await leaver.house.data(reveal, {"id": id}, tenant=slug, role=Role.MANAGER)
    await done(
        leaver.house,
        await leaver.proven(Role.OWNER),
        f'mutation($id: ID!) {{ at: placeHold(customer: $id, reason: "a claim", ticket: "LEGAL-1") {{ {ERRORS} }} }}',
        id=id,
    )

    said = await exported(leaver, id)
    manager = str(leaver.house.members[slug][Role.MANAGER].principal)
    reads = [(each["by"], each["purpose"], each["fields"]) for each in said["read"] if each["by"] == manager]
    assert reads == [
        (manager, "support-case", ["Customer.emails:PLAIN", "Customer.governmentId:MASKED"]),
        (manager, "fraud-check", ["Customer.governmentId:PLAIN"]),
    ]
    assert [each["action"] for each in said["changed"]] == ["customer.created", "customer.hold_placed"]
    assert [(each["reason"], each["ticket"]) for each in said["holds"]] == [("a claim", "LEGAL-1")]
    again = await exported(leaver, id)
    mine = [each for each in again["read"] if each["purpose"] == "access-request"]
    assert len(mine) == 1 and len(mine[0]["fields"]) == len(FIELDS) + 1


async def test_it_says_who_searched_for_the_customer_and_by_which_fields(leaver: Leaver) -> None:
    """Also where the answer showed nothing of it: whoever finds knows that there is such a customer."""
    slug, id = leaver.tenant.slug, await leaver.customer(**WHOLE)
    await leaver.customer(givenName="Other", emails=["other@example.org"])
    search = "query($by: CustomerSearch!) { findCustomers(by: $by) { nodes { id } } }"
    for role, by in ((Role.MANAGER, {"email": "ada@example.org"}), (Role.OWNER, {"email": "other@example.org"})):
        await leaver.house.data(search, {"by": by}, tenant=slug, role=role)

    said = await exported(leaver, id)

    manager = str(leaver.house.members[slug][Role.MANAGER].principal)
    assert [(each["by"], each["fields"]) for each in said["searched"]] == [(manager, ["emails"])]
    assert all(each["at"] and each["outcome"] == "OK" for each in said["searched"])
    assert [each["action"] for each in said["changed"]] == ["customer.created"]


async def test_it_is_recorded_and_counts_against_the_budget(leaver: Leaver) -> None:
    slug, id = leaver.tenant.slug, await leaver.customer(**WHOLE)
    await exported(leaver, id)
    (entry,) = await leaver.fetch(
        "SELECT * FROM audit_entries WHERE tenant_id = $1 AND action = 'personal.disclosed' AND purpose = $2",
        "access-request",
    )
    assert [local(id)] == list(entry["subjects"])
    assert json.loads(entry["details"])["plain"] == len(FIELDS)
    assert all(field.endswith(":PLAIN") for field in entry["fields"])

    await leaver.fetch("UPDATE tenants SET disclosure_budget = $2 WHERE id = $1", len(FIELDS))
    assert await refused(leaver.house, await leaver.proven(Role.OWNER), EXPORT, id=id) == ["BELOW_PLAIN"]
    assert await leaver.count("audit_entries", "purpose = 'access-request'") == 1
    assert slug


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.OWNER])
async def test_who_lacks_the_permission_gets_nothing(leaver: Leaver, role: Role) -> None:
    id = await leaver.customer(**WHOLE)
    answer = await ask(leaver.house, await leaver.proven(role), EXPORT, id=id)
    assert [error["extensions"]["code"] for error in answer["errors"]] == ["FORBIDDEN"]
    assert answer["data"]["at"] is None


@pytest.mark.parametrize("missing", [Sensitivity.FREE_TEXT, Sensitivity.GOVERNMENT_ID, Sensitivity.IDENTITY])
async def test_who_sees_one_class_in_part_gets_nothing(leaver: Leaver, missing: Sensitivity) -> None:
    """Everything or nothing: an answer with gaps would be taken for all there is."""
    owner, id = SPECS[Role.OWNER], await leaver.customer(**WHOLE)
    levels = {**owner.grants.levels, missing: Level.MASKED}
    partly = await leaver.house.add_member(
        replace(owner, grants=replace(owner.grants, levels=levels)), tenant=leaver.tenant.slug
    )
    assert await refused(leaver.house, partly, EXPORT, id=id) == ["BELOW_PLAIN"]
    assert await leaver.count("audit_entries", "purpose = 'access-request'") == 0


async def test_whom_the_viewer_does_not_reach_is_not_found(leaver: Leaver) -> None:
    id = await leaver.customer(**WHOLE)
    own = await leaver.house.add_member(replace(SPECS[Role.OWNER], scope=Scope.OWN), tenant=leaver.tenant.slug)
    foreign = (await leaver.house.create(givenName="Foreign"))["id"]
    assert await refused(leaver.house, own, EXPORT, id=id) == ["NOT_FOUND"]
    for other in (foreign, "nobody"):
        assert await refused(leaver.house, await leaver.proven(Role.OWNER), EXPORT, id=other) == ["NOT_FOUND"]


async def test_it_takes_a_purpose_and_where_the_tenant_says_so_a_proof(leaver: Leaver) -> None:
    id = await leaver.customer(**WHOLE)
    assert await refused(leaver.house, await leaver.proven(Role.OWNER), EXPORT, id=id, p="For Ada!") == ["INVALID"]
    await leaver.fetch("UPDATE tenants SET reveal_needs_step_up = true WHERE id = $1")
    unproven = leaver.house.members[leaver.tenant.slug][Role.OWNER]
    assert await refused(leaver.house, unproven, EXPORT, id=id) == ["STEP_UP_REQUIRED"]
    await exported(leaver, id)


async def test_it_opens_nothing_where_the_answer_leaves_the_values_out(leaver: Leaver) -> None:
    """Still on record: that it was decided is what was asked for."""
    id = await leaver.customer(**WHOLE)
    document = (
        f'mutation($id: ID!) {{ at: exportCustomer(id: $id, purpose: "x") {{ export {{ customerId }} {ERRORS} }} }}'
    )
    payload = await done(leaver.house, await leaver.proven(Role.OWNER), document, id=id)
    assert payload == {"export": {"customerId": id}, "userErrors": []}


async def test_its_hash_is_on_record_and_every_page_of_the_log_is_read(
    leaver: Leaver, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = await leaver.customer(**WHOLE)
    payload = [await done(leaver.house, await leaver.proven(Role.OWNER), EXPORT, id=id) for _ in range(4)]
    said = json.loads(payload[-1]["export"]["json"])
    monkeypatch.setattr(access_requests, "_AT_ONCE", 2)
    again = await exported(leaver, id)
    assert again["read"][: len(said["read"])] == said["read"] and again["changed"] == said["changed"]
    assert len(again["read"]) == 4
    entries = await leaver.fetch(
        "SELECT details FROM audit_entries WHERE tenant_id = $1 AND purpose = 'access-request' ORDER BY at, id"
    )
    hashes = [json.loads(entry["details"])["sha256"] for entry in entries]
    assert hashes[:4] == [each["export"]["sha256"] for each in payload]
