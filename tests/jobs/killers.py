"""What a run of real processes has to bear: SIGKILL at random moments, and every message up to five times."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID

import asyncpg

from jobs.brokers import MEMORY, close_broker, open_broker, wake_by
from tenants.jobs import JobId
from tenants.viewers import TenantId
from tests.jobs.desk import until
from tests.jobs.fleets import Fleet, Process

MOMENT = 0.6  # seconds; longer than a step takes
_PAUSE = 0.5  # seconds between two looks for new jobs, at most
_PATIENCE = 60.0


@dataclass
class Killer:
    """Takes at random a server, which has requests to answer, or a process that is in the middle of a job."""

    fleet: Fleet
    superuser: asyncpg.Connection
    chance: random.Random

    async def strike(self) -> None:
        await until(self._somebody_is_up, _PATIENCE)
        victims = _up(self.fleet.servers)
        if self.chance.random() < 0.5:
            await until(self._somebody_leads, _PATIENCE)
            victims = await self._leading()
        victim = self.chance.choice(victims or _up(self.fleet.all))
        await asyncio.sleep(self.chance.uniform(0, MOMENT))  # the random moment, which is the matter here
        await victim.kill()
        self.fleet.restart(victim)

    async def _somebody_is_up(self) -> bool:
        return bool(_up(self.fleet.all))

    async def _somebody_leads(self) -> bool:
        return bool(await self._leading())

    async def _leading(self) -> list[Process]:
        rows = await self.superuser.fetch("SELECT DISTINCT worker FROM jobs WHERE state = 'RUNNING'")
        pids = {int(row["worker"].rpartition(":")[2]) for row in rows}
        return [process for process in _up(self.fleet.all) if process.pid in pids]


def _up(processes: Sequence[Process]) -> list[Process]:
    return [process for process in processes if process.is_up]


@dataclass
class Duplicator:
    """Sends each job's message one to five times, in any order, also when the job has ended."""

    url: str
    queue: str
    superuser_url: str
    chance: random.Random
    sent: int = 0
    _told: set[UUID] = field(default_factory=set)
    _is_over: bool = False

    @asynccontextmanager
    async def sending(self) -> AsyncIterator[None]:
        """About new jobs while the block runs; at its end once more about all of them.

        Not on the broker in memory: its queue lies inside the servers, where nobody else can reach it.
        """
        sending = asyncio.create_task(self._send()) if self.url != MEMORY else None
        try:
            yield
        finally:
            self._is_over = True
            if sending is not None:
                await sending

    async def _send(self) -> None:
        broker = open_broker(self.url, queue=self.queue)
        send = wake_by(broker, self.queue, lambda _tenant, _job: None)
        connection = await asyncpg.connect(self.superuser_url)
        with ThreadPoolExecutor(1) as hand:  # a broker's client belongs to one thread
            while not self._is_over:
                new = await connection.fetch("SELECT tenant_id, id FROM jobs WHERE id <> ALL ($1)", self._told)
                await asyncio.get_running_loop().run_in_executor(hand, self._tell, send, new)
                await asyncio.sleep(self.chance.uniform(0, _PAUSE))
            every = await connection.fetch("SELECT tenant_id, id FROM jobs")
            await asyncio.get_running_loop().run_in_executor(hand, self._tell, send, every)
        await connection.close()
        await asyncio.to_thread(close_broker, broker)

    def _tell(self, send: Callable[[TenantId, JobId], object], jobs: Sequence[asyncpg.Record]) -> None:
        messages = [job for job in jobs for _ in range(self.chance.randint(1, 5))]
        self.chance.shuffle(messages)
        for job in messages:
            send(TenantId(job["tenant_id"]), JobId(job["id"]))
        self._told |= {job["id"] for job in jobs}
        self.sent += len(messages)
