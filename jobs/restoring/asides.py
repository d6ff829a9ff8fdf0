"""A backup made inside of another job: its steps commit on their own, and move nothing of the job they are made in."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from jobs.handling import Run, Step
from tenants.jobs import JobId
from tenants.unit import Unit
from tenants.units import Units
from tenants.viewers import TenantId


class Aside:
    """In place of a `Run`, for `jobs.backing_up.make`. Never gives way, so that a tenant stays frozen no longer."""

    def __init__(self, run: Run[Any], units: Units) -> None:
        self.arguments = None
        self.cursor: Any = None
        self.done, self.total = 0, None
        self._run = run
        self._units = units

    @property
    def tenant(self) -> TenantId:
        return self._run.tenant

    @property
    def job(self) -> JobId:
        return self._run.job

    @property
    def attempt(self) -> int:
        return self._run.attempt

    @asynccontextmanager
    async def step(self, *, fences: bool = False, thaws: bool = False) -> AsyncIterator[Step]:
        async with self._units.enter(self.tenant, None, write=True, fences=fences, thaws=True) as unit:
            step = Step(unit)
            yield step
        if step.moved is not None:
            self.cursor = step.moved["cursor"]

    @asynccontextmanager
    async def looking(self) -> AsyncIterator[Unit]:
        async with self._units.enter(self.tenant, None, write=False) as unit:
            yield unit

    async def show(self, *, done: int, total: int | None = None) -> None:
        await self._run.show(done=done, total=total)
