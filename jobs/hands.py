"""The hands of one worker: each leads a job, then asks the ledger for the next, and rests when there is none.

A message only wakes a hand. Which job it takes is the ledger's to say, so that priorities and fairness between tenants
hold in whatever order a broker delivers.
"""

import asyncio
import time
from collections import deque
from collections.abc import Collection

import structlog

from crypto.errors import CofferError
from jobs.handling import Handling
from tenants.jobs import JobId
from tenants.jobs.ledger import Lease, Ledger
from tenants.viewers import TenantId

_PATIENCE = 60.0  # seconds that a message waits for a hand; brokers take back what is held for very long
_FRESH = 0.05  # seconds; an urgent job waits no longer behind what was seen before it came
_TRIES = 3
_log = structlog.get_logger()


class Hands:
    """Up to `most` jobs at once, none of the kinds in `without`. For one event loop."""

    def __init__(self, ledger: Ledger, handling: Handling, *, most: int, without: Collection[str] = ()) -> None:
        self._ledger = ledger
        self._handling = handling
        self._most = most
        self._without = without
        self._free = asyncio.Semaphore(most)
        self._turn = asyncio.Lock()  # one looks at a time, or all would reach for the same job
        self._candidates: deque[tuple[TenantId, JobId]] = deque()
        self._looked_at = 0.0
        self._held: set[JobId] = set()  # what our hands reach for or lead: the ledger may not tell so yet
        self._working: set[asyncio.Task[None]] = set()
        self._is_stopping = False

    async def wake(self, tenant: TenantId | None = None, job: JobId | None = None) -> None:
        """Returns once a hand has taken a job, or there is none to take; never raises."""
        try:
            await asyncio.wait_for(self._free.acquire(), _PATIENCE)
        except TimeoutError:
            return  # whatever this was about, a hand asks for it when it is free
        working = asyncio.create_task(self._work(taken := asyncio.Event(), tenant, job))
        self._working.add(working)
        working.add_done_callback(self._working.discard)
        await taken.wait()

    def nudge(self, wanted: int = 1) -> None:
        """Wake so many hands, as far as they are free."""
        for _ in range(0 if self._is_stopping else min(wanted, self._most - len(self._working))):
            waking = asyncio.create_task(self.wake())
            self._working.add(waking)
            waking.add_done_callback(self._working.discard)

    async def stop(self, grace: float) -> None:
        """Take nothing more; jobs end with their present step, or are cut off after `grace` seconds, and given back."""
        self._is_stopping = True
        self._handling.stop()
        if self._working:
            _, late = await asyncio.wait(self._working, timeout=grace)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _work(self, taken: asyncio.Event, tenant: TenantId | None, job: JobId | None) -> None:
        try:
            lease = await self._take(tenant, job)
            taken.set()
            while lease is not None:
                try:
                    await self._handling.lead(lease)
                finally:
                    self._held.discard(lease.job)
                lease = await self._take()
        except CofferError as error:  # the database is away, most likely: the sweeper wakes us when it is back
            _log.warning("hand resting", error=error.code)
        except Exception as error:  # an edge: a hand must come back, whatever happens to its job
            _log.error("hand failed", error=type(error).__name__)
        finally:
            taken.set()
            self._free.release()

    async def _take(self, tenant: TenantId | None = None, job: JobId | None = None) -> Lease | None:
        for _ in range(_TRIES * self._most):
            candidate = None if self._is_stopping else await self._next()
            if candidate is None:
                break
            if lease := await self._claim(*candidate):
                return lease
        if self._is_stopping or tenant is None or job is None or job in self._held:
            return None
        return await self._claim(tenant, job)

    async def _claim(self, tenant: TenantId, job: JobId) -> Lease | None:
        self._held.add(job)
        lease = None
        try:
            lease = await self._ledger.claim(tenant, job, self._without)
        finally:
            if lease is None:
                self._held.discard(job)
        return lease

    async def _next(self) -> tuple[TenantId, JobId] | None:
        """The fairest that is left of the last look into the ledger, which is never old."""
        async with self._turn:
            if not self._candidates or time.monotonic() - self._looked_at > _FRESH:
                self._looked_at = time.monotonic()
                most = self._most + 2 + len(self._held)  # others may take some of them
                self._candidates = deque(await self._ledger.due(most, most, self._without))
            while self._candidates:
                candidate = self._candidates.popleft()
                if candidate[1] not in self._held:
                    return candidate
            return None
