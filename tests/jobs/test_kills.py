"""Processes die by SIGKILL at random points, messages come up to five times: nothing is lost, nothing happens twice."""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import pytest

from jobs.brokers import MEMORY, close_broker, open_broker, wake_by
from local.postgres import Postgres
from tenants import inspections, job_acts
from tenants.jobs import DEATHS, JobId
from tenants.viewers import TenantId
from tests.conftest import Vault
from tests.house import House
from tests.house import house as built
from tests.jobs import accounts
from tests.jobs.brokers import AMQP, REDIS, fresh_queue
from tests.jobs.desk import until
from tests.jobs.fleets import Fleet, Process
from tests.jobs.orders import Clients
from tests.jobs.proxies import proxy

SOAK = os.environ.get("COFFER_SOAK") == "1"
BROKER = AMQP or REDIS or MEMORY
KILLS, CLIENTS, AWAY, REPLAYED = (200, 4, 300.0, 300) if SOAK else (12, 3, 10.0, 50)
SEED = int(os.environ.get("COFFER_TEST_SEED", "4"))
DRAINED = 120.0  # seconds; three deaths take thirty of them


@dataclass
class Killer:
    """Takes any process that is up, one that leads jobs preferably in the middle of one."""

    fleet: Fleet
    superuser: asyncpg.Connection
    chance: random.Random

    async def strike(self) -> None:
        await until(self._somebody_is_up)
        victim = self.chance.choice([process for process in self.fleet.all if process.is_up])
        if victim.leads:
            await self._busy(victim)
        await asyncio.sleep(self.chance.uniform(0, 0.3))  # the random moment, which is the matter here
        await victim.kill()
        self.fleet.restart(victim)

    async def _somebody_is_up(self) -> bool:
        return any(process.is_up for process in self.fleet.all)

    async def _busy(self, victim: Process) -> None:
        async def is_busy() -> bool:
            leads = "SELECT EXISTS (SELECT FROM jobs WHERE state = 'RUNNING' AND worker LIKE '%:' || $1::text)"
            return bool(await self.superuser.fetchval(leads, str(victim.pid)))

        await until(is_busy)


@dataclass
class Duplicator:
    """Sends each job's message one to five times, in any order, also when the job has ended."""

    url: str
    queue: str
    house: House
    chance: random.Random
    sent: int = 0
    _told: set[UUID] = field(default_factory=set)

    @asynccontextmanager
    async def sending(self, superuser_url: str) -> AsyncIterator[None]:
        """Goes on about new jobs while the block runs; at its end once more about all of them."""
        if self.url == MEMORY:  # a queue inside the servers, which nobody else can reach
            yield
            return
        is_over = asyncio.Event()
        connection = await asyncpg.connect(superuser_url)
        broker = open_broker(self.url, queue=self.queue)
        send = wake_by(broker, self.queue, lambda _tenant, _job: None)
        with ThreadPoolExecutor(1) as sender:  # a broker's client belongs to one thread

            async def tell(jobs: list[asyncpg.Record]) -> None:
                messages = [job for job in jobs for _ in range(self.chance.randint(1, 5))]
                self.chance.shuffle(messages)
                for job in messages:
                    told = TenantId(job["tenant_id"]), JobId(job["id"])
                    await asyncio.get_running_loop().run_in_executor(sender, send, *told)
                self.sent += len(messages)

            async def go_on() -> None:
                while not is_over.is_set():
                    jobs = await connection.fetch("SELECT tenant_id, id FROM jobs WHERE id <> ALL ($1)", self._told)
                    await tell(jobs)
                    self._told |= {job["id"] for job in jobs}
                    await asyncio.sleep(self.chance.uniform(0, 0.5))
                await tell(await connection.fetch("SELECT tenant_id, id FROM jobs"))

            going = asyncio.create_task(go_on())
            try:
                yield
            finally:
                is_over.set()
                await going
                await connection.close()
                await asyncio.to_thread(close_broker, broker)


@pytest.fixture
async def apart(postgres_server: Postgres, vault: Vault) -> AsyncIterator[House]:
    """A database of its own: here every job and customer is accounted for."""
    async with built(postgres_server, vault, f"coffer_kills_{os.getpid()}") as made:
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


async def drained(house: House, superuser: asyncpg.Connection) -> int:
    """Until every job is done. Those whose workers all were killed are let go on; tells how many those were."""

    async def is_drained() -> bool:
        return await accounts.unended(superuser) == 0

    retried = 0
    await until(is_drained, DRAINED)
    while parked := await accounts.parked(superuser):
        assert {(job["reason"], job["deaths"]) for job in parked} == {("WORKER_DIED", DEATHS)}
        for job in parked:
            async with house.api.units.enter(job["tenant_id"], None, write=True) as unit:
                await job_acts.retry(unit, job["id"])
        retried += len(parked)
        await until(is_drained, DRAINED)
    return retried


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
        killer, duplicator = Killer(fleet, superuser, chance), Duplicator(BROKER, queue, apart, chance)
        async with duplicator.sending(apart.superuser_url), clients.sending(CLIENTS):
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
            async with clients.sending(CLIENTS):
                await until(lambda: answered(clients, 5))
                await between.off()
                before, away_until = len(clients.orders), asyncio.get_running_loop().time() + AWAY
                while asyncio.get_running_loop().time() < away_until:
                    await until(lambda: answered(clients, len(clients.orders) + 1), 5)
                during = clients.orders[before:]
                done = "SELECT count(*) FROM jobs WHERE state = 'DONE' AND id = ANY($1)"
                done_meanwhile = await superuser.fetchval(
                    done, [o.answer[0] for o in during if o.is_import and o.answers]
                )
                await between.on()
                await until(lambda: answered(clients, len(clients.orders) + 5))
            await drained(apart, superuser)
            await linked(superuser)
            troubles = list(fleet.troubles())

    assert (clients.failures, troubles) == ([], [])
    assert clients.slowest < 5
    assert done_meanwhile > 0
    assert await accounts.faults(superuser, clients.orders) == []


async def answered(clients: Clients, count: int) -> bool:
    return sum(bool(order.answers) for order in clients.orders) >= count
