"""Signing up: nothing is kept before the e-mail was proved, and a sign-up that was cut off anywhere goes on."""

import asyncio
import base64
import re
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import orjson
import pytest

from api.app import Api
from api.sign_up_tokens import LIFETIME, SignUpTokens
from mail import Letter
from tenants.errors import TokenRefused
from tenants.signing_in.sign_up import SignUp
from tenants.viewers import TenantId
from tests.house import House
from tests.inbox import receiving
from tests.served import served, served_again

SIGN_UP = "mutation($i: SignUpInput!) { signUp(input: $i) { isSent userErrors { code path } } }"
COMPLETE = """mutation($t: String!, $n: String!, $p: String!) {
  completeSignUp(token: $t, ownerName: $n, password: $p) { slug userErrors { code path } } }"""
SIGN_IN = """mutation($t: String!, $e: String!, $p: String!) {
  signIn(tenant: $t, email: $e, password: $p) { accessToken userErrors { code } } }"""
PASSWORD = "a long and dull secret"
DONE = {"slug": None, "userErrors": [{"code": "ALREADY_DONE", "path": []}]}


@dataclass
class Door:
    """A process where everybody may sign up; letters stay here."""

    house: House
    api: Api
    client: httpx.AsyncClient
    letters: list[Letter] = field(default_factory=list)

    async def ask(self, document: str, variables: dict[str, Any], token: str | None = None) -> dict[str, Any]:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        sent = await self.client.post("/graphql", json={"query": document, "variables": variables}, headers=headers)
        answer: dict[str, Any] = sent.json()
        return answer

    async def sign_up(self, slug: str, **changes: str) -> dict[str, Any]:
        wanted = {"slug": slug, "name": "Ada's", "email": f"ada@{slug}.example.org", "region": "de", "language": "de"}
        found: dict[str, Any] = (await self.ask(SIGN_UP, {"i": {**wanted, **changes}}))["data"]["signUp"]
        return found

    async def token(self, slug: str, **changes: str) -> str:
        """What the letter brings."""
        assert await self.sign_up(slug, **changes) == {"isSent": True, "userErrors": []}
        found = re.search(r"/sign-up#token=(\S+)", self.letters[-1].body)
        assert found
        return found[1]

    async def complete(self, token: str, name: str = "Ada", password: str = PASSWORD) -> dict[str, Any]:
        return await self.ask(COMPLETE, {"t": token, "n": name, "p": password})

    async def completed(self, token: str, **given: str) -> dict[str, Any]:
        answer = await self.complete(token, **given)
        assert "errors" not in answer, answer["errors"]
        found: dict[str, Any] = answer["data"]["completeSignUp"]
        return found

    async def work(self, slug: str) -> None:
        """What the worker does with the job."""
        [tenant] = await self.rows("SELECT id FROM tenants WHERE slug = $1", slug)
        await self.house.provisioning.work(TenantId(tenant["id"]))

    async def rows(self, statement: str, *parameters: object) -> list[Any]:
        connection = await asyncpg.connect(self.house.superuser_url)
        try:
            return list(await connection.fetch(statement, *parameters))
        finally:
            await connection.close()


