"""The sweeper: finds the jobs whose message was lost, that became due, or whose worker died."""

import asyncio
import time
from collections.abc import Callable, Collection

from tenants.jobs import JobId
from tenants.ledger import Ledger
from tenants.viewers import TenantId

MOST = 100  # jobs rung in one round
EACH = 10  # of one tenant
AGAIN = 10.0  # seconds before the same job is rung again


class Sweeper:
    """`ring` tells the broker. Many workers sweep at once, to no harm."""

    def __init__(
        self,
        ledger: Ledger,
        ring: Callable[[TenantId, JobId], None],
        *,
        without: Collection[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._ring = ring
        self._without = without
        self._clock = clock
        self._rung: dict[JobId, float] = {}
        self.swept = asyncio.Event()  # set by the first round

    async def sweep(self) -> int:
        """One round; tells how many jobs wait, as far as it looked."""
        for tenant, job in await self._ledger.dead(MOST):
            if await self._ledger.bury(tenant, job):
                self._rung.pop(job, None)
        waiting = await self._ledger.due(MOST, EACH, self._without)
        now = self._clock()
        self._rung = {job: at for job, at in self._rung.items() if now - at < AGAIN}
        for tenant, job in waiting:
            if job not in self._rung:
                self._rung[job] = now
                self._ring(tenant, job)
        self.swept.set()
        return len(waiting)
