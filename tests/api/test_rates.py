"""Rate limits: what is over them never runs, no caller takes another's share, and each answer says what is left."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.app import Api
from api.buckets import Buckets, Draw, Quota
from api.paging import global_id
from api.rates import Caller, RateLimited, Rates
from tenants.access import Role
from tenants.viewers import Credential, MemberId, TenantId
from tests.api.test_websocket import serving
from tests.house import House

ME = "{ me { id } }"
SIGN_IN = 'signIn(tenant: "acme", email: "nobody@example.org", password: "wrong") { userErrors { code } }'
# Of one percent of the limits: a member may send 10 requests at once, a tenant 20, an address 2.
MEMBER, TENANT, ADDRESS = 10, 20, 2
HERE = ("127.0.0.1", 1)


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Tight:
    """A process of the house whose limits are one percent of the product's, by a clock that stands still."""

    house: House
    api: Api
    client: httpx.AsyncClient
    clock: Clock = field(default_factory=Clock)

    async def ask(
        self, query: str = ME, role: Role | None = Role.AGENT, tenant: str = "acme", **headers: str
    ) -> httpx.Response:
        if role is not None:
            headers["authorization"] = f"Bearer {await self.house.token(self.house.members[tenant][role])}"
        return await self.client.post("/graphql", json={"query": query}, headers=headers)

    def left(self, quota: str, whose: str) -> int:
        """What a bucket holds; more than it can is as much as it can."""
        return round(self.api.rates.own.take([Draw(self.quotas[quota], whose, 0)])[0].tokens)

    @property
    def quotas(self) -> dict[str, Quota]:
        rates = self.api.rates
        return {quota.name: quota for quota in (*rates._requests.values(), *rates._costs.values())}

    async def flood(self, times: int, **who: Any) -> list[int]:
        return [(await self.ask(**who)).status_code for _ in range(times)]


@asynccontextmanager
async def process(house: House, **changes: Any) -> AsyncIterator[Tight]:
    api = Api(replace(house.api.settings, **{"rate_percent": 1, **changes}))
    transport = httpx.ASGITransport(app=api.app)
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
            made = Tight(house, api, client)
            api.rates.own = Buckets(made.clock)
            yield made
    finally:
        await api.close()


@pytest.fixture
async def tight(house: House) -> AsyncIterator[Tight]:
    async with process(house) as made:
        yield made


async def test_a_member_over_the_limit_is_refused_before_anything_runs(tight: Tight) -> None:
    assert await tight.flood(MEMBER, role=Role.MANAGER) == [200] * MEMBER
    refused = await tight.ask('mutation { createTag(name: "flood") { tag { id } } }', Role.MANAGER)

    error = refused.json()["errors"][0]["extensions"]
    assert (refused.status_code, error["code"], error["retryAfter"]) == (429, "RATE_LIMITED", 1)
    assert (refused.headers["retry-after"], "data" in refused.json()) == ("1", False)
    assert "flood" not in str(await tight.house.data("{ tags { name } }"))


@pytest.mark.parametrize("accept", ["application/json", "application/graphql-response+json"])
async def test_the_status_of_a_refusal_is_429_in_both_media_types(tight: Tight, accept: str) -> None:
    await tight.flood(MEMBER)

    assert (await tight.ask(accept=accept)).status_code == 429


async def test_a_request_comes_back_every_second(tight: Tight) -> None:
    await tight.flood(MEMBER)
    tight.clock.now += 3

    assert await tight.flood(5) == [200, 200, 200, 429, 429]


async def test_one_members_flood_is_not_anothers(tight: Tight) -> None:
    await tight.flood(MEMBER + 5)

    assert (await tight.ask(role=Role.MANAGER)).status_code == 200


async def test_a_tenants_members_share_its_bucket_and_no_other_tenants(tight: Tight) -> None:
    roles = [Role.OWNER, Role.AGENT]
    flooded = [status for role in roles for status in await tight.flood(MEMBER, role=role)]

    assert flooded == [200] * TENANT
    refused = await tight.ask(role=Role.ANALYST)
    assert refused.status_code == 429
    assert '"tenant";r=0' in refused.headers["ratelimit"]
    assert (await tight.ask(tenant="globex")).status_code == 200


async def test_every_answer_says_what_is_left(tight: Tight) -> None:
    first, invalid = await tight.ask(), await tight.ask("{ nonsense }")

    assert first.headers["ratelimit-policy"] == '"member";q=10;w=10, "member-cost";q=2000;w=10'
    # Two fields, and a tenth of thirteen characters that were read for the first time.
    assert first.headers["ratelimit"] == '"member";r=9;t=1, "member-cost";r=1997;t=1'
    assert invalid.headers["ratelimit"] == '"member";r=8;t=2, "member-cost";r=1997;t=1'


