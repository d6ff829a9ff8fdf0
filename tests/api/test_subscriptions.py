"""Subscriptions on the real schema and server: who hears of what, at which level, and for how long."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import chain
from typing import Any, cast
from uuid import UUID

import asyncpg
import pytest

from api.looks import Looks
from api.paging import global_id
from api.streams import Streams
from api.turns import Turns
from domain.imports import IMPORT
from tenants.access import Role
from tenants.feeds import Following
from tenants.jobs import JobId, JobState, NoArguments
from tenants.jobs.ledger import Ledger, moved
from tenants.unit import Unit
from tenants.viewers import Credential, MemberId, TenantId, Viewer
from tests.api.test_websocket import Client, Stage, serving, until
from tests.house import House

CHANGED = "subscription($ids: [ID!]) { customerChanged(ids: $ids) { type fields customer { id givenName emails } } }"


MANY = "mutation($i: [CustomerInput!]!) { createCustomers(input: $i) { created } }"


@pytest.fixture(scope="module")
async def stage(house: House) -> AsyncIterator[Stage]:
    async with serving() as made:
        made.app = house.api.app
        yield made


@asynccontextmanager
async def following(
    stage: Stage, house: House, role: Role = Role.OWNER, tenant: str = "acme", **variables: Any
) -> AsyncIterator[Client]:
    """A client whose subscription is known to hear."""
    token = await house.token(house.members[tenant][role])
    async with stage.acknowledged({"authorization": f"Bearer {token}"}) as client:
        before = len(hearing(house))
        extensions = {"purpose": "support-case"}
        await client.subscribe({"query": CHANGED, "variables": variables, "extensions": extensions})
        async with asyncio.timeout(5):
            while len(hearing(house)) == before:  # noqa: ASYNC110  # the protocol has no word for "subscribed"
                await asyncio.sleep(0.005)
        yield client


def hearing(house: House) -> list[Following]:
    return [each for each in chain(*house.api.feed._events.values()) if each.since]


@asynccontextmanager
async def many_following(
    stage: Stage, house: House, count: int, **variables: Any
) -> AsyncIterator[tuple[Client, set[str]]]:
    """An owner's socket with so many subscriptions, which are known to hear."""
    names, before = {str(n) for n in range(count)}, len(hearing(house))
    token = await house.token(house.members["acme"][Role.OWNER])
    async with stage.acknowledged({"authorization": f"Bearer {token}"}) as client:
        for name in names:
            await client.subscribe({"query": CHANGED, "variables": variables}, name)
        await until(lambda: len(hearing(house)) == before + count)
        yield client, names


def streams_of(house: House) -> Streams:
    streams: Streams = cast("Any", house.api.socket._answers.subscribe).__self__
    return streams


class Entered:
    """How many units each principal entered, and how many of a tenant were open for reading at once."""

    def __init__(self) -> None:
        self.by: Counter[UUID | None] = Counter()
        self.reading: Counter[UUID] = Counter()
        self.most_reading: Counter[UUID] = Counter()

    def clear(self) -> None:
        self.by.clear()
        self.most_reading.clear()


@pytest.fixture
def entered(house: House, monkeypatch: pytest.MonkeyPatch) -> Entered:
    noted, enter = Entered(), house.api.units.enter

    @asynccontextmanager
    async def entering(tenant: TenantId, principal: MemberId | None, **how: Any) -> AsyncIterator[Unit]:
        noted.by[principal] += 1
        async with enter(tenant, principal, **how) as unit:
            if not how["write"] and "origin" in how:  # else it is a look, which has a turn of its own
                noted.reading[tenant] += 1
                noted.most_reading[tenant] = max(noted.most_reading[tenant], noted.reading[tenant])
            try:
                yield unit
            finally:
                if not how["write"] and "origin" in how:
                    noted.reading[tenant] -= 1

    monkeypatch.setattr(house.api.units, "enter", entering)
    return noted


async def change(client: Client) -> dict[str, Any]:
    message = await client.receive()
    assert "errors" not in message["payload"], message
    answer: dict[str, Any] = message["payload"]["data"]["customerChanged"]
    return answer


