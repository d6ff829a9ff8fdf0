"""What a test of jobs works at: two tenants, the ledger of one worker, and handlers whose effects can be counted."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Self
from uuid import UUID

import asyncpg

from jobs.handling import Handler, Handling, Run
from tenants.database import Database
from tenants.jobs import JobId, JobKind
from tenants.jobs.ledger import Ledger
from tenants.units import Units
from tenants.viewers import MemberId, TenantId
from tests.house import House
from tests.jobs.kinds import COUNT, URGENT, Counted

PATIENCE = 30.0
COUNTED = "test.counted"


async def count(run: Run[Counted]) -> None:
    """One audit entry a step: an effect that shows when it happened twice."""
    for number in range(run.cursor or 0, run.arguments.steps):
        async with run.step() as step:
            step.unit.audit(COUNTED, subject_type="Job", subjects=[run.job], details={"step": number})
            if number + 1 == run.arguments.steps:
                step.finish(result={"steps": number + 1}, done=number + 1)
            else:
                step.move(cursor=number + 1, done=number + 1, total=run.arguments.steps)


HANDLERS: Mapping[JobKind[Any], Handler] = {COUNT: count, URGENT: count}


@dataclass
class Desk:
    house: House
    superuser: asyncpg.Connection
    app: Database
    ledger: Ledger
    acme: TenantId
    globex: TenantId
    handlers: dict[JobKind[Any], Handler] = field(default_factory=lambda: dict(HANDLERS))

    @classmethod
    @asynccontextmanager
    async def opened(cls, house: House) -> AsyncIterator[Self]:
        superuser = await asyncpg.connect(house.superuser_url)
        await superuser.execute("DELETE FROM jobs; DELETE FROM schedules")
        app = Database(house.api.settings.database_url, pool_size=4)
        ledger = Ledger(app, house.api.platform, "desk")
        try:
            yield cls(house, superuser, app, ledger, house.tenants["acme"].id, house.tenants["globex"].id)
        finally:
            await app.close()
            await superuser.close()

    @property
    def units(self) -> Units:
        return self.house.api.units

    def handling(self, **options: Any) -> Handling:
        return Handling(self.units, self.ledger, self.handlers, **options)

    def another_ledger(self, lease: timedelta = timedelta(seconds=10)) -> Ledger:
        return Ledger(self.app, self.house.api.platform, "another", lease)

    async def enqueue(
        self,
        kind: JobKind[Any] = COUNT,
        arguments: Any = None,
        *,
        tenant: TenantId | None = None,
        principal: MemberId | None = None,
        **options: Any,
    ) -> JobId:
        async with self.units.enter(tenant or self.acme, principal, write=True) as unit:
            return await unit.enqueue(kind, kind.arguments() if arguments is None else arguments, **options)

    async def job(self, job: UUID) -> asyncpg.Record:
        row = await self.superuser.fetchrow("SELECT * FROM jobs WHERE id = $1", job)
        assert row is not None
        return row

    async def set(self, job: UUID, assignments: str) -> None:
        await self.superuser.execute(f"UPDATE jobs SET {assignments} WHERE id = $1", job)

    async def kill(self, job: UUID) -> None:
        """As if whoever holds the job had died a while ago."""
        await self.set(job, "lease_until = now() - interval '1 minute'")

    async def effects(self, job: UUID) -> list[int]:
        rows = await self.superuser.fetch(
            "SELECT (details->>'step')::int AS step FROM audit_entries WHERE action = $1 AND $2 = ANY(subjects)"
            " ORDER BY 1",
            COUNTED,
            job,
        )
        return [row["step"] for row in rows]

    async def until_state(self, state: str, *jobs: UUID, patience: float = PATIENCE) -> None:
        async def reached() -> bool:
            query = "SELECT count(*) FROM jobs WHERE id = ANY($1) AND state = $2"
            return bool(await self.superuser.fetchval(query, list(jobs), state) == len(jobs))

        await until(reached, patience)


async def until(is_so: Callable[[], Awaitable[bool]], patience: float = PATIENCE) -> None:
    ends = time.monotonic() + patience
    while not await is_so():
        assert time.monotonic() < ends, "it did not come true in time"
        await asyncio.sleep(0.02)
