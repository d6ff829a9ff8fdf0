"""Signing in, the token it gives, and every token that is none."""

import time
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import jwt
import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from api.paging import global_id
from api.requests import LEGACY, MODERN
from api.tokens import _base64
from tenants import members
from tenants.access import Role
from tests.house import PASSWORD, House

SIGN_IN = """mutation($tenant: String!, $email: String!, $password: String!) {
  signIn(tenant: $tenant, email: $email, password: $password) {
    accessToken tokenType expiresIn userErrors { code path message } } }"""
ME = "{ me { id name email roles permissions tenant { slug name defaultRegion defaultLanguage } } }"
VERSION = "{ customers(first: 1) { totalCount } }"


async def signed_in(house: House, **changes: str) -> dict[str, Any]:
    sent = {"tenant": "acme", "email": "agent@acme.example.org", "password": PASSWORD, **changes}
    payload: dict[str, Any] = (await house.data(SIGN_IN, sent, role=None))["signIn"]
    return payload


async def bearing(house: House, *tokens: str, document: str = VERSION) -> httpx.Response:
    headers = [("authorization", f"Bearer {token}") for token in tokens]
    return await house.client.post("/graphql", json={"query": document}, headers=headers)


async def key_id(house: House) -> str:
    return str((await house.client.get("/.well-known/jwks.json")).json()["keys"][-1]["kid"])


async def signed(house: House, header: dict[str, Any], **changes: Any) -> str:
    """A token that Transit signed over just this header and these claims."""
    credential = house.members["acme"][Role.AGENT]
    now = int(time.time())
    claims = {
        "iss": house.api.settings.issuer,
        "aud": "coffer",
        "sub": str(credential.principal),
        "tid": str(credential.tenant),
        "iat": now,
        "exp": now + 900,
        "jti": "one",
    }
    told = {"alg": "EdDSA", "typ": "at+jwt", "kid": await key_id(house), **header}
    kept = {name: value for name, value in {**claims, **changes}.items() if value is not None}
    body = _base64(orjson.dumps(told)) + b"." + _base64(orjson.dumps(kept))
    _, signature = await house.api.keys.sign(house.api.settings.signing_key, body)
    return (body + b"." + _base64(signature)).decode()


async def test_signing_in_gives_a_token_that_works(house: House) -> None:
    payload = await signed_in(house)
    assert payload["userErrors"] == []
    assert (payload["tokenType"], payload["expiresIn"]) == ("Bearer", 900)
    answer = (await bearing(house, payload["accessToken"], document=ME)).json()
    assert answer["data"]["me"]["email"] == "agent@acme.example.org"


async def test_an_email_may_be_spelled_in_capitals(house: House) -> None:
    assert (await signed_in(house, email=" AGENT@Acme.Example.ORG "))["accessToken"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"password": "wrong"},
        {"password": ""},
        {"password": PASSWORD + " "},
        {"password": "x" * 5000},
        {"email": "nobody@acme.example.org"},
        {"email": "not an e-mail"},
        {"email": ""},
        {"email": "agent@globex.example.org"},
        {"tenant": "globex"},
        {"tenant": "nowhere"},
        {"tenant": ""},
        {"tenant": "ACME' OR 1=1"},
    ],
    ids=lambda wrong: f"{next(iter(wrong))}={next(iter(wrong.values()))[:20]}",
)
async def test_whatever_is_wrong_is_refused_in_the_same_words(house: House, wrong: dict[str, str]) -> None:
    payload = await signed_in(house, **wrong)
    assert payload == {
        "accessToken": None,
        "tokenType": "Bearer",
        "expiresIn": 0,
        "userErrors": [
            {"code": "SIGN_IN_REFUSED", "path": [], "message": "Tenant, e-mail and password do not fit together."}
        ],
    }


@pytest.mark.parametrize("email", ["integration@acme.example.org", "stranger@acme.example.org"])
async def test_failures_slow_down_whoever_has_the_email(house: House, email: str) -> None:
    codes = [(await signed_in(house, email=email, password="wrong"))["userErrors"][0]["code"] for _ in range(8)]
    assert codes[0] == "SIGN_IN_REFUSED"
    assert codes[-1] == "TOO_MANY_ATTEMPTS"


