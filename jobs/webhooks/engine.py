"""The loop of webhooks: follows events as they commit, makes deliveries of them, and wakes whoever sends them.

Any number of processes may run it at once: the lock on a tenant's cursor and the leases of deliveries keep them apart.
"""

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from crypto.errors import CofferError
from egress import Egress
from jobs.webhooks.sending import Sender
from jobs.webhooks.settling import Settling
from jobs.webhooks.stopping import Stopping
from tenants.database import Database
from tenants.recorder import Recorder
from tenants.units import Units
from tenants.viewers import TenantId
from tenants.webhooks import relaying
from tenants.webhooks.ledger import LEASE, WebhookLedger

POLL = 1.0  # seconds
_BEHIND = 0.02  # seconds until the next look, where an older transaction is still on its way
_TENANTS = 2  # that are relayed at the same time: the connections that the lanes leave
_NONE = (1 << 63) - 1  # no transaction comes after this one
_log = structlog.get_logger()


class Webhooks:
    """For one event loop. `platform` listens, and sees ids alone; it needs two connections.

    `clock` is of deliveries: what is due, and when what failed is tried again.
    """

    def __init__(
        self,
        units: Units,
        app: Database,
        platform: Database,
        recorder: Recorder,
        egress: Egress,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        chance: Callable[[], float] = random.random,
        lease: timedelta = LEASE,
        poll: float = POLL,
        **limits: Any,
    ) -> None:
        self.ledger = WebhookLedger(app, platform, lease)
        self._app, self._platform, self._clock, self._poll = app, platform, clock, poll
        stopping = Stopping(units)
        settling = Settling(self.ledger, clock, stopping.give_up)
        self.sender = Sender(
            units, self.ledger, recorder, egress, settling, stopping, clock=clock, chance=chance, **limits
        )
        self._since: int | None = None
        self._owed: set[TenantId] = set()
        self._relaying = asyncio.Semaphore(_TENANTS)
        self._polled_at = float("-inf")
        self._woken = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled. Raises `DatabaseUnavailable`; then it may be run again, and goes on."""
        try:
            async with self._platform.listening({"coffer_events": self._on_event}):
                while True:
                    self._woken.clear()
                    is_behind = await self.relay()
                    if time.monotonic() - self._polled_at >= self._poll:
                        await self.poll()
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._woken.wait(), _BEHIND if is_behind else self._poll)
        finally:
            await self.sender.close()

    async def relay(self) -> bool:
        """Make deliveries of what has committed; whether something is there that can't be taken yet."""
        if self._since is None:
            self._since = (await relaying.newcomers(self._platform, _NONE)).horizon
            self._owed.update(await relaying.everybody(self._platform))
        found = await relaying.newcomers(self._platform, self._since)
        self._since = found.horizon
        self._owed.update(found.tenants)
        full = await asyncio.gather(*(self._relay(tenant) for tenant in list(self._owed)))
        return found.is_behind or any(full)

    async def poll(self) -> None:
        """Wake whoever has something due: retries, what another process left, what somebody asked for again."""
        self._polled_at = time.monotonic()
        for tenant, endpoint in await self.ledger.due(self._clock()):
            self.sender.nudge(tenant, endpoint)

    async def _relay(self, tenant: TenantId) -> bool:
        """One page, so that nobody's backlog holds up others; whether there is more. What fails or is left is owed."""
        try:
            async with self._relaying:
                relayed = await relaying.relay(self._app, tenant, self._clock())
        except CofferError as error:
            _log.warning("relaying waits", tenant=str(tenant), error=error.code)
            return False
        for endpoint in relayed.endpoints:
            self.sender.nudge(tenant, endpoint)
        if not relayed.is_full:
            self._owed.discard(tenant)
        return relayed.is_full

    def _on_event(self, _payload: str) -> None:
        self._woken.set()
