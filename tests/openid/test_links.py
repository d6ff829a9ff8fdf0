"""Links of members to identities: made by who sits there, and worth nothing under another provider or client."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from api.paging import local_id
from tenants.access import Role
from tests.house import PASSWORD, House
from tests.openid.asking import (
    LINK,
    SET,
    added,
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
from tests.openid.test_members import REFUSED, SIGN_IN, password_token

CHANGE = "mutation($o: String!, $n: String!) { changePassword(old: $o, new: $n) { isChanged userErrors { code } } }"
ANOTHER = "an entirely other phrase of words"
ADMINS = {"value": "crm-agents", "roles": ["ADMIN"]}


@pytest.fixture
async def acme(signed_on: House, provider: OpenIdProvider) -> AsyncIterator[House]:
    await added(signed_on, provider)
    yield signed_on
    await remove_all(signed_on)


@pytest.fixture
async def account(provider: OpenIdProvider, request: pytest.FixtureRequest) -> str:
    name = f"link-{request.node.name[-50:]}"
    await provider.send(accounts={name: {"groups": ["crm-agents"]}})
    return name


async def by(house: House, token: str, document: str, **variables: Any) -> dict[str, Any]:
    asked = {"query": document, "variables": variables}
    answer = await house.client.post("/graphql", json=asked, headers={"authorization": f"Bearer {token}"})
    ((_, payload),) = answer.json()["data"].items()
    return dict(payload)


async def test_a_pending_link_falls_with_the_session_that_asked(acme: House, browser: Browser, account: str) -> None:
    email = "victim@acme.example.org"
    stolen = await password_token(acme, email)
    begin = await by(acme, stolen, LINK, r=REDIRECT)
    own = (await acme.data(SIGN_IN, {"e": email, "p": PASSWORD}, role=None))["signIn"]["accessToken"]
    victim = await me(acme, own)
    assert (await by(acme, own, CHANGE, o=PASSWORD, n=ANOTHER))["isChanged"]

    returned = await browser.sign_in(begin["authorizationUrl"], account)
    assert codes(await completed(acme, returned, begin["handle"])) == REFUSED
    assert (await refusals(acme))[-1]["why"] == "session-ended"
    assert (await me(acme, (await signed_in(acme, browser, account))["accessToken"]))["id"] != victim["id"]


async def test_the_proof_must_still_be_fresh_when_the_link_is_made(acme: House, browser: Browser, account: str) -> None:
    token = await password_token(acme, "slow@acme.example.org")
    begin = await by(acme, token, LINK, r=REDIRECT)
    await aged(acme, (await me(acme, token))["id"])

    returned = await browser.sign_in(begin["authorizationUrl"], account)
    assert codes(await completed(acme, returned, begin["handle"])) == REFUSED
    assert (await refusals(acme))[-1]["why"] == "proof-too-old"


async def aged(house: House, member: str) -> None:
    """That member's proofs are six minutes old from here on."""
    connection = await asyncpg.connect(house.superuser_url)
    try:
        await connection.execute(
            "UPDATE member_sessions SET confirmed_at = confirmed_at - interval '6 minutes' WHERE member_id = $1",
            local_id("Member", member),
        )
    finally:
        await connection.close()


async def test_another_client_of_the_same_issuer_inherits_no_link(
    acme: House, browser: Browser, provider: OpenIdProvider, account: str
) -> None:
    before = await me(acme, (await signed_in(acme, browser, account))["accessToken"])
    client: dict[str, Any] = {"clientId": PUBLIC_CLIENT, "clientSecret": None, "audience": "of another"}
    second = await added(acme, provider, **client)
    beside = await me(acme, (await signed_in(acme, browser, account, p=second))["accessToken"])
    await remove_all(acme)
    await added(acme, provider, **client)
    after = await me(acme, (await signed_in(acme, browser, account))["accessToken"])

    assert len({before["id"], beside["id"], after["id"]}) == 3


@pytest.mark.parametrize(
    "changes", [{"clientId": "of mine"}, {"audience": "of mine"}, {"issuer": "https://a.example.org"}]
)
async def test_only_an_owner_points_a_provider_that_members_sign_in_by_elsewhere(
    acme: House, browser: Browser, provider: OpenIdProvider, account: str, changes: dict[str, Any]
) -> None:
    await remove_all(acme)
    id = await added(acme, provider, roleMap=[ADMINS])
    await signed_in(acme, browser, account)

    wanted = settings_of(provider, roleMap=[ADMINS])
    answer = await acme.ask(SET, {"i": wanted | changes, "id": id}, role=Role.ADMIN)
    assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"
    assert codes(await signed_in(acme, browser, account)) == []  # as it was set before
    assert codes(await set_(acme, wanted | {"name": "Ours"}, id, role=Role.ADMIN)) == []
    assert codes(await set_(acme, wanted | changes, id)) == []
