"""The audit log over GraphQL: read by those who may, filtered and paged, verified; and never another tenant's."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from tenants.access import Role
from tenants.audit.chains import AuditChains
from tenants.audit.store import CheckpointStore
from tests.house import House
from tests.tenants.chained import act, fetch

ENTRIES = """query($f: AuditFilter, $first: Int, $after: String, $last: Int, $before: String) {
  auditEntries(filter: $f, first: $first, after: $after, last: $last, before: $before) {
    totalCount pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
    nodes { id at action subjectType subjects fields outcome purpose requestId seq actor { id } details { name value } }
  } }"""
VERIFY = "{ verifyAuditChain { isIntact checkedEntries checkpoints copies firstBad { seq kind entryId } } }"
COUNTS = """query($m: ID, $from: DateTime, $to: DateTime) {
  disclosureCounts(member: $m, from: $from, to: $to) { hour records plain masked } }"""


@pytest.fixture
async def slug(house: House) -> AsyncIterator[str]:
    """A tenant whose log begins with the test."""
    name = f"audit-{uuid4().hex[:10]}"
    await house.add_tenant(name)
    yield name


def chains(house: House) -> AuditChains:
    return AuditChains(house.api.units, house.api.keys, CheckpointStore(house.api.settings.audit_store))


async def entries(house: House, slug: str, **asked: Any) -> dict[str, Any]:
    role = asked.pop("role", Role.AUDITOR)
    answer = await house.data(ENTRIES, asked, role=role, tenant=slug)
    found: dict[str, Any] = answer["auditEntries"]
    return found


async def test_an_entry_tells_who_did_what_to_whom_and_gets_its_seq(house: House, slug: str) -> None:
    earlier = (await entries(house, slug))["totalCount"]
    made = await house.create(tenant=slug, role=Role.AGENT, givenName="Ada")
    (before,) = (await entries(house, slug, f={"action": "customer.created"}))["nodes"]
    await chains(house).link(house.tenants[slug].id)
    (after,) = (await entries(house, slug, f={"action": "customer.created"}))["nodes"]
    assert (before["seq"], after["seq"]) == (None, earlier + 1)
    assert after["subjects"] == [made["id"]]
    assert (after["subjectType"], after["outcome"], after["fields"]) == ("Customer", "OK", ["givenName"])
    assert after["actor"] is not None


async def test_a_disclosure_tells_levels_and_counts(house: House, slug: str) -> None:
    await house.create(tenant=slug, givenName="Ada", emails=["ada@example.org"])
    page = "{ customers(first: 5) { nodes { givenName emails } } }"
    await house.data(page, role=Role.AGENT, tenant=slug, headers={"coffer-purpose": "support-case"})
    (told,) = (await entries(house, slug, f={"action": "personal.disclosed"}))["nodes"]
    assert told["fields"] == ["Customer.emails:MASKED", "Customer.givenName:PLAIN"]
    assert told["purpose"] == "support-case"
    assert {each["name"]: each["value"] for each in told["details"]} == {"records": "1", "plain": "1", "masked": "1"}


@pytest.mark.parametrize("role", [role for role in Role if role not in (Role.OWNER, Role.AUDITOR)])
@pytest.mark.parametrize("document", [ENTRIES, VERIFY, COUNTS], ids=["entries", "verify", "counts"])
async def test_without_the_permission_nothing_is_told(house: House, role: Role, document: str) -> None:
    answer = await house.ask(document, role=role)
    assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"
    assert set(answer["data"].values()) == {None}


async def test_another_tenants_entries_are_not_there(house: House, slug: str) -> None:
    await house.create(tenant="globex", givenName="Ada")
    theirs = (await entries(house, "globex", f={"action": "customer.created"}))["nodes"][0]
    assert theirs["id"] not in [node["id"] for node in (await entries(house, slug, first=100))["nodes"]]
    assert (await entries(house, slug, f={"action": "customer.created"}))["totalCount"] == 0
    node = await house.data("query($i: ID!) { node(id: $i) { id } }", {"i": theirs["id"]}, tenant=slug)
    assert node["node"] is None


async def test_an_entry_is_a_node_for_those_who_may_read_it(house: House, slug: str) -> None:
    await house.create(tenant=slug, givenName="Ada")
    (made,) = (await entries(house, slug, f={"action": "customer.created"}))["nodes"]
    asked = ("query($i: ID!) { node(id: $i) { id } }", {"i": made["id"]})
    assert (await house.data(*asked, role=Role.AUDITOR, tenant=slug))["node"] == {"id": made["id"]}
    assert (await house.data(*asked, role=Role.ADMIN, tenant=slug))["node"] is None


async def test_pages_go_through_the_log_newest_first_and_back(house: House, slug: str) -> None:
    made = [(await house.create(tenant=slug, givenName=name))["id"] for name in "ABCDE"]
    created = {"action": "customer.created"}
    first = await entries(house, slug, f=created, first=3)
    rest = await entries(house, slug, f=created, first=3, after=first["pageInfo"]["endCursor"])
    assert [node["subjects"][0] for node in first["nodes"] + rest["nodes"]] == made[::-1]
    assert (first["pageInfo"]["hasNextPage"], rest["pageInfo"]["hasNextPage"], first["totalCount"]) == (True, False, 5)
    back = await entries(house, slug, f=created, last=2, before=rest["pageInfo"]["startCursor"])
    assert back["nodes"] == first["nodes"][1:]


async def test_filters_narrow_and_add_up(house: House, slug: str) -> None:
    ada, bob = [(await house.create(tenant=slug, role=Role.AGENT, givenName=name))["id"] for name in ("Ada", "Bob")]
    await house.ask("{ auditEntries { totalCount } }", role=Role.AGENT, tenant=slug)  # refused, and so recorded
    agent = (await entries(house, slug, f={"subject": ada}))["nodes"][0]["actor"]["id"]

    async def count(**where: Any) -> int:
        return int((await entries(house, slug, f=where))["totalCount"])

    assert await count(subject=ada, action="customer.created") == 1
    assert await count(subject=bob, actor=agent, outcome="OK") == 1
    assert await count(outcome="FORBIDDEN") == 1
    assert await count(actor=ada) == 0  # a customer acts never
    assert await count(subject="no id") == 0
    at = (await entries(house, slug, f={"subject": ada}))["nodes"][0]["at"]
    assert await count(subject=ada, to=at) == 0
    assert await count(subject=ada, **{"from": at}) == 1


async def test_counts_per_hour_are_of_one_member_or_of_all(house: House, slug: str) -> None:
    await house.create(tenant=slug, givenName="Ada")
    for role in (Role.AGENT, Role.MANAGER):
        await house.data("{ customers(first: 5) { nodes { givenName birthYear } } }", role=role, tenant=slug)
    await chains(house).link(house.tenants[slug].id)
    agent = await house.data("{ me { id } }", role=Role.AGENT, tenant=slug)
    mine = await house.data(COUNTS, {"m": agent["me"]["id"]}, role=Role.AUDITOR, tenant=slug)
    both = await house.data(COUNTS, role=Role.AUDITOR, tenant=slug)
    assert sum(hour["records"] for hour in mine["disclosureCounts"]) == 1
    assert sum(hour["records"] for hour in both["disclosureCounts"]) == 2


async def test_counts_of_more_than_a_month_are_refused(house: House) -> None:
    asked = {"from": "2024-01-01T00:00:00Z", "to": "2024-02-02T00:00:00Z"}
    answer = await house.ask(COUNTS, asked, role=Role.AUDITOR)
    assert answer["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"


async def test_the_chain_is_verified_and_its_first_break_named(house: House, slug: str) -> None:
    tenant, earlier = house.tenants[slug].id, (await entries(house, slug))["totalCount"]
    for name in "ABC":
        await house.create(tenant=slug, givenName=name)
    await chains(house).link(tenant)
    await chains(house).checkpoints.make(tenant)
    well = (await house.data(VERIFY, role=Role.AUDITOR, tenant=slug))["verifyAuditChain"]
    assert well == {
        "isIntact": True,
        "checkedEntries": earlier + 3,
        "checkpoints": 1,
        "copies": 1,
        "firstBad": None,
    }
    second = (await entries(house, slug, f={"action": "customer.created"}))["nodes"][1]
    await act(
        house,
        "UPDATE audit_entries SET outcome = 'NO' WHERE id ="
        " (SELECT entry_id FROM audit_links WHERE tenant_id = $1 AND seq = $2)",
        tenant,
        earlier + 2,
    )
    bad = (await house.data(VERIFY, role=Role.AUDITOR, tenant=slug))["verifyAuditChain"]
    assert (bad["isIntact"], bad["checkedEntries"]) == (False, earlier + 1)
    assert bad["firstBad"] == {"seq": earlier + 2, "kind": "EDIT", "entryId": second["id"]}


async def test_a_chain_too_long_for_a_request_points_to_the_command(
    house: House, slug: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.audit.MOST", 1)
    for name in "AB":
        await house.create(tenant=slug, givenName=name)
    await chains(house).link(house.tenants[slug].id)
    answer = await house.ask(VERIFY, role=Role.AUDITOR, tenant=slug)
    assert answer["errors"][0]["extensions"]["code"] == "AUDIT_CHAIN_TOO_LONG"


async def test_reading_the_log_of_members_is_recorded_as_a_disclosure(house: House, slug: str) -> None:
    await house.create(tenant=slug, givenName="Ada")
    await house.data("{ auditEntries { nodes { actor { name } } } }", role=Role.AUDITOR, tenant=slug)
    rows = await fetch(
        house,
        "SELECT fields FROM audit_entries WHERE tenant_id = $1 AND action = 'personal.disclosed'",
        house.tenants[slug].id,
    )
    assert [row["fields"] for row in rows] == [["Member.name:MASKED"]]
