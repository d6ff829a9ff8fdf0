"""What a provider publishes: its keys come and go, it is slow, away, or speaks for another; nobody else notices."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from api import openid
from egress import Egress
from tenants.access import Role
from tenants.errors import SignOnUnavailable
from tests.house import House
from tests.openid.asking import added, bearing, begun, codes, me, remove_all, signed_in
from tests.openid.conftest import ACCOUNTS, reaching
from tests.openid.keys import signing_key
from tests.openid.provider import AUDIENCE, Browser, OpenIdProvider, running
from tests.openid.test_bearers import signed

DISCOVERY = "/.well-known/openid-configuration"


class Clock:
    """A monotonic clock that is put forward."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


@pytest.fixture
async def clock(signed_on: House, provider: OpenIdProvider) -> AsyncIterator[Clock]:
    """Of what the house knows of providers; acme has set one, which is whole again at the end."""
    made = Clock()
    signed_on.api.providers._clock = made
    await added(signed_on, provider)
    yield made
    await provider.send(down=False, slow=0, document=None)
    await provider.rotate(*provider.keys)
    await remove_all(signed_on)


def token_of(provider: OpenIdProvider) -> str:
    """A new one, so that no earlier look serves it."""
    now = int(time.time())
    claims = {"iss": provider.issuer, "sub": "sync", "aud": AUDIENCE, "iat": now, "exp": now + 600}
    return signed(provider, {**claims, "groups": ["crm-sync"], "jti": time.monotonic_ns()}, typ="at+jwt")


async def status(house: House, provider: OpenIdProvider) -> int:
    return (await bearing(house, token_of(provider))).status_code


async def test_what_is_known_is_not_asked_again(signed_on: House, provider: OpenIdProvider, clock: Clock) -> None:
    before = await provider.asked("/jwks"), await provider.asked(DISCOVERY)

    assert [await status(signed_on, provider) for _ in range(5)] == [200] * 5
    assert (await provider.asked("/jwks"), await provider.asked(DISCOVERY)) == (before[0] + 1, before[1] + 1)


async def test_a_new_key_is_found_and_a_withdrawn_one_goes(
    signed_on: House, provider: OpenIdProvider, clock: Clock
) -> None:
    assert await status(signed_on, provider) == 200
    old = token_of(provider)
    await provider.rotate(signing_key("RS256", "second"))
    clock.ahead += 31  # a made-up key id makes us ask every 30 s at most

    assert await status(signed_on, provider) == 200
    assert (await bearing(signed_on, old)).status_code == 401


async def test_made_up_key_ids_make_us_ask_once_in_thirty_seconds(
    signed_on: House, provider: OpenIdProvider, clock: Clock
) -> None:
    assert await status(signed_on, provider) == 200
    clock.ahead += 31
    before = await provider.asked("/jwks")
    for n in range(20):
        token = signed(provider, {"iss": provider.issuer, "aud": AUDIENCE}, typ="at+jwt", kid=f"made-up-{n}")
        assert (await bearing(signed_on, token)).status_code == 401
    assert await provider.asked("/jwks") == before + 1


async def test_an_outage_of_less_than_a_day_is_not_noticed(
    signed_on: House, provider: OpenIdProvider, clock: Clock
) -> None:
    assert await status(signed_on, provider) == 200
    await provider.send(down=True)
    clock.ahead += 23 * 3600

    assert await status(signed_on, provider) == 200
    clock.ahead += 2 * 3600
    assert await status(signed_on, provider) == 503
    await provider.send(down=False)
    clock.ahead += 31
    assert await status(signed_on, provider) == 200


async def test_a_slow_provider_holds_up_nobody_else(signed_on: House, provider: OpenIdProvider, clock: Clock) -> None:
    await provider.send(slow=1)
    waiting = [asyncio.create_task(bearing(signed_on, token_of(provider))) for _ in range(20)]
    started = time.monotonic()
    await signed_on.data("{ me { id } }", tenant="globex", role=Role.AGENT)
    others = time.monotonic() - started
    answers = await asyncio.gather(*waiting)

    assert others < 2
    assert {each.status_code for each in answers} == {503}
    assert time.monotonic() - started < openid.PATIENCE + 3  # all waited for one attempt, not each for its own


async def test_begun_while_the_provider_is_away_says_so(
    signed_on: House, provider: OpenIdProvider, clock: Clock
) -> None:
    await provider.send(down=True)

    assert codes(await begun(signed_on)) == ["SIGN_ON_UNAVAILABLE"]


async def test_a_provider_that_goes_away_on_the_way_says_so(
    signed_on: House, provider: OpenIdProvider, clock: Clock, browser: Browser
) -> None:
    await provider.send(document={"path": "/token", "status": 503})

    assert codes(await signed_in(signed_on, browser, "ada")) == ["SIGN_ON_UNAVAILABLE"]


@pytest.mark.parametrize(
    "document",
    [
        {"status": 302, "headers": {"location": "/elsewhere"}},
        {"status": 200, "body": "{"},
        {"status": 200, "body": "[]"},
        {"status": 200, "body": "{}"},
        {"status": 200, "body": '{"issuer": "https://another.example.org"}'},
        {"status": 200, "body": " " * 300_000},
        {"status": 404},
    ],
    ids=["a redirect", "no JSON", "no object", "nothing", "another issuer", "too large", "not found"],
)
async def test_what_is_no_discovery_document_is_not_taken(
    signed_on: House, provider: OpenIdProvider, clock: Clock, document: dict[str, object]
) -> None:
    await provider.send(document={"path": DISCOVERY, **document})

    assert codes(await begun(signed_on)) == ["SIGN_ON_UNAVAILABLE"]


@pytest.mark.parametrize("name", ["jwks_uri", "token_endpoint", "authorization_endpoint"])
@pytest.mark.parametrize("address", [None, 7, "http://elsewhere.example.org/x", "file:///etc/passwd"])
async def test_endpoints_that_may_not_be_reached_are_refused(name: str, address: object) -> None:
    issuer = "https://login.example.org"
    found = {each: f"{issuer}/{each}" for each in ("jwks_uri", "token_endpoint", "authorization_endpoint")}
    providers = openid.Providers(Egress())

    assert providers._read(issuer, {"issuer": issuer, **found}).issuer == issuer
    with pytest.raises(SignOnUnavailable):
        providers._read(issuer, {"issuer": issuer, **found, name: address})


@asynccontextmanager
async def of_algorithm(algorithm: str) -> AsyncIterator[OpenIdProvider]:
    async with running(signing_key(algorithm, "only"), id_tokens=algorithm, accounts=ACCOUNTS) as made:
        yield made


@pytest.mark.parametrize("algorithm", ["PS256", "ES256", "EdDSA"])
async def test_each_algorithm_of_ours_signs_people_and_services_in(
    house: House, browser: Browser, algorithm: str
) -> None:
    async with of_algorithm(algorithm) as provider, reaching(house, provider) as signed_on:
        await added(signed_on, provider)
        try:
            assert codes(await signed_in(signed_on, browser, "ada")) == []
            assert (await me(signed_on, token_of(provider)))["roles"] == ["INTEGRATION"]
        finally:
            await remove_all(signed_on)