async def test_the_key_set_verifies_the_token(house: House) -> None:
    token = (await signed_in(house))["accessToken"]
    answer = await house.client.get("/.well-known/jwks.json")
    keys = jwt.PyJWKSet.from_dict(answer.json())
    key = keys[jwt.get_unverified_header(token)["kid"]]
    issuer = house.api.settings.issuer
    claims = jwt.decode(token, key, algorithms=["EdDSA"], audience="coffer", issuer=issuer)
    credential = house.members["acme"][Role.AGENT]
    assert (claims["tid"], claims["sub"]) == (str(credential.tenant), str(credential.principal))
    assert claims["exp"] - claims["iat"] == 900
    assert set(claims) == {"iss", "aud", "sub", "tid", "iat", "exp", "jti", "sid"}  # nothing personal


async def test_the_key_set_holds_public_halves_alone(house: House) -> None:
    for key in (await house.client.get("/.well-known/jwks.json")).json()["keys"]:
        assert set(key) == {"kty", "crv", "alg", "use", "kid", "x"}


async def test_a_well_made_token_is_taken(house: House) -> None:
    assert (await bearing(house, await signed(house, {}))).status_code == 200


NOW = int(time.time())
HEADERS: dict[str, dict[str, Any]] = {
    "typ JWT": {"typ": "JWT"},
    "no typ": {"typ": None},
    "alg none": {"alg": "none"},
    "alg HS256": {"alg": "HS256"},
    "alg in small letters": {"alg": "eddsa"},
    "wrong kid": {"kid": "coffer-access-999"},
    "kid of another key": {"kid": "other-1"},
    "kid with a path": {"kid": "../../dev/null"},
    "kid of a strange kind": {"kid": ["coffer-access-1"]},
    "crit": {"crit": ["exp"]},
}
CLAIMS: dict[str, dict[str, Any]] = {
    "expired": {"iat": NOW - 1000, "exp": NOW - 100},
    "of the future": {"iat": NOW + 5000, "exp": NOW + 5900},
    "too long": {"exp": NOW + 86_400},
    "without end": {"exp": None},
    "with an end that is no number": {"exp": "never"},
    "for another audience": {"aud": "elsewhere"},
    "for several audiences": {"aud": ["coffer", "elsewhere"]},
    "of another issuer": {"iss": "https://evil.example"},
    "without tenant": {"tid": None},
    "of a tenant that is no id": {"tid": "acme"},
    "of a tenant that is a number": {"tid": 7},
    "of nobody": {"sub": "00000000-0000-0000-0000-000000000000"},
}


def refused(response: httpx.Response) -> bool:
    codes = [error["extensions"]["code"] for error in response.json()["errors"]]
    return codes == ["UNAUTHENTICATED"] and "data" not in response.json()


@pytest.mark.parametrize("name", HEADERS)
async def test_a_token_with_another_header_is_refused(house: House, name: str) -> None:
    response = await bearing(house, await signed(house, HEADERS[name]))
    assert (response.status_code, refused(response)) == (401, True)


@pytest.mark.parametrize("name", CLAIMS)
async def test_a_token_with_other_claims_is_refused(house: House, name: str) -> None:
    response = await bearing(house, await signed(house, {}, **CLAIMS[name]))
    assert (response.status_code, refused(response)) == (401, True)


@pytest.fixture
async def disabled(house: House) -> str:
    """A good token of a member of acme who was disabled after it was issued."""
    tenant = house.members["acme"][Role.AGENT].tenant
    email = f"{uuid4().hex}@acme.example.org"
    async with house.api.units.enter(tenant, None, write=True) as unit:
        member = await members.add(unit, email=email, name="Gone", password_hash="", roles=[Role.AGENT])
    token = await signed(house, {}, sub=str(member))
    assert (await bearing(house, token)).status_code == 200
    superuser = await asyncpg.connect(house.server.url("postgres", house.database))
    await superuser.execute("UPDATE members SET status = 'DISABLED' WHERE id = $1", member)
    await superuser.close()
    return token


