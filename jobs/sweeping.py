"""The sweeper: finds the jobs whose message was lost, that became due, or whose worker died.

It rings nobody: each worker sweeps, and wakes its own free hands. Whoever rang for what waits behind busy hands would
fill the broker's queue with messages that nobody can use.
"""

import asyncio
import time
from collections.abc import Callable, Collection

from tenants.jobs.ledger import Ledger

MOST = 100  # jobs looked at in one round


class Sweeper:
    """Many workers sweep at once, to no harm. A round comes several times a lease."""

    def __init__(
        self, ledger: Ledger, *, without: Collection[str] = (), clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ledger = ledger
        self._without = without
        self._clock = clock
        self._looked_at: float | None = None
        self._since = 0.0
        self.swept = asyncio.Event()  # set by the first round

    async def sweep(self) -> int:
        """One round; tells how many jobs wait, as far as it looked."""
        dead = await self._ledger.dead(MOST)
        if self._is_sure():
            for tenant, job in dead:
                await self._ledger.bury(tenant, job)
        waiting = await self._ledger.due(MOST, MOST, self._without)
        self.swept.set()
        return len(waiting)

    def _is_sure(self) -> bool:
        """Whether the database has answered us for a whole lease, so that whoever lives has had time to beat.

        After an outage all leases are over, and whoever looks first would take the living for dead.
        """
        now, lease = self._clock(), self._ledger.lease.total_seconds()
        if self._looked_at is None or now - self._looked_at > lease * 2 / 3:
            self._since = now
        self._looked_at = now
        return now - self._since >= lease
