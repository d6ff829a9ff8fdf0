"""The disclosure budget: who was shown enough in an hour sees masks until the next, and administrators hear of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from api.app import Api
from api.paging import global_id
from tenants.access import Role
from tests.api.test_websocket import Stage, serving
from tests.house import House
from tests.tenants.chained import fetch

PAGE = "query($first: Int! = 10) { customers(first: $first) { nodes { emails phones stage } } }"
MASKS = {"emails": ["a***@e***.org"], "phones": ["+1 ••• •••41"]}
PLAIN = {"emails": ["ada@example.org"], "phones": ["+12022243441"]}
OWN = "{ me { disclosureBudget { limit spent resetsAt } } }"
EXPLAIN = """query($member: ID, $role: ID) {
  explainAccess(type: "Customer", field: "emails", member: $member, role: $role) { level isOverBudget } }"""
MANY = "mutation($i: [CustomerInput!]!) { createCustomers(input: $i) { created } }"


@pytest.fixture
async def slug(house: House) -> AsyncIterator[str]:
    """A tenant of ten customers whose members may be shown 50 values an hour."""
    name = f"budget-{uuid4().hex[:8]}"
    await house.add_tenant(name)
    await house.data(MANY, {"i": [PLAIN] * 10}, tenant=name, role=Role.INTEGRATION)
    await fetch(house, "UPDATE tenants SET disclosure_budget = 50 WHERE slug = $1", name)
    yield name


@pytest.fixture
def now(house: House, monkeypatch: pytest.MonkeyPatch) -> list[datetime]:
    """The house's clock, ten minutes into an hour."""
    moment = [datetime.now(UTC).replace(minute=10, second=0, microsecond=0)]
    monkeypatch.setattr(house.api.units, "_now", lambda: moment[0])
    return moment


@asynccontextmanager
async def another(house: House) -> AsyncIterator[House]:
    """The same house served by another process' API."""
    api = Api(house.api.settings)
    transport = httpx.ASGITransport(app=api.app)
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
            yield House(
                api, house.server, house.database, house.vault, house.provisioning, client, members=house.members
            )
    finally:
        await api.close()


async def page(house: House, slug: str, role: Role = Role.MANAGER, **sent: Any) -> dict[str, Any]:
    """What one customer of the page shows, with how the answer speaks of it."""
    answer = await house.ask(PAGE, sent, tenant=slug, role=role)
    shown = answer["data"]["customers"]["nodes"][0]
    return {"shown": {name: shown[name] for name in PLAIN}, "told": answer["extensions"]["disclosure"]}


async def events(house: House, slug: str) -> list[Any]:
    statement = "SELECT * FROM events WHERE tenant_id = $1 AND type = 'disclosure.budget_exceeded'"
    return await fetch(house, statement, house.tenants[slug].id)


async def test_over_it_plain_becomes_masked(house: House, slug: str) -> None:
    seen = [await page(house, slug) for _ in range(5)]
    assert [each["shown"] for each in seen] == [PLAIN] * 3 + [MASKS] * 2
    assert [{entry["level"] for entry in each["told"]} for each in seen] == [{"PLAIN"}] * 3 + [{"MASKED"}] * 2
    assert [{entry.get("budget") for entry in each["told"]} for each in seen] == [{None}] * 3 + [{"EXCEEDED"}] * 2


async def test_what_is_masked_or_clear_costs_nothing(house: House, slug: str) -> None:
    for _ in range(6):
        await page(house, slug, Role.AGENT)
    await house.ask("{ customers(first: 50) { nodes { stage } } }", tenant=slug, role=Role.MANAGER)
    assert (await page(house, slug))["shown"] == PLAIN


async def test_another_member_is_not_concerned(house: House, slug: str) -> None:
    for _ in range(4):
        spent = await page(house, slug)
    assert spent["shown"] == MASKS
    assert (await page(house, slug, Role.OWNER))["shown"] == PLAIN


async def test_the_next_hour_begins_anew(house: House, slug: str, now: list[datetime]) -> None:
    for _ in range(4):
        spent = await page(house, slug)
    now[0] += timedelta(minutes=49)
    assert (spent["shown"], (await page(house, slug))["shown"]) == (MASKS, MASKS)
    now[0] += timedelta(minutes=2)
    assert (await page(house, slug))["shown"] == PLAIN


