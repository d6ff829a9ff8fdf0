"""Processes die by SIGKILL at random points, messages come up to five times: nothing is lost, nothing happens twice."""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest

from jobs.brokers import MEMORY
from local.postgres import Postgres
from tenants import inspections
from tenants.jobs import DEATHS, job_acts
from tests.conftest import Vault
from tests.house import House
from tests.house import house as built
from tests.jobs import accounts
from tests.jobs.brokers import AMQP, REDIS, fresh_queue
from tests.jobs.desk import until
from tests.jobs.fleets import Fleet
from tests.jobs.killers import Duplicator, Killer
from tests.jobs.orders import Clients, Order
from tests.jobs.proxies import proxy

SOAK = os.environ.get("COFFER_SOAK") == "1"
BROKER = AMQP or REDIS or MEMORY
KILLS, CLIENTS, AWAY, REPLAYED = (200, 4, 300.0, 300) if SOAK else (8, 3, 8.0, 50)
SEED = int(os.environ.get("COFFER_TEST_SEED", "4"))
PATIENCE = 5.0  # seconds that a write may take at most while the broker is away
DRAINED = 1200.0 if SOAK else 120.0  # seconds, three deaths take thirty of them; only a hang takes so long


@pytest.fixture
async def apart(postgres_server: Postgres, vault: Vault) -> AsyncIterator[House]:
    """A database of its own: here every job and customer is accounted for."""
    async with built(postgres_server, vault, f"coffer_kills_{uuid4().hex[:12]}") as made:
        yield made


@pytest.fixture
async def superuser(apart: House) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(apart.superuser_url)
    yield connection
    await connection.close()


@pytest.fixture
def queue() -> Iterator[str]:
    with fresh_queue(BROKER) as name:
        yield name


async def drained(house: House, superuser: asyncpg.Connection) -> None:
    """Until every job is done. Those that saw three of their workers killed are let go on, as an operator would."""

    async def is_drained() -> bool:
        return await accounts.unended(superuser) == 0

    await until(is_drained, DRAINED)
    while parked := await accounts.parked(superuser):
        assert {(job["state"], job["reason"], job["deaths"]) for job in parked} == {("PARKED", "WORKER_DIED", DEATHS)}
        for job in parked:
            async with house.api.units.enter(job["tenant_id"], None, write=True) as unit:
                await job_acts.retry(unit, job["id"])
        await until(is_drained, DRAINED)


async def linked(superuser: asyncpg.Connection) -> None:
    async def is_linked() -> bool:
        left = "SELECT (SELECT count(*) FROM audit_entries) - (SELECT count(*) FROM audit_links)"
        return bool(await superuser.fetchval(left) == 0)

    await until(is_linked)


async def breaks(house: House) -> list[object]:
    """Where the tenants' audit chains are not as they were written."""
    found: list[object] = []
    for tenant in house.tenants.values():
        async with inspections.snapshot(house.api.database, tenant.id) as read:
            found.append((await house.api.audit_chain.verify(tenant.id, read)).broken)
    return [each for each in found if each is not None]


async def test_killed_processes_lose_nothing_and_do_nothing_twice(
    apart: House, superuser: asyncpg.Connection, queue: str, tmp_path: Path
) -> None:
    chance = random.Random(SEED)  # noqa: S311  # a test's chance, repeatable
    async with Fleet.running(apart, tmp_path, BROKER, queue, servers=2, workers=2) as fleet:
        clients = Clients(apart, fleet.addresses, chance)
        killer, duplicator = Killer(fleet, superuser, chance), Duplicator(BROKER, queue, apart.superuser_url, chance)
        async with duplicator.sending(), clients.sending(CLIENTS):
            for _ in range(KILLS):
                await killer.strike()
            await fleet.all_up()
        await drained(apart, superuser)
        await clients.ask_again(clients.orders[-REPLAYED:])
        await linked(superuser)
        troubles = list(fleet.troubles())

    assert await accounts.faults(superuser, clients.orders) == []
    assert await breaks(apart) == []
    assert troubles == []
    assert sum(process.kills for process in fleet.all) == KILLS
    assert clients.failures  # servers were killed while they were asked
    assert await superuser.fetchval("SELECT sum(fence) > count(*) FROM jobs")  # and workers in the middle of jobs
    assert BROKER == MEMORY or duplicator.sent > len(clients.orders)


@pytest.mark.skipif(BROKER == MEMORY, reason="neither COFFER_TEST_AMQP_URL nor COFFER_TEST_REDIS_URL is set")
async def test_while_the_broker_is_away_writes_go_on_and_afterwards_all_is_done(
    apart: House, superuser: asyncpg.Connection, queue: str, tmp_path: Path
) -> None:
    parts = urlsplit(BROKER)
    assert parts.hostname and parts.port
    clients = Clients(apart, [], random.Random(SEED))  # noqa: S311  # likewise
    async with proxy(parts.hostname, parts.port) as between:
        near = BROKER.replace(f"{parts.hostname}:{parts.port}", f"127.0.0.1:{between.here}")
        async with Fleet.running(apart, tmp_path, near, queue, servers=1, workers=1) as fleet:
            clients.addresses = fleet.addresses
            await fleet.all_up()
            async with clients.sending(CLIENTS):
                await more_answers(clients)
                await between.off()
                before, ends = len(clients.orders), asyncio.get_running_loop().time() + AWAY
                while asyncio.get_running_loop().time() < ends:
                    await more_answers(clients)
                done_meanwhile = await done(superuser, clients.orders[before:])
                await between.on()
                await more_answers(clients)
            await drained(apart, superuser)
            await linked(superuser)
            troubles = list(fleet.troubles())

    assert (clients.failures, troubles) == ([], [])
    assert clients.slowest < PATIENCE
    assert done_meanwhile > 0
    assert await accounts.faults(superuser, clients.orders) == []


async def more_answers(clients: Clients, count: int = 5) -> None:
    """Within the time that a client is ready to wait."""
    wanted = sum(bool(order.answers) for order in clients.orders) + count

    async def are_there() -> bool:
        return sum(bool(order.answers) for order in clients.orders) >= wanted

    await until(are_there, count * PATIENCE)


async def done(superuser: asyncpg.Connection, orders: Sequence[Order]) -> int:
    jobs = [order.answer[0] for order in orders if order.is_import and order.answers]
    return int(await superuser.fetchval("SELECT count(*) FROM jobs WHERE state = 'DONE' AND id = ANY($1)", jobs))