@pytest.fixture
async def door(house: House) -> AsyncIterator[Door]:
    api = Api(replace(house.api.settings, sign_up=True))
    transport = httpx.ASGITransport(app=api.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000", timeout=60) as client:
        made = Door(house, api, client)

        async def send(letter: Letter) -> None:
            made.letters.append(letter)

        api.signing_up.send = send
        yield made
    await api.close()


@pytest.fixture
def slug() -> str:
    return f"new-{uuid4().hex[:10]}"


async def test_whoever_signs_up_owns_a_tenant_and_signs_in(door: Door, slug: str) -> None:
    token = await door.token(slug)
    assert (await door.complete(token))["errors"][0]["extensions"]["code"] == "TENANT_NOT_READY"
    await door.work(slug)

    assert await door.completed(token) == {"slug": slug, "userErrors": []}
    form = {"t": slug, "e": f"ada@{slug}.example.org", "p": PASSWORD}
    bearer = (await door.ask(SIGN_IN, form))["data"]["signIn"]["accessToken"]
    me = await door.ask("{ me { name roles tenant { slug name defaultRegion defaultLanguage } } }", {}, bearer)
    tenant = {"slug": slug, "name": "Ada's", "defaultRegion": "DE", "defaultLanguage": "de"}
    assert me["data"]["me"] == {"name": "Ada", "roles": ["OWNER"], "tenant": tenant}


async def test_nothing_is_kept_before_the_letters_token_comes_back(door: Door, slug: str) -> None:
    await door.token(slug)

    assert await door.rows("SELECT id FROM tenants WHERE slug = $1", slug) == []


async def test_a_complete_sign_up_is_done_once_and_for_all(door: Door, slug: str) -> None:
    token = await door.token(slug)
    await door.complete(token)
    await door.work(slug)
    await door.completed(token)

    assert await door.completed(token, name="Eve", password="another long secret") == DONE
    form = {"t": slug, "e": f"ada@{slug}.example.org", "p": "another long secret"}
    assert (await door.ask(SIGN_IN, form))["data"]["signIn"]["accessToken"] is None


async def test_of_many_completions_at_once_one_makes_the_owner(door: Door, slug: str) -> None:
    token = await door.token(slug)
    await asyncio.gather(*(door.complete(token) for _ in range(8)))
    await door.work(slug)
    answers = await asyncio.gather(*(door.completed(token, name=f"Ada{n}") for n in range(8)))

    assert sorted(answer["slug"] is None for answer in answers) == [False] + [True] * 7
    assert len(await door.rows("SELECT FROM members m JOIN tenants t ON t.id = tenant_id WHERE slug = $1", slug)) == 1
    jobs = "SELECT FROM jobs j JOIN tenants t ON t.id = tenant_id WHERE slug = $1 AND kind = 'provision_tenant'"
    assert len(await door.rows(jobs, slug)) == 1


async def test_a_sign_up_that_was_cut_off_anywhere_goes_on(door: Door, slug: str) -> None:
    token = await door.token(slug)
    for pause in (0.001, 0.003, 0.006, 0.01, 0.02):
        await cut_off(door.complete(token), pause)
    await door.complete(token)
    await door.work(slug)
    for pause in (0.001, 0.003, 0.01, 0.1, 0.2, 0.22, 0.24):
        await cut_off(door.complete(token), pause)
    last = (await door.complete(token))["data"]["completeSignUp"]

    assert last == {"slug": slug, "userErrors": []} or last == DONE
    assert len(await door.rows("SELECT FROM members m JOIN tenants t ON t.id = tenant_id WHERE slug = $1", slug)) == 1


async def test_a_real_letter_worker_and_restart_lead_to_the_same_end(house: House, slug: str) -> None:
    wanted = {"slug": slug, "name": "Ada", "email": "ada@example.org", "region": "DE"}
    async with receiving() as inbox:
        open_ = {"COFFER_SIGN_UP": "true", "COFFER_MAIL_URL": inbox.url}
        async with served(house, **open_) as first, httpx.AsyncClient(base_url=first.address, timeout=30) as client:
            await client.post("/graphql", json={"query": SIGN_UP, "variables": {"i": wanted}})
            # By address: the worker beside this server also sends the letters that other tests left to be sent.
            link = re.search(r"#token=(\S+)", inbox.to("ada@example.org")[0].get_content())
            assert link
            form = {"t": link[1], "n": "Ada", "p": PASSWORD}
            await client.post("/graphql", json={"query": COMPLETE, "variables": form})
        second = served_again(house, **open_)
        async with second as server, httpx.AsyncClient(base_url=server.address, timeout=30) as client:
            async with asyncio.timeout(30):
                while (done := await completion(client, form)) is None:  # noqa: ASYNC110  # as clients do, too
                    await asyncio.sleep(0.2)

    assert done == {"slug": slug, "userErrors": []}


async def completion(client: httpx.AsyncClient, form: dict[str, str]) -> dict[str, Any] | None:
    answer = (await client.post("/graphql", json={"query": COMPLETE, "variables": form})).json()
    found: dict[str, Any] | None = answer["data"]["completeSignUp"]
    assert found or answer["errors"][0]["extensions"]["code"] == "TENANT_NOT_READY"
    return found


async def cut_off(work: Coroutine[Any, Any, Any], pause: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(pause):
            await work


async def test_the_first_of_two_sign_ups_gets_the_slug(door: Door, slug: str) -> None:
    first, second = await door.token(slug), await door.token(slug, email="eve@example.org")
    await door.complete(first)
    late = await door.completed(second)
    asked = await door.sign_up(slug)

    assert late == {"slug": None, "userErrors": [{"code": "SLUG_TAKEN", "path": ["token"]}]}
    assert asked == {"isSent": False, "userErrors": [{"code": "SLUG_TAKEN", "path": ["input", "slug"]}]}
    assert len(door.letters) == 2


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"slug": "No Slug", "email": "ada@example.org"}, {"code": "SLUG_REFUSED", "path": ["input", "slug"]}),
        ({"name": " "}, {"code": "REQUIRED", "path": ["input", "name"]}),
        ({"email": "no e-mail"}, {"code": "INVALID", "path": ["input", "email"]}),
        ({"email": "a@example.org\r\nBcc: b@example.org"}, {"code": "INVALID", "path": ["input", "email"]}),
        ({"region": "Germany"}, {"code": "INVALID", "path": ["input", "region"]}),
        ({"language": "?"}, {"code": "INVALID", "path": ["input", "language"]}),
    ],
)
async def test_what_can_not_be_kept_is_refused_and_no_letter_leaves(
    door: Door, slug: str, changes: dict[str, str], error: dict[str, Any]
) -> None:
    assert await door.sign_up(**{"slug": slug, **changes}) == {"isSent": False, "userErrors": [error]}
    assert door.letters == []