async def test_administrators_hear_of_it_once_an_hour(house: House, slug: str, now: list[datetime]) -> None:
    assert await events(house, slug) == []
    for _ in range(6):
        await page(house, slug)
    (event,) = await events(house, slug)
    assert event["subject"] == house.members[slug][Role.MANAGER].principal
    found = await house.data(
        '{ auditEntries(filter: { action: "disclosure.budget_exceeded" }) { nodes { subjects } } }', tenant=slug
    )
    assert len(found["auditEntries"]["nodes"]) == 1
    now[0] += timedelta(hours=1)
    for _ in range(4):
        await page(house, slug)
    assert len(await events(house, slug)) == 2


async def test_without_a_budget_nothing_ends(house: House, slug: str) -> None:
    await fetch(house, "UPDATE tenants SET disclosure_budget = NULL WHERE slug = $1", slug)
    for _ in range(5):
        seen = await page(house, slug)
    assert seen["shown"] == PLAIN
    assert await events(house, slug) == []


async def test_a_fresh_process_knows_what_another_has_shown(house: House, slug: str) -> None:
    for _ in range(3):
        await page(house, slug)
    async with another(house) as second:
        assert [(await page(second, slug))["shown"] for _ in range(2)] == [MASKS, MASKS]
    assert len(await events(house, slug)) == 1


async def test_two_processes_share_a_budget_within_seconds(house: House, slug: str) -> None:
    async with another(house) as second:
        for each in (house, second, house):
            assert (await page(each, slug))["shown"] == PLAIN
        forget_looks(house, second)  # as if those seconds were over
        assert [(await page(each, slug))["shown"] for each in (house, second)] == [MASKS, MASKS]
    assert len(await events(house, slug)) == 1


def forget_looks(*houses: House) -> None:
    for each in houses:
        assert each.api.units.budgets is not None
        for spent in each.api.units.budgets._known.values():
            spent.looked_at = float("-inf")


async def test_looking_again_counts_nothing_twice(house: House, slug: str, now: list[datetime]) -> None:
    """Neither what is fresh nor, a minute later, what has settled."""
    for _ in range(2):
        assert (await page(house, slug))["shown"] == PLAIN
        forget_looks(house)
        now[0] += timedelta(seconds=61)
    assert (await page(house, slug))["shown"] == PLAIN
    forget_looks(house)
    assert (await page(house, slug))["shown"] == MASKS


async def test_requests_side_by_side_get_a_page_each_at_most(house: House, slug: str) -> None:
    before = [await page(house, slug) for _ in range(2)]
    racing = await asyncio.gather(*(page(house, slug) for _ in range(8)))
    after = await page(house, slug)
    assert [each["shown"] for each in before] == [PLAIN, PLAIN]
    assert all(each["shown"] in (PLAIN, MASKS) for each in racing)
    assert after["shown"] == MASKS
    assert len(await events(house, slug)) == 1


async def test_what_could_not_be_recorded_costs_nothing(house: House, slug: str) -> None:
    await fetch(house, "REVOKE INSERT ON audit_entries FROM coffer_recorder")
    try:
        refused = [await house.ask(PAGE, tenant=slug, role=Role.MANAGER) for _ in range(4)]
    finally:
        await fetch(house, "GRANT INSERT ON audit_entries TO coffer_recorder")
    assert {answer["errors"][0]["extensions"]["code"] for answer in refused} == {"AUDIT_UNAVAILABLE"}
    assert (await page(house, slug))["shown"] == PLAIN


async def test_a_reveal_is_paid_for_as_well(house: House, slug: str) -> None:
    listed = await house.data("{ customers(first: 1) { nodes { id } } }", tenant=slug)
    id = listed["customers"]["nodes"][0]["id"]
    await fetch(house, "UPDATE tenants SET disclosure_budget = 2 WHERE slug = $1", slug)
    document = """mutation($id: ID!) { revealCustomerField(id: $id, field: phones, purpose: "x") {
      revealed { values } } }"""
    for _ in range(2):
        await house.data(document, {"id": id}, tenant=slug, role=Role.MANAGER)
    assert (await page(house, slug))["shown"] == MASKS
    assert len(await events(house, slug)) == 1
    over = await house.data(document, {"id": id}, tenant=slug, role=Role.MANAGER)  # within its own limits still
    assert over["revealCustomerField"]["revealed"]["values"] == PLAIN["phones"]


