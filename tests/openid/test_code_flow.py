"""A browser signs in with a real OpenID provider: the way there and back, and everything that must not pass on it."""

import base64
import dataclasses
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import httpx
import pytest

from api.paging import global_id
from tenants.signing_in import sign_on_requests
from tests.house import House
from tests.openid.asking import (
    LIST,
    added,
    begun,
    codes,
    completed,
    me,
    refusals,
    remove_all,
    set_,
    settings_of,
    signed_in,
)
from tests.openid.provider import PUBLIC_CLIENT, REDIRECT, Browser, OpenIdProvider

REFUSED = ["SIGN_ON_REFUSED"]
_HOSTS = itertools.count(1)


@pytest.fixture
async def acme(signed_on: House, provider: OpenIdProvider) -> AsyncIterator[House]:
    """A house of which acme has set the provider."""
    await added(signed_on, provider)
    yield signed_on
    await remove_all(signed_on)


async def test_a_browser_signs_in_and_becomes_a_member_as_its_groups_say(acme: House, browser: Browser) -> None:
    payload = await signed_in(acme, browser, "ada")

    assert payload["userErrors"] == []
    assert payload["refreshToken"].startswith("cor_")
    who = await me(acme, payload["accessToken"])
    assert who["roles"] == ["AGENT"]
    assert (who["name"], who["email"]) == ("Ada Example", "ada@login.example.org")


async def test_signing_in_again_is_the_same_member(acme: House, browser: Browser) -> None:
    first = await me(acme, (await signed_in(acme, browser, "ada"))["accessToken"])
    second = await me(acme, (await signed_in(acme, browser, "ada"))["accessToken"])

    assert first["id"] == second["id"]


async def test_a_public_client_signs_in_by_pkce_alone(
    signed_on: House, provider: OpenIdProvider, browser: Browser
) -> None:
    await added(signed_on, provider, clientId=PUBLIC_CLIENT, clientSecret=None, audience=None)
    try:
        assert (await signed_in(signed_on, browser, "ada"))["userErrors"] == []
    finally:
        await remove_all(signed_on)


async def test_the_way_there_bears_a_challenge_and_no_secret(acme: House) -> None:
    begin = await begun(acme)
    asked = {name: values[0] for name, values in parse_qs(urlsplit(begin["authorizationUrl"]).query).items()}

    assert asked["response_type"] == "code"
    assert asked["code_challenge_method"] == "S256"
    assert len(asked["code_challenge"]) == 43
    assert {"state", "nonce"} <= asked.keys()
    assert begin["handle"] not in begin["authorizationUrl"]


async def test_a_return_is_taken_once(acme: House, browser: Browser) -> None:
    begin = await begun(acme)
    returned = await browser.sign_in(begin["authorizationUrl"], "ada")

    assert codes(await completed(acme, returned, begin["handle"])) == []
    assert codes(await completed(acme, returned, begin["handle"])) == REFUSED
    assert (await refusals(acme))[-1]["why"] == "state"


async def test_a_stolen_return_is_worth_nothing_without_the_handle(acme: House, browser: Browser) -> None:
    theirs, ours = await begun(acme), await begun(acme)
    returned = await browser.sign_in(theirs["authorizationUrl"], "ada")

    assert codes(await completed(acme, returned, ours["handle"])) == REFUSED
    assert codes(await completed(acme, returned, "")) == REFUSED
    assert codes(await completed(acme, returned, theirs["handle"])) == []  # and it did not end who began


async def test_an_answer_in_another_providers_name_is_refused(acme: House, browser: Browser) -> None:
    for iss in ("https://elsewhere.example.org", None):
        begin = await begun(acme)
        returned = await browser.sign_in(begin["authorizationUrl"], "ada")
        kept = {name: value for name, value in {**returned, "iss": iss}.items() if value is not None}

        assert codes(await completed(acme, kept, begin["handle"])) == REFUSED
    assert [each["why"] for each in await refusals(acme)][-2:] == ["iss", "iss"]


async def test_a_code_of_another_sign_in_is_refused(acme: House, browser: Browser) -> None:
    theirs, ours = await begun(acme), await begun(acme)
    stolen = await browser.sign_in(theirs["authorizationUrl"], "ada")
    returned = await browser.sign_in(ours["authorizationUrl"], "ada")

    injected = {**returned, "code": stolen["code"]}
    assert codes(await completed(acme, injected, ours["handle"])) == REFUSED
    assert (await refusals(acme))[-1]["why"] == "code"


@pytest.mark.parametrize("state", ["", "x", "é", "A" * 64, base64.urlsafe_b64encode(bytes(48)).decode(), "A" * 10_000])
async def test_a_made_up_state_is_refused(acme: House, state: str) -> None:
    assert codes(await completed(acme, {"state": state, "code": "x"}, "A" * 43)) == REFUSED


@pytest.mark.parametrize(
    "uri",
    [
        "https://evil.example.org/signed-in",
        "https://portal.example.org.evil.example.org/",
        "https://portal.example.org@evil.example.org/",
        "https://evil.example.org\\@portal.example.org/",
        "http://portal.example.org/signed-in",
        "https://portal.example.org/#token",
        "https://portal.example.org:444/",
        "javascript:alert(1)//portal.example.org",
        "https://portal.example.org/\n",
        "",
    ],
)
async def test_a_browser_is_sent_back_to_no_origin_but_ours(acme: House, uri: str) -> None:
    begin = await begun(acme, r=uri)

    assert [(each["code"], each["path"]) for each in begin["userErrors"]] == [("REDIRECT_REFUSED", ["redirectUri"])]
    assert begin["authorizationUrl"] is None
    assert (await refusals(acme))[-1] == {"method": "OIDC", "why": "redirect-uri"}