async def test_browsers_may_read_the_headers(house: House) -> None:
    origin = "https://portal.example.org"
    async with process(house, cors_origins=(origin,)) as open_:
        answer = await open_.ask(origin=origin)

    exposed = answer.headers["access-control-expose-headers"].lower()
    assert {"ratelimit", "ratelimit-policy", "retry-after"} <= set(exposed.split(", "))


async def test_browsers_may_send_what_apollo_sends(house: House) -> None:
    origin = "https://portal.example.org"
    sent = "content-type, apollographql-client-name, apollographql-client-version, x-apollo-operation-name"
    asked = {"origin": origin, "access-control-request-method": "POST"}
    async with process(house, cors_origins=(origin,)) as open_:
        for names, status in ((f"{sent}, apollo-require-preflight", 200), ("x-anything", 400)):
            headers = {**asked, "access-control-request-headers": names}
            assert (await open_.client.options("/graphql", headers=headers)).status_code == status


async def test_costly_operations_are_limited_by_their_cost(tight: Tight) -> None:
    costly = "{ customers(first: 100) { nodes { id stage version createdAt updatedAt } } }"  # some 600 fields of 2,000
    statuses = await tight.flood(5, query=costly)

    assert statuses == [200, 200, 200, 429, 429]
    assert (await tight.ask()).status_code == 200  # what costs little still fits


async def test_documents_that_can_not_run_cost_by_their_length(tight: Tight) -> None:
    """One percent leaves a member a cost of 2,000 at once, and 200 a second."""
    long = "{ " + "x" * 15_000 + " }"

    assert await tight.flood(3, query=long) == [200, 200, 429]  # the second one made a debt of 1,000
    tight.clock.now += 4
    assert (await tight.ask()).status_code == 429
    tight.clock.now += 2
    assert (await tight.ask()).status_code == 200


async def read_anew(tight: Tight, text: str, method: str = "POST", **more: str) -> int:
    """What an address was charged for it; one percent leaves it a cost of 200."""
    sent = {"query": text, **more}
    if method == "POST":
        await tight.client.post("/graphql", json=sent)
    else:
        await tight.client.get("/graphql", params=sent)
    return 200 - tight.left("address-cost", tight.api.rates.address(HERE))


DEAR = "query Dear { " + " ".join(f'a{n}: customer(id: "{n}") {{ id stage version }}' for n in range(20)) + " }"


@pytest.mark.parametrize(
    ("method", "text", "named"),
    [
        ("POST", "subscription Cheap { customerChanged { customer { id } } } " + DEAR, "Cheap"),
        ("GET", 'mutation Cheap { createTag(name: "") { tag { id } } } ' + DEAR, "Cheap"),
        ("POST", "query Cheap { __typename } " + DEAR, "Cheap"),
    ],
    ids=["a subscription without a socket", "a mutation by GET", "a dear operation beside the cheap one"],
)
async def test_a_document_that_is_read_for_the_first_time_costs_by_its_length(
    tight: Tight, method: str, text: str, named: str
) -> None:
    first = await read_anew(tight, text, method, operationName=named)
    again = await read_anew(tight, text, method, operationName=named)

    assert len(text) // 10 <= first <= len(text) // 10 + 1
    assert again - first <= 1


async def test_a_new_document_over_a_socket_costs_by_its_length(tight: Tight) -> None:
    async with serving() as stage:
        stage.app = tight.api.app
        async with stage.acknowledged() as client:
            await client.subscribe({"query": "query Cheap { __typename } " + DEAR, "operationName": "Cheap"})
            assert (await client.receive())["type"] == "next"

    (left,) = [tokens for (name, _), (tokens, _) in tight.api.rates.own._known.items() if name == "address-cost"]
    assert left < 200 - len(DEAR) // 10


async def test_aliases_of_anonymous_documents_cost_as_many(house: House) -> None:
    """A fifth leaves an address a cost of 4,000, which is four attempts to sign in, in however many documents."""
    many = "mutation { " + " ".join(f"a{n}: {SIGN_IN}" for n in range(3)) + " }"
    async with process(house, rate_percent=20) as fifth:
        statuses = [(await fifth.ask(text, role=None)).status_code for text in (many, many, ME)]

    assert statuses == [200, 429, 200]


async def test_an_address_signs_in_twice_a_second_in_the_long_run(house: House) -> None:
    async with process(house, rate_percent=20) as fifth:
        statuses = [await fifth.flood(5, query=f"mutation {{ {SIGN_IN} }}", role=None)]
        fifth.clock.now += 5  # a fifth of the time counts
        statuses.append(await fifth.flood(3, query=f"mutation {{ {SIGN_IN} }}", role=None))

    assert statuses == [[200, 200, 200, 429, 429], [200, 200, 429]]


