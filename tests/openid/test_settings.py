"""Setting a provider: what it takes, who may, and what it can't be used for."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from tenants.access import Grants, Permission, Role, RoleSpec
from tests.house import House
from tests.openid.asking import AGENTS, LIST, REMOVE, added, bearing, codes, remove_all, set_, settings_of
from tests.openid.provider import AUDIENCE, CLIENT, SECRET, OpenIdProvider

MANAGE = RoleSpec(Grants(permissions=frozenset({Permission.SIGN_ON_MANAGE})))


@pytest.fixture
async def acme(signed_on: House) -> AsyncIterator[House]:
    yield signed_on
    for tenant in ("acme", "globex"):
        await remove_all(signed_on, tenant)


async def listed(house: House, tenant: str = "acme") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await house.data(LIST, tenant=tenant))["signOn"]
    return found


async def test_what_was_set_is_shown_but_for_the_secret(acme: House, provider: OpenIdProvider) -> None:
    made = (await set_(acme, settings_of(provider, defaultRoles=["ANALYST"])))["provider"]

    assert made.pop("id")
    assert made == {
        "name": provider.place,
        "issuer": provider.issuer,
        "clientId": CLIENT,
        "hasClientSecret": True,
        "audience": AUDIENCE,
        "accessTokens": "AT_JWT",
        "scopes": ["openid", "profile", "email"],
        "roleClaim": "groups",
        "isEnabled": True,
        "roleMap": [{**AGENTS, "ownRoles": []}, {"value": "crm-sync", "roles": ["INTEGRATION"], "ownRoles": []}],
        "defaultRoles": ["ANALYST"],
        "defaultOwnRoles": [],
    }


async def test_the_secret_lies_sealed_and_stays_when_it_is_left_out(acme: House, provider: OpenIdProvider) -> None:
    provider_id = await added(acme, provider)
    changed = settings_of(provider, name="Login")
    del changed["clientSecret"]

    assert (await set_(acme, changed, provider_id))["provider"]["hasClientSecret"] is True
    assert (await set_(acme, {**changed, "clientSecret": None}, provider_id))["provider"]["hasClientSecret"] is False
    connection = await asyncpg.connect(acme.superuser_url)
    try:
        rows = await connection.fetch("SELECT row_to_json(p)::text AS row FROM sign_on_providers p")
    finally:
        await connection.close()
    assert rows
    assert not any(SECRET in row["row"] for row in rows)


async def test_the_secret_goes_to_no_other_issuer(acme: House, provider: OpenIdProvider) -> None:
    provider_id = await added(acme, provider)
    elsewhere = settings_of(provider, issuer="https://evil.example.org")
    secret = elsewhere.pop("clientSecret")
    before = await listed(acme)

    assert codes(await set_(acme, elsewhere, provider_id)) == ["SECRET_NEEDED"]
    assert await listed(acme) == before
    assert codes(await set_(acme, {**elsewhere, "clientSecret": secret}, provider_id)) == []


async def test_an_issuer_and_client_belong_to_one_tenant(acme: House, provider: OpenIdProvider) -> None:
    await added(acme, provider)
    others = {"audience": "another"}, {"clientId": "another"}, {"clientId": AUDIENCE, "audience": "a third"}
    for changes in others:
        payload = await set_(acme, settings_of(provider, **changes), tenant="globex")
        assert codes(payload) == ["ISSUER_TAKEN"]
        assert not any(word in str(payload["userErrors"]) for word in ("acme", provider.place))
    assert await listed(acme, "globex") == []


async def test_ones_own_provider_is_not_set_twice(acme: House, provider: OpenIdProvider) -> None:
    await added(acme, provider)
    payload = await set_(acme, settings_of(provider))

    assert codes(payload) == ["ISSUER_TAKEN"]
    assert payload["userErrors"][0]["message"] == "You have this provider already: change that one."
    assert len(await listed(acme)) == 1


async def test_two_tenants_at_once_get_it_once(acme: House, provider: OpenIdProvider) -> None:
    payloads = await asyncio.gather(*(set_(acme, settings_of(provider), tenant=each) for each in ("acme", "globex")))

    assert sorted(map(codes, payloads)) == [[], ["ISSUER_TAKEN"]]


async def test_what_is_removed_can_be_taken(acme: House, provider: OpenIdProvider) -> None:
    await added(acme, provider)
    await remove_all(acme)

    assert await added(acme, provider, tenant="globex")


async def test_nobody_maps_roles_beyond_their_own(acme: House, provider: OpenIdProvider) -> None:
    for changes in (
        {"roleMap": [{"value": "x", "roles": ["OWNER"]}]},
        {"roleMap": [{"value": "x", "roles": ["MANAGER"]}]},
        {"roleMap": [], "defaultRoles": ["AGENT"]},
    ):
        payload = await set_(acme, settings_of(provider, **changes), role=Role.ADMIN)
        assert codes(payload) == ["BEYOND_YOUR_RIGHTS"]
    assert await listed(acme) == []
    assert (
        codes(await set_(acme, settings_of(provider, roleMap=[AGENTS | {"roles": ["ADMIN"]}]), role=Role.ADMIN)) == []
    )


async def test_nobody_points_a_map_beyond_their_own_at_a_house_of_theirs(acme: House, provider: OpenIdProvider) -> None:
    provider_id = await added(acme, provider, roleMap=[{"value": "x", "roles": ["OWNER"]}])
    before = await listed(acme)
    taken_over = settings_of(provider, issuer="https://evil.example.org", roleMap=[])

    assert codes(await set_(acme, taken_over, provider_id, role=Role.ADMIN)) == ["BEYOND_YOUR_RIGHTS"]
    assert await listed(acme) == before


async def test_nobody_removes_a_map_beyond_their_own(acme: House, provider: OpenIdProvider) -> None:
    provider_id = await added(acme, provider, roleMap=[{"value": "x", "roles": ["OWNER"]}])
    before = await listed(acme)

    removing = await acme.data(REMOVE, {"id": provider_id}, role=Role.ADMIN)
    assert codes(removing["removeSignOn"]) == ["BEYOND_YOUR_RIGHTS"]
    assert await listed(acme) == before


async def test_a_role_of_another_tenant_is_no_role(acme: House, provider: OpenIdProvider) -> None:
    made = await acme.data(
        'mutation { createRole(input: { name: "theirs" }) { role { id } userErrors { code } } }', tenant="globex"
    )
    mapped = {"value": "x", "roles": [], "ownRoles": [made["createRole"]["role"]["id"]]}

    assert codes(await set_(acme, settings_of(provider, roleMap=[mapped]))) == ["NOT_FOUND"]
    assert await listed(acme) == []


async def test_a_role_of_the_tenants_own_can_be_mapped(acme: House, provider: OpenIdProvider) -> None:
    made = await acme.data('mutation { createRole(input: { name: "Sync" }) { role { id } userErrors { code } } }')
    mapped = {"value": "crm-sync", "ownRoles": [made["createRole"]["role"]["id"]]}
    await added(acme, provider, roleMap=[mapped])

    answer = await bearing(acme, await provider.service_token(), "{ me { roles ownRoles { name } } }")
    assert {"name": "Sync"} in answer.json()["data"]["me"]["ownRoles"]


@pytest.mark.parametrize("role", [Role.MANAGER, Role.AGENT, Role.AUDITOR, Role.INTEGRATION])
async def test_only_who_manages_sign_on_sees_and_sets_it(acme: House, provider: OpenIdProvider, role: Role) -> None:
    provider_id = await added(acme, provider)
    before = await listed(acme)
    asked = "mutation($i: SignOnInput!) { setSignOn(input: $i) { userErrors { code } } }"
    for document, sent in ((LIST, {}), (asked, {"i": settings_of(provider)}), (REMOVE, {"id": provider_id})):
        answer = await acme.ask(document, sent, role=role)
        assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"
    assert await listed(acme) == before


async def test_the_permission_alone_suffices(acme: House, provider: OpenIdProvider) -> None:
    member = await acme.add_member(MANAGE)

    assert codes(await set_(acme, settings_of(provider, roleMap=[]), member=member)) == []


async def test_another_tenants_provider_is_not_found(acme: House, provider: OpenIdProvider) -> None:
    provider_id = await added(acme, provider)

    assert codes(await set_(acme, settings_of(provider, clientId="x"), provider_id, tenant="globex")) == ["NOT_FOUND"]
    removing = await acme.data(REMOVE, {"id": provider_id}, tenant="globex")
    assert codes(removing["removeSignOn"]) == ["NOT_FOUND"]
    node = await acme.data("query($id: ID!) { node(id: $id) { id } }", {"id": provider_id}, tenant="globex")
    assert node == {"node": None}
    assert len(await listed(acme)) == 1


async def test_a_tenant_has_five_providers(acme: House, provider: OpenIdProvider) -> None:
    for n in range(5):
        await added(acme, provider, clientId=f"client-{n}", audience=f"audience-{n}")

    assert codes(await set_(acme, settings_of(provider))) == ["TOO_MANY"]
    assert len(await listed(acme)) == 5


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"issuer": "http://login.example.org"}, "INVALID"),
        ({"issuer": "https://login.example.org/?x"}, "INVALID"),
        ({"issuer": "https://login.example.org/#x"}, "INVALID"),
        ({"issuer": "https://login.internal"}, "INVALID"),
        ({"issuer": "https://localhost"}, "INVALID"),
        ({"issuer": ""}, "INVALID"),
        ({"issuer": "http://127.0.0.1:8000"}, "INVALID"),
        ({"clientId": ""}, "INVALID"),
        ({"clientId": "x" * 300}, "INVALID"),
        ({"clientId": "a\nb"}, "INVALID"),
        ({"scopes": ["profile"]}, "INVALID"),
        ({"scopes": ["openid", "two words"]}, "INVALID"),
        ({"roleClaim": None}, "INVALID"),
        *(({"roleClaim": claim}, "INVALID") for claim in ("email", "eMail", "user.preferred_username")),
        *(({"roleClaim": claim}, "INVALID") for claim in ("sub", "upn", "https://acme.example.org/email")),
        ({"roleMap": [AGENTS, AGENTS]}, "INVALID"),
        ({"roleMap": [{"value": "", "roles": []}]}, "INVALID"),
        ({"accessTokens": "JWT", "audience": None}, "AUDIENCE_NEEDED"),
        ({"accessTokens": "JWT", "audience": CLIENT}, "AUDIENCE_NEEDED"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_settings_that_make_no_sense_are_refused(
    acme: House, provider: OpenIdProvider, changes: dict[str, Any], code: str
) -> None:
    assert codes(await set_(acme, settings_of(provider, **changes))) == [code]
    assert await listed(acme) == []
