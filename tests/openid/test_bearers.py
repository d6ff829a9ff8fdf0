"""Access tokens of a tenant's own provider, borne by services."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from sqlalchemy import select

from tenants.signing_in.sessions import Session
from tenants.signing_in.sign_on import SignOnSession
from tests.api.test_websocket import serving, until
from tests.house import House
from tests.openid.asking import (
    LIST,
    added,
    bearing,
    codes,
    me,
    refusals,
    remove_all,
    set_,
    settings_of,
    signed_in,
)
from tests.openid.keys import text
from tests.openid.provider import AUDIENCE, SERVICE, Browser, OpenIdProvider
from tests.openid.test_members import DISABLE

SESSION = "{ me { session { id } } }"
END = "mutation($id: ID!) { endSession(id: $id) { endedId userErrors { code } } }"
CREATE = 'mutation { createCustomer(input: { externalId: "of-a-service" }) { customer { id } userErrors { code } } }'


@pytest.fixture
async def acme(signed_on: House, provider: OpenIdProvider) -> AsyncIterator[House]:
    await added(signed_on, provider)
    yield signed_on
    await remove_all(signed_on)


async def test_a_service_asks_with_its_providers_token(acme: House, provider: OpenIdProvider) -> None:
    token = await provider.service_token()

    first = await me(acme, token)
    assert first["roles"] == ["INTEGRATION"]
    assert await me(acme, token) == first
    assert await me(acme, await provider.service_token()) == first
    made = (await bearing(acme, token, CREATE)).json()["data"]["createCustomer"]
    assert made["userErrors"] == []


async def test_a_token_for_another_audience_opens_nothing(acme: House, provider: OpenIdProvider) -> None:
    token = await provider.service_token("https://elsewhere.example.org/api")

    assert (await bearing(acme, token)).status_code == 401


async def test_an_id_token_is_no_access_token(acme: House, provider: OpenIdProvider, browser: Browser) -> None:
    claims = timed(provider, groups=["crm-sync"])
    assert (await bearing(acme, signed(provider, claims, typ="at+jwt"))).status_code == 200  # else this shows nothing
    assert (await bearing(acme, signed(provider, claims, typ="JWT"))).status_code == 401
    assert (await bearing(acme, signed(provider, {**claims, "nonce": "n"}, typ="at+jwt"))).status_code == 401
    assert (await bearing(acme, signed(provider, {**claims, "at_hash": "n"}, typ="at+jwt"))).status_code == 401


async def test_a_service_without_role_is_refused_and_that_is_on_record(acme: House, provider: OpenIdProvider) -> None:
    token = signed(provider, timed(provider, sub="stranger"), typ="at+jwt")
    before = len(await refusals(acme))

    assert [(await bearing(acme, token)).status_code for _ in range(3)] == [401] * 3
    assert (await refusals(acme))[before:] == [{"method": "BEARER", "why": "no-role"}]  # once, not at each request


async def test_a_disabled_service_is_out_at_once(acme: House, provider: OpenIdProvider) -> None:
    token = signed(provider, timed(provider, sub="to-disable", groups=["crm-sync"]), typ="at+jwt")
    who = await me(acme, token)
    await acme.data(DISABLE, {"id": who["id"]})

    assert (await bearing(acme, token)).status_code == 401


async def test_a_persons_access_token_is_not_that_person(
    acme: House, provider: OpenIdProvider, browser: Browser
) -> None:
    await me(acme, (await signed_in(acme, browser, "ada"))["accessToken"])
    token = signed(provider, timed(provider, sub="ada", groups=["crm-agents"]), typ="at+jwt")

    assert (await bearing(acme, token)).status_code == 401
    assert (await refusals(acme))[-1] == {"method": "BEARER", "why": "another-kind"}


async def test_nobody_signs_in_as_a_service(acme: House, provider: OpenIdProvider, browser: Browser) -> None:
    await provider.send(accounts={"a service": {"groups": ["crm-agents"]}})
    token = signed(provider, timed(provider, sub="a service", groups=["crm-sync"]), typ="at+jwt")
    assert (await me(acme, token))["roles"] == ["INTEGRATION"]

    assert codes(await signed_in(acme, browser, "a service")) == ["SIGN_ON_REFUSED"]
    assert (await me(acme, token))["roles"] == ["INTEGRATION"]


@pytest.mark.parametrize("by_whom", ["the owner", "itself"])
async def test_an_ended_session_takes_the_tokens_before_it_along(
    acme: House, provider: OpenIdProvider, by_whom: str
) -> None:
    claims = timed(provider, sub=f"ended by {by_whom}", groups=["crm-sync"])
    tokens = [signed(provider, {**claims, "jti": jti}, typ="at+jwt") for jti in ("known", "unused")]
    session = (await bearing(acme, tokens[0], SESSION)).json()["data"]["me"]["session"]["id"]
    if by_whom == "itself":
        await bearing(acme, tokens[0], "mutation { signOut { ended } }")
    else:
        await acme.data(END, {"id": session})

    assert [(await bearing(acme, token)).status_code for token in tokens] == [401, 401]
    later = signed(provider, {**claims, "iat": claims["iat"] + 20}, typ="at+jwt")
    assert (await bearing(acme, later)).status_code == 200
    again = signed(provider, {**claims, "jti": "later still"}, typ="at+jwt")
    assert (await bearing(acme, again)).status_code == 401


async def test_a_change_of_the_provider_says_nothing_against_a_service(acme: House, provider: OpenIdProvider) -> None:
    token, id = await provider.service_token(), (await acme.data(LIST))["signOn"][0]["id"]
    await me(acme, token)
    for is_enabled in (False, True):
        assert codes(await set_(acme, settings_of(provider, isEnabled=is_enabled), id)) == []

    assert (await bearing(acme, await provider.service_token())).status_code == 200


async def test_who_is_let_in_by_a_removed_provider_is_out_at_once(
    acme: House, provider: OpenIdProvider, browser: Browser
) -> None:
    service, person = await provider.service_token(), (await signed_in(acme, browser, "ada"))["accessToken"]
    assert await me(acme, service)
    assert await me(acme, person)
    await remove_all(acme)

    assert (await bearing(acme, service)).status_code == 401
    assert (await bearing(acme, person)).status_code == 401


async def test_an_open_stream_of_a_service_ends_with_its_provider(acme: House, provider: OpenIdProvider) -> None:
    agent = {"value": "crm-sync", "roles": ["AGENT"]}
    await remove_all(acme)
    await added(acme, provider, roleMap=[agent])
    headers = {"authorization": f"Bearer {await provider.service_token()}"}
    async with serving() as stage:
        stage.app = acme.api.app
        async with stage.acknowledged(headers) as client:
            await client.subscribe({"query": "subscription { customerChanged { type } }"})
            await until(lambda: acme.api.feed.followers > 0)
            await remove_all(acme)
            async with asyncio.timeout(7):
                assert await client.closed() == 4403


async def test_a_token_that_is_unknown_costs_no_request_to_anybody(acme: House, provider: OpenIdProvider) -> None:
    asked = dict(await provider.send(asked=None))
    for made_up in ({"aud": "of nobody"}, {"iss": "https://made-up.example.org"}):
        token = signed(provider, timed(provider, **made_up), typ="at+jwt")
        assert (await bearing(acme, token)).status_code == 401
    assert await provider.send(asked=None) == asked


async def test_a_service_can_not_step_up(acme: House, provider: OpenIdProvider) -> None:
    await me(acme, await provider.service_token())
    async with acme.api.units.enter(acme.tenants["acme"].id, None, write=False) as unit:
        proofs = await unit.scalars(
            select(Session.confirmed_at)
            .join(
                SignOnSession, (SignOnSession.tenant_id == Session.tenant_id) & (SignOnSession.session_id == Session.id)
            )
            .where(Session.tenant_id == unit.tenant.id, SignOnSession.is_of_service)
        )
    assert {proof.year for proof in proofs} == {1970}


async def test_untyped_tokens_are_taken_where_the_tenant_says_so(signed_on: House, provider: OpenIdProvider) -> None:
    await added(signed_on, provider, accessTokens="JWT")
    claims = timed(provider, groups=["crm-sync"])
    try:
        assert (await bearing(signed_on, signed(provider, claims))).status_code == 200
        assert (await bearing(signed_on, signed(provider, {**claims, "nonce": "n"}))).status_code == 401
    finally:
        await remove_all(signed_on)


async def test_no_bearer_token_is_taken_where_the_tenant_wants_none(signed_on: House, provider: OpenIdProvider) -> None:
    await added(signed_on, provider, accessTokens="NONE")
    try:
        assert (await bearing(signed_on, await provider.service_token())).status_code == 401
    finally:
        await remove_all(signed_on)


def timed(provider: OpenIdProvider, **claims: Any) -> dict[str, Any]:
    """Claims of the service's access token, for five minutes from now."""
    now = int(time.time())
    return {"iss": provider.issuer, "sub": SERVICE, "aud": AUDIENCE, "iat": now, "exp": now + 300, **claims}


def signed(provider: OpenIdProvider, claims: dict[str, Any], **header: Any) -> str:
    key = provider.keys[0]
    told = {"alg": key.algorithm, "kid": key.id, **header}
    body = f"{text(orjson.dumps(told))}.{text(orjson.dumps(claims))}"
    return f"{body}.{text(key.sign(body.encode()))}"
