"""A tenant's profile: who reads and changes what of it; and suspension, which acts on requests and streams at once."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from tenants import tenants
from tenants.access import Role
from tests.api.test_websocket import serving
from tests.house import House

FIELDS = "slug name status createdAt defaultRegion defaultLanguage disclosureBudget revealNeedsStepUp"
TENANT = f"{{ tenant {{ {FIELDS} }} }}"
UPDATE = f"""mutation($i: TenantInput!) {{ updateTenant(input: $i) {{
  tenant {{ {FIELDS} }} userErrors {{ code path }} }} }}"""


@pytest.fixture
async def slug(house: House) -> AsyncIterator[str]:
    name = f"profile-{uuid4().hex[:10]}"
    await house.add_tenant(name)
    yield name


async def profile(house: House, slug: str, role: Role = Role.OWNER) -> dict[str, Any]:
    found: dict[str, Any] = (await house.data(TENANT, tenant=slug, role=role))["tenant"]
    return found


async def update(house: House, slug: str, role: Role = Role.OWNER, /, **given: Any) -> dict[str, Any]:
    return await house.ask(UPDATE, {"i": given}, tenant=slug, role=role)


async def test_an_owner_reads_the_whole_profile(house: House, slug: str) -> None:
    found = await profile(house, slug)

    assert found.pop("createdAt")
    assert found == {
        "slug": slug,
        "name": slug.title(),
        "status": "ACTIVE",
        "defaultRegion": "US",
        "defaultLanguage": "en",
        "disclosureBudget": 100_000,
        "revealNeedsStepUp": False,
    }


async def test_others_read_all_but_how_values_are_guarded(house: House, slug: str) -> None:
    answer = await house.ask(TENANT, tenant=slug, role=Role.AGENT)

    assert answer["data"]["tenant"]["name"] == slug.title()
    assert answer["data"]["tenant"]["disclosureBudget"] is None
    assert {tuple(error["path"]) for error in answer["errors"]} == {
        ("tenant", "disclosureBudget"),
        ("tenant", "revealNeedsStepUp"),
    }


async def test_without_a_token_there_is_no_tenant(house: House) -> None:
    assert await house.data("{ tenant { slug } }", role=None) == {"tenant": None}


async def test_what_is_given_changes_and_the_rest_stays(house: House, slug: str) -> None:
    given: dict[str, Any] = {
        "name": "  Acme  Ltd ",
        "defaultRegion": "de",
        "defaultLanguage": "de_at",
        "disclosureBudget": 500,
    }
    before = await profile(house, slug)
    answer = await update(house, slug, **given)

    kept = {"name": "Acme Ltd", "defaultRegion": "DE", "defaultLanguage": "de-AT", "disclosureBudget": 500}
    assert answer["data"]["updateTenant"] == {"tenant": {**before, **kept}, "userErrors": []}
    assert await profile(house, slug) == {**before, **kept}


async def test_a_change_of_the_region_acts_on_the_next_request(house: House, slug: str) -> None:
    await update(house, slug, defaultRegion="DE")
    made = await house.create(tenant=slug, phones=["030 901820"])
    found = await house.data("query($id: ID!) { customer(id: $id) { phones } }", {"id": made["id"]}, tenant=slug)

    assert found["customer"]["phones"] == ["+4930901820"]


@pytest.mark.parametrize(
    ("given", "path", "code"),
    [
        ({"name": ""}, "name", "REQUIRED"),
        ({"name": None}, "name", "REQUIRED"),
        ({"name": "x" * 201}, "name", "INVALID"),
        ({"defaultRegion": "Germany"}, "defaultRegion", "INVALID"),
        ({"defaultRegion": "ZZ"}, "defaultRegion", "INVALID"),
        ({"defaultLanguage": "-"}, "defaultLanguage", "INVALID"),
        ({"disclosureBudget": 0}, "disclosureBudget", "INVALID"),
        ({"disclosureBudget": 10_000_001}, "disclosureBudget", "INVALID"),
        ({"revealNeedsStepUp": None}, "revealNeedsStepUp", "INVALID"),
    ],
)
async def test_what_can_not_be_kept_is_refused_by_its_name(
    house: House, slug: str, given: dict[str, Any], path: str, code: str
) -> None:
    before = await profile(house, slug)
    answer = await update(house, slug, Role.OWNER, **{"name": "Changed", **given})

    errors = answer["data"]["updateTenant"]["userErrors"]
    assert errors == [{"code": code, "path": ["input", path]}]
    assert await profile(house, slug) == before


@pytest.mark.parametrize("given", [{"disclosureBudget": 100_001}, {"disclosureBudget": None}])
async def test_only_an_owner_raises_the_budget_or_lifts_it(house: House, slug: str, given: dict[str, Any]) -> None:
    refused = await update(house, slug, Role.ADMIN, **given)

    assert refused["errors"][0]["extensions"]["code"] == "FORBIDDEN"
    assert (await profile(house, slug))["disclosureBudget"] == 100_000
    await update(house, slug, **given)
    assert (await profile(house, slug))["disclosureBudget"] == given["disclosureBudget"]


async def test_an_admin_tightens_and_only_an_owner_loosens(house: House, slug: str) -> None:
    tight = await update(house, slug, Role.ADMIN, disclosureBudget=10, revealNeedsStepUp=True)
    loose = await update(house, slug, Role.ADMIN, revealNeedsStepUp=False)

    assert tight["data"]["updateTenant"]["tenant"]["revealNeedsStepUp"] is True
    assert loose["errors"][0]["extensions"]["code"] == "FORBIDDEN"
    assert (await profile(house, slug))["revealNeedsStepUp"] is True
    assert (await update(house, slug, revealNeedsStepUp=False))["data"]["updateTenant"]["userErrors"] == []


@pytest.mark.parametrize("role", [role for role in Role if role not in (Role.OWNER, Role.ADMIN)])
async def test_nobody_else_changes_the_tenant(house: House, role: Role) -> None:
    before = await profile(house, "acme")
    answer = await update(house, "acme", role, name="Taken over")

    assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"
    assert await profile(house, "acme") == before


async def test_a_change_is_told_and_recorded_by_the_names_of_its_fields(house: House, slug: str) -> None:
    await update(house, slug, name="Other", defaultRegion="US")
    entries = await house.data(
        '{ auditEntries(filter: {action: "tenant.updated"}) { nodes { fields subjects } } }',
        tenant=slug,
        role=Role.AUDITOR,
    )
    own = await house.data("{ tenant { id } }", tenant=slug)

    assert entries["auditEntries"]["nodes"] == [{"fields": ["name"], "subjects": [own["tenant"]["id"]]}]


async def test_another_tenants_profile_stays(house: House, slug: str) -> None:
    before = await profile(house, "globex")
    await update(house, slug, name="Mine alone")

    assert await profile(house, "globex") == before


async def test_a_suspended_tenant_is_refused_from_the_next_request_on(house: House, slug: str) -> None:
    await tenants.suspend(house.api.platform, slug)
    refused = await house.ask(TENANT, tenant=slug)
    await tenants.resume(house.api.platform, slug)

    assert (refused["errors"][0]["extensions"]["code"], refused.get("data")) == ("TENANT_SUSPENDED", None)
    assert (await profile(house, slug))["status"] == "ACTIVE"


async def test_suspension_closes_open_streams_within_five_seconds(house: House, slug: str) -> None:
    token = await house.token(house.members[slug][Role.OWNER])
    async with serving() as stage:
        stage.app = house.api.app
        async with stage.acknowledged({"authorization": f"Bearer {token}"}) as client:
            await client.subscribe({"query": "subscription { customerChanged { type } }"})
            await tenants.suspend(house.api.platform, slug)
            async with asyncio.timeout(5):
                assert await client.closed() == 4403