async def test_who_has_no_token_is_counted_by_address(tight: Tight) -> None:
    assert await tight.flood(ADDRESS + 1, role=None) == [200, 200, 429]
    assert (await tight.ask()).status_code == 200


async def test_guessing_tokens_is_slow(tight: Tight) -> None:
    guess = await tight.ask(role=None, authorization="Bearer guess")

    assert (guess.status_code, guess.headers["ratelimit"]) == (401, '"address";r=1;t=5, "address-cost";r=200;t=0')
    assert await tight.flood(ADDRESS, role=None, authorization="Bearer guess") == [401, 429]
    assert (await tight.ask()).status_code == 200


async def test_what_can_not_be_read_counts_for_the_address(tight: Tight) -> None:
    statuses = [(await tight.client.post("/graphql", content=b"[" * 1_000)).status_code for _ in range(ADDRESS + 1)]

    assert statuses == [415, 415, 429]


async def test_persisted_queries_that_nobody_sent_are_counted(tight: Tight) -> None:
    digest = {"extensions": {"persistedQuery": {"version": 1, "sha256Hash": "0" * 64}}}
    token = await tight.house.token(tight.house.members["acme"][Role.AGENT])

    nobodys = [(await tight.client.post("/graphql", json=digest)).status_code for _ in range(ADDRESS + 1)]
    headers = {"authorization": f"Bearer {token}"}
    members = [(await tight.client.post("/graphql", json=digest, headers=headers)).status_code for _ in range(12)]

    assert nobodys == [200, 200, 429]
    assert members == [200] * MEMBER + [429] * 2


async def test_a_hash_and_a_bad_token_count_for_the_address(tight: Tight) -> None:
    digest = {"extensions": {"persistedQuery": {"version": 1, "sha256Hash": "0" * 64}}}
    headers = {"authorization": "Bearer guess"}
    answers = [await tight.client.post("/graphql", json=digest, headers=headers) for _ in range(ADDRESS + 1)]

    assert [each.status_code for each in answers] == [401, 401, 429]


async def test_bad_tokens_at_sockets_count_for_the_address(tight: Tight) -> None:
    codes = []
    async with serving() as stage:
        stage.app = tight.api.app
        for _ in range(ADDRESS + 1):
            async with stage.connect() as client:
                await client.send({"type": "connection_init", "payload": {"authorization": "Bearer guess"}})
                codes.append(await client.closed())

    assert codes == [4403, 4403, 4429]
    assert await tight.flood(1, role=None) == [429]


DISABLE = "mutation($id: ID!) { disableMember(id: $id) { userErrors { code } } }"
CONFIRM = 'mutation { confirmIdentity(password: "a") { userErrors { code } } }'


@pytest.mark.parametrize(("query", "status"), [(ME, 401), (CONFIRM, 200)], ids=["a unit", "no unit"])
async def test_a_member_who_is_gone_takes_nothing_from_the_tenant(tight: Tight, query: str, status: int) -> None:
    gone = await tight.house.add_member(roles=[Role.AGENT])
    token = await tight.house.token(gone)
    await tight.house.data(DISABLE, {"id": global_id("Member", gone.principal)})

    statuses = await tight.flood(MEMBER + 2, query=query, role=None, authorization=f"Bearer {token}")

    assert (statuses[0], statuses[-1]) == (status, 429)
    assert tight.left("tenant", tight.house.tenants["acme"].id.hex) == TENANT - 1
    assert await tight.flood(1, role=None) == [429]  # the address paid for the rest
    assert (await tight.ask()).status_code == 200


async def test_a_member_who_is_gone_takes_nothing_over_a_socket(tight: Tight) -> None:
    gone = await tight.house.add_member(roles=[Role.AGENT])
    token = await tight.house.token(gone)
    await tight.house.data(DISABLE, {"id": global_id("Member", gone.principal)})
    async with serving() as stage:
        stage.app = tight.api.app
        async with stage.acknowledged({"authorization": f"Bearer {token}"}) as client:
            await client.subscribe({"query": ME})
            assert await client.closed() == 4403

    assert await tight.flood(ADDRESS + 1, role=None, authorization=f"Bearer {token}") == [401, 401, 429]
    assert tight.left("tenant", tight.house.tenants["acme"].id.hex) == TENANT - 1


def test_two_api_keys_of_one_service_are_two_callers() -> None:
    tenant, service = uuid4(), MemberId(uuid4())
    one, other = (Credential(TenantId(tenant), service, key=bytes([n]) * 32) for n in (1, 2))
    rates = Rates(percent=1, buckets=Buckets(Clock()))
    for _ in range(MEMBER):
        rates.admit(rates.caller(one, None))

    with pytest.raises(RateLimited) as limited:
        rates.admit(rates.caller(one, None))
    assert limited.value.headers["ratelimit"].startswith('"key";r=0')
    assert rates.admit(rates.caller(other, None))["ratelimit"].startswith('"key";r=9')


