"""ID tokens that a provider signed, and that must not sign anybody in all the same."""

import hashlib
import time
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson
import pytest

from tests.house import House
from tests.openid.asking import added, begun, codes, completed, refusals, remove_all
from tests.openid.attacks import ATTACKS, Attack, Forge
from tests.openid.conftest import reaching
from tests.openid.keys import text
from tests.openid.provider import CLIENT, OpenIdProvider

ACCESS_TOKEN = "an-access-token"
# What is about the type and audience of access tokens, or takes the sub of an ID token for another's.
_NOT_HERE = {"typ left out", "typ JWT", "an ID token"}


@pytest.fixture(scope="module")
async def acme(house: House, provider: OpenIdProvider) -> AsyncIterator[House]:
    async with reaching(house, provider) as made:
        await added(made, provider)
        yield made
        await provider.send(document=None)
        await remove_all(made)


def half(digest: bytes) -> str:
    return text(digest[: len(digest) // 2])


GOOD_HASH = half(hashlib.sha256(ACCESS_TOKEN.encode()).digest())


async def answered(house: House, provider: OpenIdProvider, make: Attack, *, fresh: bool = False) -> dict[str, Any]:
    """What completing answers where the provider's token endpoint gives an ID token that is made so."""
    begin = await begun(house, f=fresh)
    asked = {name: values[0] for name, values in parse_qs(urlsplit(begin["authorizationUrl"]).query).items()}
    forge = _forge(provider, asked["nonce"])
    body = orjson.dumps({"access_token": ACCESS_TOKEN, "id_token": await make(forge)}).decode()
    await provider.send(document={"path": "/token", "status": 200, "body": body})
    returned = {"state": asked["state"], "code": "a code", "iss": provider.issuer}
    return await completed(house, returned, begin["handle"])


def _forge(provider: OpenIdProvider, nonce: str) -> Forge:
    key, now = provider.keys[0], int(time.time())

    async def sign(body: bytes) -> bytes:
        return key.sign(body)

    claims = {
        "iss": provider.issuer,
        "aud": CLIENT,
        "sub": "forged",
        "iat": now,
        "exp": now + 300,
        "nonce": nonce,
        "groups": ["crm-agents"],
    }
    return Forge({"alg": key.algorithm, "kid": key.id}, claims, sign, key.public_pem, key.public_jwk, longest=86_400)


def claims(**changes: Any) -> Attack:
    return lambda forge: forge.token(claims=changes)


def aged(seconds: int, **more: Any) -> Attack:
    return lambda forge: forge.token(claims={"auth_time": forge.claims["iat"] - seconds, **more})


GOOD: dict[str, Attack] = {
    "as it should be": claims(),
    "typed": lambda forge: forge.token(header={"typ": "JWT"}),
    "its audience in a list": claims(aud=[CLIENT]),
    "for us by name": claims(azp=CLIENT),
    "with the hash of the access token": claims(at_hash=GOOD_HASH),
    "with a time of proof": aged(4000),
}
BAD: dict[str, Attack] = {
    "of another nonce": claims(nonce="another"),
    "of no nonce": claims(nonce=None),
    "of a nonce of a list": lambda forge: forge.token(claims={"nonce": [forge.claims["nonce"]]}),
    "for another party": claims(azp="another"),
    "for a client besides": claims(aud=[CLIENT, "another"], azp=CLIENT),
    "of another access token": claims(at_hash=half(hashlib.sha256(b"another").digest())),
    "of a hash of a list": claims(at_hash=[GOOD_HASH]),
    "an access token": lambda forge: forge.token(header={"typ": "at+jwt"}),
    "an old one": lambda forge: forge.token(claims={"iat": forge.claims["iat"] - 700}),
    "of a proof in the future": aged(-100),
    "of a proof of a text": claims(auth_time="0"),
    "of a subject with a line break": claims(sub="for\nged"),
    "of a very long subject": claims(sub="x" * 256),
}


@pytest.mark.parametrize("make", GOOD.values(), ids=GOOD)
async def test_a_good_id_token_signs_in(acme: House, provider: OpenIdProvider, make: Attack) -> None:
    assert codes(await answered(acme, provider, make)) == []


_EVERY = BAD | {name: attack for name, attack in ATTACKS.items() if name not in _NOT_HERE}


@pytest.mark.parametrize("make", _EVERY.values(), ids=_EVERY)
async def test_a_bad_id_token_signs_nobody_in(acme: House, provider: OpenIdProvider, make: Attack) -> None:
    payload = await answered(acme, provider, make)

    assert codes(payload) == ["SIGN_ON_REFUSED"]
    assert (payload["accessToken"], payload["refreshToken"]) == (None, None)
    assert (await refusals(acme))[-1]["why"].startswith("id-token-")


@pytest.mark.parametrize(
    ("make", "expected"), [(aged(10), []), (aged(4000), ["SIGN_ON_REFUSED"]), (claims(), ["SIGN_ON_REFUSED"])]
)
async def test_where_a_proof_was_asked_for_an_older_one_wont_do(
    acme: House, provider: OpenIdProvider, make: Attack, expected: list[str]
) -> None:
    assert codes(await answered(acme, provider, make, fresh=True)) == expected


@pytest.mark.parametrize("body", ["", "{", "[]", "{}", '{"id_token": 7}', '{"id_token": "a.b.c"}'])
async def test_what_is_no_token_answer_signs_nobody_in(acme: House, provider: OpenIdProvider, body: str) -> None:
    begin = await begun(acme)
    state = parse_qs(urlsplit(begin["authorizationUrl"]).query)["state"][0]
    await provider.send(document={"path": "/token", "status": 200, "body": body})

    returned = {"state": state, "code": "a code", "iss": provider.issuer}
    assert codes(await completed(acme, returned, begin["handle"])) == ["SIGN_ON_REFUSED"]