async def test_a_change_arrives_at_the_viewers_own_level(stage: Stage, house: House) -> None:
    async with following(stage, house) as owner, following(stage, house, Role.ANALYST) as analyst:
        made = await house.create(givenName="Ada", emails=["ada@example.org"])
        told, guarded = await change(owner), await change(analyst)
    assert told == {
        "type": "customer.created",
        "fields": ["emails", "givenName"],
        "customer": {"id": made["id"], "givenName": "Ada", "emails": ["ada@example.org"]},
    }
    assert guarded["customer"] == {"id": made["id"], "givenName": None, "emails": None}


async def test_another_tenant_hears_nothing(stage: Stage, house: House) -> None:
    async with following(stage, house, tenant="globex") as client:
        await house.create(givenName="Ada", tenant="acme")
        own = await house.create(givenName="Bob", tenant="globex")
        assert (await change(client))["customer"]["id"] == own["id"]


async def test_only_the_named_customers_are_told_of(stage: Stage, house: House) -> None:
    wanted = await house.create(givenName="Ada")
    async with following(stage, house, ids=[wanted["id"]]) as client:
        await house.create(givenName="Bob")
        await house.data("mutation($i: ID!) { archiveCustomer(id: $i) { customer { id } } }", {"i": wanted["id"]})
        assert (await change(client))["type"] == "customer.archived"


async def test_what_was_undone_is_not_told(stage: Stage, house: House) -> None:
    async with following(stage, house) as client:
        await house.ask('mutation { createCustomer(input: {phones: ["none"]}) { userErrors { code } } }')
        made = await house.create(givenName="Ada")
        assert (await change(client))["customer"]["id"] == made["id"]


async def test_a_stream_is_on_record_before_it_answers(stage: Stage, house: House) -> None:
    async with following(stage, house, Role.AGENT) as client:
        made = await house.create(givenName="Ada")
        await change(client)
    entries = await recorded(house, house.members["acme"][Role.AGENT].principal)
    assert (entries[-1]["action"], entries[-1]["purpose"]) == ("personal.disclosed", "support-case")
    assert entries[-1]["fields"] == ["Customer.emails:MASKED", "Customer.givenName:PLAIN"]
    assert len(entries[-1]["subjects"]) == 1
    assert made["id"] is not None


GONE = "UPDATE members SET status = 'DISABLED' WHERE tenant_id = $1"
SUSPENDED = "UPDATE tenants SET status = 'SUSPENDED' WHERE id = $1"


@pytest.mark.parametrize(("slug", "end"), [("leavers", GONE), ("suspended", SUSPENDED)])
async def test_a_member_who_is_gone_is_shut_out_within_5_seconds(
    stage: Stage, house: House, slug: str, end: str
) -> None:
    await house.add_tenant(slug)
    async with following(stage, house, Role.AGENT, slug) as client:
        await superuser(house, end, house.tenants[slug].id)
        async with asyncio.timeout(5):
            assert await client.closed() == 4403


async def test_without_a_right_to_read_no_stream_opens(stage: Stage, house: House) -> None:
    await house.add_tenant("bare")
    owner = house.members["bare"][Role.AGENT]
    await superuser(house, "DELETE FROM member_roles WHERE tenant_id = $1", house.tenants["bare"].id)
    token = await house.token(owner)
    async with stage.acknowledged({"authorization": f"Bearer {token}"}) as client:
        await client.subscribe({"query": CHANGED})
        message = await client.receive()
    assert message["payload"]["errors"][0]["extensions"]["code"] == "FORBIDDEN"
    assert [entry["action"] for entry in await recorded(house, owner.principal)] == ["access.refused"]


async def test_a_viewer_who_lost_the_right_is_told_within_5_seconds(stage: Stage, house: House) -> None:
    await house.add_tenant("demoted")
    agent = house.members["demoted"][Role.AGENT].principal
    async with following(stage, house, Role.AGENT, "demoted") as client:
        await superuser(house, "DELETE FROM member_roles WHERE member_id = $1", agent)
        async with asyncio.timeout(5):
            message = await client.receive()
        assert message["payload"]["errors"][0]["extensions"]["code"] == "FORBIDDEN"
        assert (await client.receive())["type"] == "complete"
    assert [entry["action"] for entry in await recorded(house, agent)] == ["access.refused"]


