"""Subscriptions on the real schema and server: who hears of what, at which level, and for how long."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import chain
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from api.paging import global_id
from domain.imports import IMPORT
from tenants.access import Role
from tenants.feeds import Following
from tenants.jobs import JobId, JobState, NoArguments
from tenants.ledger import Ledger, moved
from tests.api.test_websocket import Client, Stage, serving
from tests.house import House

CHANGED = "subscription($ids: [ID!]) { customerChanged(ids: $ids) { type fields customer { id givenName emails } } }"


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


async def test_a_member_who_is_gone_is_shut_out_within_5_seconds(stage: Stage, house: House) -> None:
    await house.add_tenant("leavers")
    async with following(stage, house, Role.AGENT, "leavers") as client:
        await superuser(
            house, "UPDATE members SET status = 'DISABLED' WHERE tenant_id = $1", house.tenants["leavers"].id
        )
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