async def test_operations_on_a_socket_count_and_the_socket_stays(tight: Tight) -> None:
    token = await tight.house.token(tight.house.members["acme"][Role.AGENT])
    await tight.flood(MEMBER - 1)
    async with serving() as stage:
        stage.app = tight.api.app
        async with stage.acknowledged({"authorization": f"Bearer {token}"}) as client:
            await client.subscribe({"query": ME}, "allowed")
            assert [(await client.receive())["type"] for _ in range(2)] == ["next", "complete"]
            await client.subscribe({"query": ME}, "refused")
            assert await client.error("refused") == "RATE_LIMITED"
            tight.clock.now += 1
            await client.subscribe({"query": ME}, "again")
            assert (await client.receive())["type"] == "next"


async def test_sockets_without_a_token_are_counted_by_address(tight: Tight) -> None:
    async with serving() as stage:
        stage.app = tight.api.app
        codes = []
        for _ in range(ADDRESS + 1):
            async with stage.acknowledged() as client:
                await client.subscribe({"query": ME})
                codes.append((await client.receive())["type"])

    assert codes == ["next"] * ADDRESS + ["error"]


async def test_a_flood_over_a_socket_closes_it(tight: Tight) -> None:
    token = await tight.house.token(tight.house.members["acme"][Role.AGENT])
    async with serving() as stage:
        stage.app = tight.api.app
        async with stage.acknowledged({"authorization": f"Bearer {token}"}) as client:
            for number in range(200):
                await client.subscribe({"query": ME}, str(number))
            assert await client.closed() == 4429


async def test_limits_can_be_switched_off(house: House) -> None:
    async with process(house, rate_percent=0) as limitless:
        answers = [await limitless.ask() for _ in range(MEMBER + 5)]

    assert {each.status_code for each in answers} == {200}
    assert "ratelimit" not in answers[0].headers


QUOTA = Quota("some", 20, 4.0)


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(1, 8)), max_size=60))
def test_a_bucket_never_gives_more_than_its_burst_and_what_came_back(asked: list[tuple[float, int]]) -> None:
    clock = Clock()
    buckets, given_ = Buckets(clock), 0
    for pause, amount in asked:
        clock.now += pause
        if not buckets.take([Draw(QUOTA, "who", amount)])[0].wait:
            given_ += amount

    assert given_ <= QUOTA.burst + clock.now * QUOTA.per_second + 1e-6


@given(st.lists(st.integers(1, 8), max_size=60))
def test_whoever_waits_as_long_as_told_gets_it(asked: list[int]) -> None:
    clock = Clock()
    buckets = Buckets(clock)
    for amount in asked:
        left = buckets.take([Draw(QUOTA, "who", amount)])[0]
        if left.wait:
            clock.now += left.wait + 1e-6
            assert not buckets.take([Draw(QUOTA, "who", amount)])[0].wait


def test_what_is_refused_takes_from_no_bucket() -> None:
    buckets, small = Buckets(Clock()), Quota("small", 1, 1.0)
    buckets.take([Draw(small, "who", 1)])
    buckets.take([Draw(QUOTA, "who", 5), Draw(small, "who", 1)])

    assert buckets.take([Draw(QUOTA, "who", 0)])[0].tokens == QUOTA.burst


def test_buckets_do_not_grow_without_bound() -> None:
    buckets = Buckets(Clock(), most=10)
    for number in range(1_000):
        buckets.take([Draw(QUOTA, str(number), 1)])

    assert len(buckets._known) == 10


def test_a_home_with_many_addresses_of_ipv6_is_one_caller() -> None:
    rates = Rates()
    hashes = {rates.address((f"2001:db8:1:2::{number:x}", 1)) for number in range(50)}

    assert len(hashes) == 1
    assert rates.address(("2001:db8:1:3::1", 1)) not in hashes
    assert not any(re.search("2001|db8", each) for each in hashes)


async def test_an_operation_dearer_than_a_bucket_takes_the_whole_bucket() -> None:
    rates, nobody = Rates(percent=1), Caller("address", "somebody")
    rates.admit(nobody)
    await rates.charge(nobody, 10_000)

    with pytest.raises(RateLimited):
        await rates.charge(nobody, 100)


def test_a_member_who_is_let_in_again_has_its_own_limits_in_a_minute() -> None:
    clock = Clock()
    rates = Rates(percent=1, clock=clock)
    member = Credential(TenantId(uuid4()), MemberId(uuid4()))
    rates.shut_out(member)
    clock.now = 59
    before = rates.caller(member, HERE)
    clock.now = 60

    assert (before.kind, rates.caller(member, HERE).kind) == ("address", "member")
    assert rates.caller(replace(member, key=b"x" * 32), HERE).kind == "key"
