"""Every trick with tokens we know of, against our own access tokens and those of tenants' providers: 401 each time.

Each is asked in both media types and at the WebSocket, beside a good token of the same forge that is taken.
"""

import time
from collections.abc import AsyncIterator

import pytest

from api.requests import LEGACY, MODERN
from tenants.access import Role
from tests.api.test_websocket import INIT, Stage, serving
from tests.house import House
from tests.openid.asking import added, remove_all
from tests.openid.attacks import ATTACKS, Attack, Forge
from tests.openid.conftest import reaching
from tests.openid.provider import AUDIENCE, OpenIdProvider

ASKED = {"query": 'mutation { createTag(name: "of an attack") { tag { id } } }'}
OPEN = {"query": "{ me { id } }"}


@pytest.fixture(scope="module")
async def acme(house: House, provider: OpenIdProvider) -> AsyncIterator[House]:
    async with reaching(house, provider) as made:
        await added(made, provider)
        yield made
        await remove_all(made)


@pytest.fixture(scope="module")
async def stage(acme: House) -> AsyncIterator[Stage]:
    async with serving() as made:
        made.app = acme.api.app
        yield made


async def of_ours(house: House) -> Forge:
    """Signed by Transit over whatever we like."""
    (key, *_) = reversed((await house.client.get("/.well-known/jwks.json")).json()["keys"])
    member, now = house.members["acme"][Role.OWNER], int(time.time())

    async def sign(body: bytes) -> bytes:
        return (await house.api.keys.sign(house.api.settings.signing_key, body))[1]

    claims = {
        "iss": house.api.settings.issuer,
        "aud": "coffer",
        "sub": str(member.principal),
        "tid": str(member.tenant),
        "iat": now,
        "exp": now + 600,
        "jti": "one",
    }
    return Forge({"alg": "EdDSA", "typ": "at+jwt", "kid": key["kid"]}, claims, sign, key["x"].encode(), key)


async def of_a_provider(provider: OpenIdProvider) -> Forge:
    key, now = provider.keys[0], int(time.time())

    async def sign(body: bytes) -> bytes:
        return key.sign(body)

    claims = {
        "iss": provider.issuer,
        "aud": AUDIENCE,
        "sub": "sync",
        "iat": now,
        "exp": now + 600,
        "groups": ["crm-sync"],
    }
    header = {"alg": key.algorithm, "typ": "at+jwt", "kid": key.id}
    return Forge(header, claims, sign, key.public_pem, key.public_jwk, longest=86_400)


@pytest.fixture(params=["ours", "a provider's"])
async def forge(request: pytest.FixtureRequest, acme: House, provider: OpenIdProvider) -> Forge:
    return await (of_ours(acme) if request.param == "ours" else of_a_provider(provider))


async def statuses(house: House, token: str) -> list[int]:
    found = []
    for accept in (LEGACY, MODERN):
        # as bytes: a header's text can be what httpx would refuse to send
        headers = [(b"authorization", b"Bearer " + token.encode()), (b"accept", accept.encode())]
        found.append((await house.client.post("/graphql", json=OPEN, headers=headers)).status_code)
    return found


async def test_a_good_token_of_each_forge_is_taken(acme: House, stage: Stage, forge: Forge) -> None:
    token = await forge.token()

    assert await statuses(acme, token) == [200, 200]
    async with stage.acknowledged({"authorization": f"Bearer {token}"}):
        pass


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
async def test_a_token_that_is_none_is_401_each_time(acme: House, stage: Stage, forge: Forge, attack: Attack) -> None:
    token = await attack(forge)

    assert await statuses(acme, token) == [401, 401]
    async with stage.connect() as client:  # in the payload, where no line of a header bounds what is sent
        await client.send({**INIT, "payload": {"authorization": f"Bearer {token}"}})
        assert await client.closed() == 4403


async def test_nothing_is_done_for_an_attack(acme: House, forge: Forge) -> None:
    before = await acme.data("{ tags { id } }")
    answers = [
        await acme.client.post("/graphql", json=ASKED, headers=[(b"authorization", b"Bearer " + token.encode())])
        for token in [await attack(forge) for attack in ATTACKS.values()]
    ]

    assert {answer.status_code for answer in answers} == {401}
    assert await acme.data("{ tags { id } }") == before


async def test_an_own_token_with_its_audience_in_a_list_is_refused(acme: House) -> None:
    forge = await of_ours(acme)

    assert await statuses(acme, await forge.token(claims={"aud": ["coffer"]})) == [401, 401]


async def test_an_own_header_says_nothing_more_than_ours_do(acme: House) -> None:
    forge = await of_ours(acme)

    assert await statuses(acme, await forge.token(header={"x5t": "x"})) == [401, 401]


async def test_a_provider_does_not_speak_for_us(acme: House, provider: OpenIdProvider) -> None:
    ours, theirs = await of_ours(acme), await of_a_provider(provider)

    assert await statuses(acme, await theirs.token(ours.header, ours.claims)) == [401, 401]
    assert await statuses(acme, await theirs.token({}, ours.claims)) == [401, 401]
    assert await statuses(acme, await ours.token(theirs.header, theirs.claims)) == [401, 401]
    assert await statuses(acme, await ours.token({}, theirs.claims)) == [401, 401]