async def test_a_viewer_of_other_rights_follows_on_under_those(stage: Stage, house: House, entered: Entered) -> None:
    await house.add_tenant("changed")
    agent = house.members["changed"][Role.AGENT].principal
    async with following(stage, house, Role.AGENT, "changed") as client:
        before = entered.by[agent]
        await superuser(house, "UPDATE member_roles SET role = 'ANALYST' WHERE member_id = $1", agent)
        await until(lambda: entered.by[agent] >= before + 2)  # a look, and the guard asked anew
        made = await house.create(givenName="Ada", tenant="changed")
        assert (await change(client))["customer"] == {"id": made["id"], "givenName": None, "emails": None}


async def test_many_streams_of_a_credential_are_looked_after_once(house: House) -> None:
    asked = []

    async def ask(credential: Credential) -> Viewer:
        asked.append(credential)
        async with house.api.units.enter(credential.tenant, credential.principal, write=False) as unit:
            return unit.viewer

    looks, who = Looks(ask, every=0.01), [house.members[slug][Role.OWNER] for slug in ("acme", "globex")]
    async with AsyncExitStack() as stack:
        nexts = [await stack.enter_async_context(looks.of(each)) for each in who * 20]
        viewers = await asyncio.gather(*(asyncio.shield(look()) for look in nexts))
        assert [viewer.principal for viewer in viewers] == [each.principal for each in who * 20]
    assert asked == who
    assert not looks._shared


async def test_one_change_for_many_streams_takes_one_unit_of_the_tenant_at_a_time(
    stage: Stage, house: House, entered: Entered
) -> None:
    async with many_following(stage, house, 100) as (client, names):
        entered.clear()
        await house.create(givenName="Ada")
        told = {(await client.receive())["id"] for _ in names}
    assert told == names
    assert entered.most_reading[house.tenants["acme"].id] == 1
    assert entered.by[house.members["acme"][Role.OWNER].principal] >= 100


async def test_what_concerns_no_stream_enters_no_unit(stage: Stage, house: House, entered: Entered) -> None:
    wanted, owner = await house.create(givenName="Ada"), house.members["acme"][Role.OWNER].principal
    async with (
        many_following(stage, house, 20, ids=[wanted["id"]]) as (client, names),
        following(stage, house, Role.AGENT) as every,
    ):
        entered.clear()
        await house.data(MANY, {"i": [{"givenName": f"Bob {n}"} for n in range(30)]})
        for _ in range(30):
            await change(every)
        await house.data("mutation($i: ID!) { archiveCustomer(id: $i) { customer { id } } }", {"i": wanted["id"]})
        assert {(await client.receive())["id"] for _ in names} == names
    assert entered.by[owner] <= 2 + 20 + 5  # the changes themselves, each stream once, and who looks after them


async def test_turns_go_round_among_tenants() -> None:
    turns, began, go = Turns(2), [], asyncio.Event()
    acme, globex, initech = (TenantId(UUID(int=n)) for n in range(3))

    async def take(tenant: TenantId) -> None:
        async with turns.turn(tenant):
            began.append(tenant)
            await go.wait()

    async with asyncio.TaskGroup() as group:
        for tenant in [acme] * 50 + [globex, initech]:
            group.create_task(take(tenant))
        await until(lambda: len(began) == 2)
        assert began == [acme, globex]
        go.set()
    assert began.index(initech) <= 3
    assert not turns._own


async def test_a_tenant_follows_so_much_at_once(stage: Stage, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams_of(house), "_most_of_tenant", 1)
    async with following(stage, house), following(stage, house, tenant="globex"):
        token = await house.token(house.members["acme"][Role.MANAGER])
        async with stage.acknowledged({"authorization": f"Bearer {token}"}) as client:
            await client.subscribe({"query": CHANGED})
            assert await client.error() == "RATE_LIMITED"
    await until(lambda: not streams_of(house)._open)
    async with following(stage, house):
        pass