async def test_masks_are_not_written_back_over_values(house: House, slug: str) -> None:
    for _ in range(4):
        await page(house, slug)
    listed = await house.data("{ customers(first: 1) { nodes { id version emails } } }", tenant=slug, role=Role.MANAGER)
    (one,) = listed["customers"]["nodes"]
    answer = await house.data(
        "mutation($id: ID!, $v: Int!, $e: [String!]) { updateCustomer(id: $id, version: $v, input: { emails: $e }) {"
        " userErrors { code } } }",
        {"id": one["id"], "v": one["version"], "e": one["emails"]},
        tenant=slug,
        role=Role.MANAGER,
    )
    assert answer["updateCustomer"]["userErrors"] == [{"code": "MASKED_INPUT"}]
    owner = await page(house, slug, Role.OWNER)
    assert owner["shown"] == PLAIN


@pytest.fixture(scope="module")
async def stage(house: House) -> AsyncIterator[Stage]:
    async with serving() as running:
        running.app = house.api.app
        yield running


async def test_a_stream_becomes_masked_too(house: House, slug: str, stage: Stage) -> None:
    await fetch(house, "UPDATE tenants SET disclosure_budget = 2 WHERE slug = $1", slug)
    token = await house.token(house.members[slug][Role.MANAGER])
    async with stage.acknowledged({"authorization": f"Bearer {token}"}) as client:
        await client.subscribe({"query": "subscription { customerChanged { customer { emails phones } } }"})
        await _hearing(house)
        seen = []
        for _ in range(2):
            await house.data(MANY, {"i": [PLAIN]}, tenant=slug, role=Role.INTEGRATION)
            seen.append((await client.receive())["payload"]["data"]["customerChanged"]["customer"])
    assert seen == [PLAIN, MASKS]


async def _hearing(house: House) -> None:
    async with asyncio.timeout(5):
        while not any(  # noqa: ASYNC110  # the protocol has no word for "subscribed"
            each.since for group in house.api.feed._events.values() for each in group
        ):
            await asyncio.sleep(0.005)


async def test_the_answer_says_until_when_there_are_masks(house: House, slug: str, now: list[datetime]) -> None:
    for _ in range(4):
        spent = await page(house, slug)
    told = {datetime.fromisoformat(entry["until"]) for entry in spent["told"]}
    assert told == {now[0] + timedelta(minutes=50)}


async def test_one_sees_how_much_of_it_is_left(house: House, slug: str, now: list[datetime]) -> None:
    await page(house, slug)
    mine = (await house.data(OWN, tenant=slug, role=Role.MANAGER))["me"]["disclosureBudget"]
    theirs = (await house.data(OWN, tenant=slug, role=Role.AGENT))["me"]["disclosureBudget"]
    assert (mine["limit"], mine["spent"], theirs["spent"]) == (50, 20, 0)
    assert datetime.fromisoformat(mine["resetsAt"]) == now[0] + timedelta(minutes=50)
    await fetch(house, "UPDATE tenants SET disclosure_budget = NULL WHERE slug = $1", slug)
    assert (await house.data(OWN, tenant=slug, role=Role.MANAGER))["me"] == {"disclosureBudget": None}


async def test_an_explanation_tells_who_is_over_it_whoever_asks(house: House, slug: str) -> None:
    for _ in range(4):
        await page(house, slug)
    manager = global_id("Member", house.members[slug][Role.MANAGER].principal)
    for asking in (Role.MANAGER, Role.OWNER):
        told = await house.data(EXPLAIN, {"member": manager}, tenant=slug, role=asking)
        assert told["explainAccess"] == {"level": "MASKED", "isOverBudget": True}
    owner = await house.data(EXPLAIN, tenant=slug, role=Role.OWNER)
    assert owner["explainAccess"] == {"level": "PLAIN", "isOverBudget": False}
    role = await house.data(EXPLAIN, {"role": "MANAGER"}, tenant=slug, role=Role.OWNER)
    assert role["explainAccess"] == {"level": "PLAIN", "isOverBudget": None}