@pytest.mark.parametrize("tenant", ["globex", "nowhere", "", "ACME"])
async def test_a_tenant_without_provider_answers_as_one_that_is_not(acme: House, tenant: str) -> None:
    begin = await begun(acme, tenant)
    assert codes(begin) == ["SIGN_ON_UNKNOWN"]
    assert begin == await begun(acme, "elsewhere")
    assert await begun(acme, tenant, r="https://evil.example.org") == await begun(acme, r="https://evil.example.org")


async def test_a_provider_that_is_not_there_is_refused_and_on_record(acme: House) -> None:
    begin = await begun(acme, p=global_id("SignOnProvider", uuid4()))

    assert codes(begin) == ["SIGN_ON_UNKNOWN"]
    assert (await refusals(acme))[-1] == {"method": "OIDC", "why": "provider"}


async def test_who_has_no_role_to_come_to_is_refused_and_makes_no_member(acme: House, browser: Browser) -> None:
    before = await members_of(acme)

    assert codes(await signed_in(acme, browser, "nobody")) == REFUSED
    assert await members_of(acme) == before
    assert (await refusals(acme))[-1] == {"method": "OIDC", "why": "no-role"}


async def test_who_declined_at_the_provider_has_no_code_to_give(acme: House) -> None:
    begin = await begun(acme)
    state = parse_qs(urlsplit(begin["authorizationUrl"]).query)["state"][0]

    assert codes(await completed(acme, {"state": state, "code": ""}, begin["handle"])) == REFUSED


async def test_a_provider_that_is_switched_off_lets_nobody_in(
    acme: House, browser: Browser, provider: OpenIdProvider
) -> None:
    begin = await begun(acme)
    returned = await browser.sign_in(begin["authorizationUrl"], "ada")
    await remove_all(acme)
    await added(acme, provider, isEnabled=False)

    assert codes(await completed(acme, returned, begin["handle"])) == REFUSED
    assert codes(await begun(acme)) == ["SIGN_ON_UNKNOWN"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"isEnabled": False}, REFUSED),
        ({"roleClaim": "teams"}, REFUSED),
        ({"clientId": "another"}, REFUSED),
        ({"roleMap": [{"value": "crm-agents", "roles": ["ANALYST"]}]}, ["ANALYST"]),
    ],
    ids=str,
)
async def test_what_is_set_while_the_provider_is_asked_holds(
    acme: House,
    browser: Browser,
    provider: OpenIdProvider,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    expected: list[str],
) -> None:
    id, flow = (await acme.data(LIST))["signOn"][0]["id"], acme.api.code_flow
    exchange = flow._exchange

    async def meanwhile(*asked: Any) -> Any:
        vouched = await exchange(*asked)
        assert codes(await set_(acme, settings_of(provider, **changes), id)) == []
        return vouched

    monkeypatch.setattr(flow, "_exchange", meanwhile)
    payload = await signed_in(acme, browser, "ada")
    token = payload["accessToken"]
    assert ((await me(acme, token))["roles"] if token else codes(payload)) == expected


async def test_who_begins_many_loses_its_own_alone(
    acme: House, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sign_on_requests, "_MOST_OF_ADDRESS", 2)
    async with elsewhere(acme) as other:
        theirs = await begun(other)
    ours = [await begun(acme) for _ in range(3)]

    assert [await finished(acme, browser, each) for each in (theirs, *ours)] == [[], REFUSED, [], []]


async def test_where_too_many_are_under_way_the_oldest_go(
    acme: House, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sign_on_requests, "_MOST", 2)
    begins = []
    for _ in range(3):
        async with elsewhere(acme) as each:
            begins.append(await begun(each))

    assert [await finished(acme, browser, each) for each in begins] == [REFUSED, [], []]


@asynccontextmanager
async def elsewhere(house: House) -> AsyncIterator[House]:
    """The same house, asked from an address that nobody else has."""
    transport = httpx.ASGITransport(app=house.api.app, client=(f"198.51.100.{next(_HOSTS)}", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000", timeout=60) as client:
        yield dataclasses.replace(house, client=client)


async def finished(house: House, browser: Browser, begin: dict[str, Any]) -> list[str]:
    return codes(await completed(house, await browser.sign_in(begin["authorizationUrl"], "ada"), begin["handle"]))


async def test_redirects_and_pages_of_the_provider_are_no_answers(acme: House, provider: OpenIdProvider) -> None:
    begin = await begun(acme)
    for document in ({"status": 302, "headers": {"location": f"{provider.issuer}/jwks"}}, {"status": 500}):
        await provider.send(document={"path": "/token", **document})
        state = parse_qs(urlsplit(begin["authorizationUrl"]).query)["state"][0]
        payload = await completed(acme, {"state": state, "code": "x", "iss": provider.issuer}, begin["handle"])
        assert payload["accessToken"] is None
        assert payload["userErrors"]
        begin = await begun(acme)
    await provider.send(document=None)


async def members_of(house: House) -> int:
    answer = await house.data("{ members(first: 1) { totalCount } }")
    return int(answer["members"]["totalCount"])


def test_the_redirect_of_these_tests_is_of_an_origin_of_ours() -> None:
    assert REDIRECT.startswith("https://portal.example.org/")
