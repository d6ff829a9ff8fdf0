"""The linking loop: follows the audit entries of all tenants and chains each tenant's within a second.

Any number of processes may run it at once: the lock on a tenant's head lets them take turns, and what one has linked
the next one finds done.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, date, datetime
from typing import Any

import structlog

from crypto.errors import CofferError
from tenants import tenants
from tenants.audit import linking
from tenants.audit.chains import AuditChains
from tenants.audit.checkpoints import PAUSE
from tenants.database import Database
from tenants.errors import TenantNotReady, TenantSuspended
from tenants.viewers import TenantId

TICK = 0.25  # seconds between two looks
AGAIN = 5.0  # seconds until what failed is tried again
_NONE = (1 << 63) - 1  # no transaction comes after this one
AT_ONCE = 2  # tenants linked at the same time
_log = structlog.get_logger()
_Work = Callable[[TenantId], Coroutine[Any, Any, None]]


class Linking:
    """For one event loop. `platform` sees of entries only whose they are and in which transaction they came."""

    def __init__(
        self,
        chains: AuditChains,
        platform: Database,
        *,
        tick: float = TICK,
        again: float = AGAIN,
        clock: Callable[[], float] = time.monotonic,
        today: Callable[[], date] = lambda: datetime.now(UTC).date(),
    ) -> None:
        self._chains = chains
        self._platform = platform
        self._tick = tick
        self._again = again
        self._clock = clock
        self._today = today
        self._seen = 0  # the horizon of the last look
        self._day: date | None = None
        self._since: dict[TenantId, float] = {}  # when something unlinked was first seen
        self._ready: dict[TenantId, float] = {}  # to be linked, from when on
        self._vouch: dict[TenantId, float] = {}  # to be vouched for, from when on
        self._is_open = False
        self._is_away = False  # the second place of checkpoints
        self._vouched: dict[TenantId, float] = {}
        self._running: dict[TenantId, asyncio.Task[None]] = {}

    @property
    def lag(self) -> float:
        """Seconds since the oldest entry that is not linked yet was first seen; 0 where all are."""
        return max(self.behind.values(), default=0.0)

    @property
    def copies_owed(self) -> int:
        """Checkpoints that the second place has not taken yet."""
        return self._chains.checkpoints.owed

    @property
    def behind(self) -> dict[TenantId, float]:
        """The same, of each tenant that has something unlinked."""
        now = self._clock()
        return {tenant: now - since for tenant, since in self._since.items()}

    async def run(self) -> None:
        """Until cancelled. Raises `DatabaseUnavailable`; then it may be run again, and goes on."""
        carrying = asyncio.create_task(self._carry())
        try:
            while True:
                await self.look()
                await asyncio.sleep(self._tick)
        finally:
            self._is_open = False
            running = [carrying, *self._running.values()]
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def look(self) -> None:
        """One round: see who has something new, and set to work on whoever is due and not at work already."""
        if self._day is None:
            _, self._seen = await linking.newcomers(self._platform, _NONE)  # what was before, all are asked for
        if self._day != self._today():
            await self._take_all()  # at the start, and as the day turns: idle chains take the new day's key too
            self._day = self._today()
        found, self._seen = await linking.newcomers(self._platform, self._seen)
        now = self._clock()
        for tenant, is_ready in found.items():
            self._since.setdefault(tenant, now)
            if is_ready:
                self._ready.setdefault(tenant, now)
        self._is_open = True
        self._start_due()

    def _start_due(self) -> None:
        now = self._clock()
        for due, work in ((self._ready, self._link), (self._vouch, self._vouch_for)):
            for tenant in [tenant for tenant, at in due.items() if at <= now and tenant not in self._running]:
                if len(self._running) == AT_ONCE:
                    return
                del due[tenant]
                self._running[tenant] = asyncio.create_task(self._work(tenant, work, due))

    async def _carry(self) -> None:
        """Beside the looks, which never wait for the second place. Its end and its return are told once each."""
        while True:
            try:
                owed = await self._chains.checkpoints.settle()
            except Exception as error:  # an edge: whatever befalls the copies, linking goes on
                _log.error("carrying checkpoints failed", error=type(error).__name__)
                owed = self.copies_owed
            if owed and not self._is_away:
                _log.warning("second place away", owed=owed, see="coffer doctor")
            elif self._is_away and not owed:
                _log.info("second place whole again")
            self._is_away = bool(owed)
            await asyncio.sleep(self._again)

    async def _take_all(self) -> None:
        now, after = self._clock(), ""
        while page := await tenants.page(self._platform, after=after):
            for tenant in page:
                if tenant.status == "ACTIVE":
                    self._ready.setdefault(tenant.id, now)
                    self._vouch.setdefault(tenant.id, now)
            after = page[-1].slug

    async def _work(self, tenant: TenantId, work: _Work, due: dict[TenantId, float]) -> None:
        try:
            await work(tenant)
        except (TenantSuspended, TenantNotReady):
            self._since.pop(tenant, None)  # nobody's delay: it is linked when the tenant is back
            due[tenant] = self._clock() + PAUSE.total_seconds()
        except CofferError as error:
            _log.warning("linking waits", tenant=str(tenant), error=error.code)
            due[tenant] = self._clock() + self._again
        except Exception as error:  # an edge: one tenant's trouble must not hold up the others
            _log.error("linking failed", tenant=str(tenant), error=type(error).__name__)
            due[tenant] = self._clock() + self._again
        finally:
            del self._running[tenant]
            if self._is_open:
                self._start_due()

    async def _link(self, tenant: TenantId) -> None:
        began, count = self._clock(), 0
        linked = await self._chains.link(tenant)
        count += linked.count
        while linked.is_full:
            linked = await self._chains.link(tenant)
            count += linked.count
        if self._since.get(tenant, began) <= began and tenant not in self._ready:
            self._since.pop(tenant, None)
        if count:
            earliest = self._vouched.get(tenant, -PAUSE.total_seconds()) + PAUSE.total_seconds()
            self._vouch.setdefault(tenant, max(began, earliest))

    async def _vouch_for(self, tenant: TenantId) -> None:
        self._vouched[tenant] = self._clock()
        if not await self._chains.checkpoints.make(tenant):
            self._vouch[tenant] = self._clock() + PAUSE.total_seconds()