async def test_all_that_can_not_be_kept_is_told_at_once(door: Door) -> None:
    refused = await door.sign_up(slug="No Slug", name="", email="no e-mail", region="Germany", language="?")

    assert [error["path"][-1] for error in refused["userErrors"]] == ["slug", "name", "email", "region", "language"]
    assert door.letters == []


@pytest.mark.parametrize("password", ["short", "{slug} forever"])
async def test_a_weak_password_is_refused_and_the_sign_up_goes_on(door: Door, slug: str, password: str) -> None:
    token = await door.token(slug)
    await door.complete(token)
    await door.work(slug)
    refused = await door.completed(token, password=password.format(slug=slug))

    assert refused["userErrors"] == [{"code": "MEMBER_REFUSED", "path": ["password"]}]
    assert (await door.completed(token))["slug"] == slug


async def test_where_it_is_closed_nobody_signs_up(house: House, door: Door, slug: str) -> None:
    token = await door.token(slug)
    wanted = {"slug": slug, "name": "Ada", "email": "ada@example.org", "region": "DE"}
    begun = await house.data(SIGN_UP, {"i": wanted}, role=None)
    completed = await house.data(COMPLETE, {"t": token, "n": "Ada", "p": PASSWORD}, role=None)

    closed = [{"code": "SIGN_UP_CLOSED", "path": []}]
    assert (begun["signUp"]["userErrors"], completed["completeSignUp"]["userErrors"]) == (closed, closed)
    assert await door.rows("SELECT id FROM tenants WHERE slug = $1", slug) == []


async def test_letters_are_limited_per_e_mail_and_per_address(door: Door) -> None:
    door.api.signing_up.percent = 100
    to_one = [await door.sign_up(f"many-{n}", email="victim@example.org") for n in range(4)]
    to_others = [await door.sign_up(f"more-{n}", email=f"victim{n}@example.org") for n in range(3)]

    sent = [answer["isSent"] for answer in [*to_one, *to_others]]
    assert sent == [True, True, True, False, True, True, False]  # three to one e-mail, five from an address
    assert to_one[3]["userErrors"] == [{"code": "RATE_LIMITED", "path": []}]
    assert len(door.letters) == 5


async def test_the_letter_quotes_nothing_that_its_reader_could_be_lured_by(door: Door, slug: str) -> None:
    await door.token(slug, name="You won! Go to evil.example.org")

    letter = door.letters[0]
    assert "evil" not in letter.subject + letter.body.replace(token_of(letter), "")
    assert letter.to == f"ada@{slug}.example.org"


def token_of(letter: Letter) -> str:
    found = re.search(r"#token=(\S+)", letter.body)
    assert found
    return found[1]


def parts(token: str) -> list[dict[str, Any]]:
    return [orjson.loads(base64.urlsafe_b64decode(part + "==")) for part in token.split(".")[:2]]


def spelled(part: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(part)).rstrip(b"=").decode()


@pytest.mark.parametrize(
    ("header", "claims"),
    [
        ({}, {"slug": "other"}),
        ({}, {"exp": 10**10}),
        ({"alg": "none"}, {}),
        ({"alg": "HS256"}, {}),
        ({"typ": "at+jwt"}, {}),
        ({"kid": "coffer-access-99"}, {}),
        ({"kid": "../coffer-access-1"}, {}),
        ({"crit": ["exp"]}, {}),
    ],
)
async def test_a_token_that_was_changed_is_refused(
    door: Door, slug: str, header: dict[str, Any], claims: dict[str, Any]
) -> None:
    token = await door.token(slug)
    old = parts(token)
    forged = f"{spelled({**old[0], **header})}.{spelled({**old[1], **claims})}.{token.rpartition('.')[2]}"

    assert (await door.completed(forged))["userErrors"] == [{"code": "TOKEN_REFUSED", "path": ["token"]}]
    assert await door.rows("SELECT id FROM tenants WHERE slug IN ($1, 'other')", slug) == []


async def test_neither_kind_of_token_passes_for_the_other(door: Door, house: House, slug: str) -> None:
    access = await house.token(next(iter(house.members["acme"].values())))
    refused = await door.completed(access)
    answer = await door.ask("{ me { id } }", {}, await door.token(slug))

    assert refused["userErrors"] == [{"code": "TOKEN_REFUSED", "path": ["token"]}]
    assert answer["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"


async def test_a_token_lasts_for_a_day(house: House) -> None:
    now = [time.time()]
    settings = house.api.settings
    tokens = SignUpTokens(house.api.keys, settings.signing_key, settings.issuer, lambda: now[0])
    wanted = SignUp(TenantId(uuid4()), "some", "Some", "ada@example.org", "DE", "de")
    token = await tokens.issue(wanted)
    now[0] += LIFETIME - 2

    assert await tokens.read(token) == wanted
    now[0] += 3
    with pytest.raises(TokenRefused):
        await tokens.read(token)