async def test_a_burst_reaches_a_reader_whole_and_in_few_units(stage: Stage, house: House, entered: Entered) -> None:
    async with following(stage, house, Role.MANAGER) as client:
        entered.clear()
        wanted = {f"N{burst}-{n}" for burst in range(3) for n in range(500)}
        for burst in range(3):
            await house.data(MANY, {"i": [{"givenName": f"N{burst}-{n}"} for n in range(500)]})
        told = [(await change(client))["customer"]["givenName"] for _ in wanted]
    manager = house.members["acme"][Role.MANAGER].principal
    assert set(told) == wanted
    assert entered.by[manager] < 300
    disclosed = [each for each in await recorded(house, manager) if each["action"] == "personal.disclosed"]
    assert len(set().union(*(entry["subjects"] for entry in disclosed))) >= 1_500


async def test_what_is_read_slowly_is_decided_anew(
    stage: Stage, house: House, entered: Entered, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.streams.FRESH", -1.0)
    async with following(stage, house, Role.MANAGER) as client:
        entered.clear()
        await house.data(MANY, {"i": [{"givenName": f"N{n}"} for n in range(5)]})
        told = [(await change(client))["customer"]["givenName"] for _ in range(5)]
    assert sorted(told) == [f"N{n}" for n in range(5)]
    assert entered.by[house.members["acme"][Role.MANAGER].principal] >= 5


async def test_when_the_listener_is_cut_changes_still_arrive(stage: Stage, house: House) -> None:
    async with following(stage, house) as client:
        cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'coffer_platform'"
        await superuser(house, cut)
        made = await house.create(givenName="Ada")
        assert (await change(client))["customer"]["id"] == made["id"]


async def superuser(house: House, statement: str, *arguments: Any) -> list[Any]:
    connection = await asyncpg.connect(house.superuser_url)
    try:
        return list(await connection.fetch(statement, *arguments))
    finally:
        await connection.close()


async def recorded(house: House, actor: UUID | None) -> list[Any]:
    return await superuser(house, "SELECT * FROM audit_entries WHERE actor = $1 ORDER BY xid, id", actor)


PROGRESS = "subscription($i: ID!) { jobProgress(id: $i) { state progress { done total } } }"


async def a_job(house: House, role: Role = Role.MANAGER) -> JobId:
    member = house.members["acme"][role]
    async with house.api.units.enter(member.tenant, member.principal, write=True) as unit:
        return await unit.enqueue(IMPORT, NoArguments(), total=3)


async def progress(client: Client) -> Any:
    message = await client.receive()
    return message["payload"]["data"]["jobProgress"] if message["type"] == "next" else message["type"]


async def test_a_job_is_followed_to_its_end(stage: Stage, house: House) -> None:
    job, member = await a_job(house), house.members["acme"][Role.MANAGER]
    ledger = Ledger(house.api.database, house.api.platform, "a test")
    async with stage.acknowledged({"authorization": f"Bearer {await house.token(member)}"}) as client:
        await client.subscribe({"query": PROGRESS, "variables": {"i": global_id("Job", job)}})
        assert await progress(client) == {"state": "READY", "progress": {"done": 0, "total": 3}}
        lease = await ledger.claim(member.tenant, job)
        assert lease is not None
        assert (await progress(client))["state"] == "RUNNING"
        async with house.api.units.enter(member.tenant, None, write=True) as unit:
            lease, _ = await moved(unit, lease, ledger.lease, cursor=2, done=2, total=3)
        assert (await progress(client))["progress"] == {"done": 2, "total": 3}
        await ledger.end(lease, JobState.DONE)
        assert (await progress(client))["state"] == "DONE"
        assert await progress(client) == "complete"


@pytest.mark.parametrize(("tenant", "role"), [("globex", Role.OWNER), ("acme", Role.AGENT)])
async def test_a_job_of_somebody_else_is_not_there(stage: Stage, house: House, tenant: str, role: Role) -> None:
    job, token = await a_job(house), await house.token(house.members[tenant][role])
    async with stage.acknowledged({"authorization": f"Bearer {token}"}) as client:
        await client.subscribe({"query": PROGRESS, "variables": {"i": global_id("Job", job)}})
        message = await client.receive()
        assert message["payload"]["errors"][0]["extensions"]["code"] == "NOT_FOUND"
        assert await progress(client) == "complete"