@pytest.mark.parametrize("accept", [LEGACY, MODERN])
async def test_a_member_who_is_disabled_or_gone_is_refused_as_a_bad_token_is(
    house: House, disabled: str, accept: str
) -> None:
    gone = await signed(house, {}, **CLAIMS["of nobody"])
    for token in (disabled, gone, "garbage"):
        headers = {"authorization": f"Bearer {token}", "accept": accept}
        response = await house.client.post("/graphql", json={"query": VERSION}, headers=headers)
        assert (response.status_code, refused(response)) == (401, True)
        assert response.headers["content-type"].startswith(accept)
        assert response.headers["www-authenticate"] == 'Bearer error="invalid_token"'


async def test_a_member_of_one_tenant_is_none_of_another(house: House) -> None:
    other = str(house.members["globex"][Role.OWNER].tenant)
    response = await bearing(house, await signed(house, {}, tid=other))
    assert (response.status_code, refused(response)) == (401, True)


async def test_a_token_ends_even_if_it_was_seen_before(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    token = await signed(house, {})
    assert (await bearing(house, token)).status_code == 200
    monkeypatch.setattr(house.api.tokens, "_clock", lambda: time.time() + 901)
    assert (await bearing(house, token)).status_code == 401


def forged(algorithm: str | None, key: Any, kid: str) -> str:
    claims = {"iss": "http://127.0.0.1:8000", "aud": "coffer", "iat": NOW, "exp": NOW + 900, "jti": "x"}
    return jwt.encode(claims, key, algorithm=algorithm, headers={"typ": "at+jwt", "kid": kid})


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")  # of our forgery
async def test_hs256_with_the_public_key_is_refused(house: House) -> None:
    (key, *_) = (await house.client.get("/.well-known/jwks.json")).json()["keys"]
    for secret in (key["x"].encode(), jwt.utils.base64url_decode(key["x"])):
        assert (await bearing(house, forged("HS256", secret, key["kid"]))).status_code == 401


async def test_a_token_without_a_signature_or_by_another_key_is_refused(house: House) -> None:
    kid = await key_id(house)
    assert (await bearing(house, forged("none", None, kid))).status_code == 401
    assert (await bearing(house, forged("EdDSA", Ed25519PrivateKey.generate(), kid))).status_code == 401


@pytest.mark.parametrize("place", range(3))
async def test_a_token_changed_in_any_part_is_refused(house: House, place: int) -> None:
    parts = (await signed(house, {})).split(".")
    parts[place] = ("f" if parts[place][0] != "f" else "g") + parts[place][1:]
    assert (await bearing(house, ".".join(parts))).status_code == 401


@pytest.mark.parametrize("token", ["garbage", "a.b.c", "..", ".", "e30.e30.", "null", "x" * 5000, "=.=.=", "a b"])
async def test_garbage_is_refused(house: House, token: str) -> None:
    response = await bearing(house, token)
    assert (response.status_code, refused(response)) == (401, True)
    assert response.headers["www-authenticate"].startswith("Bearer")


async def test_two_authorization_headers_are_refused_even_if_alike(house: House) -> None:
    token = await signed(house, {})
    assert (await bearing(house, token, token)).status_code == 401


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer ", "Basic YTpi", "Token x"])
async def test_an_authorization_that_bears_no_token_is_refused(house: House, value: str) -> None:
    response = await house.client.post("/graphql", json={"query": ME}, headers={"authorization": value})
    assert response.status_code == 401


async def test_without_a_token_there_is_no_me_and_no_customer(house: House) -> None:
    answer = await house.ask(ME, role=None)
    assert answer["data"] == {"me": None}
    assert (await house.ask(VERSION, role=None))["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"


@pytest.mark.parametrize("role", Role)
async def test_me_tells_members_who_they_are(house: House, role: Role) -> None:
    me = (await house.data(ME, role=role))["me"]
    assert me["id"] == global_id("Member", house.members["acme"][role].principal)
    assert (me["name"], me["email"]) == (role.value.title(), f"{role.value.lower()}@acme.example.org")
    assert (me["roles"], "CUSTOMERS_READ" in me["permissions"]) == ([role.value], True)
    assert (me["tenant"]["slug"], me["tenant"]["defaultRegion"]) == ("acme", "US")
