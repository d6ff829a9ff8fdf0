"""Writes what became of deliveries: those of a tenant that end while its commit is on its way share the next one.

What can't be written is forgotten here, and its lease runs out: the same message goes out again.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime
from uuid import UUID

import structlog

from crypto.errors import CofferError
from jobs.webhooks.schedules import PATIENCE
from tenants.errors import Conflict
from tenants.viewers import TenantId
from tenants.webhooks.ledger import Outcome, WebhookLedger

_TRIES, _PAUSE = 3, 0.1  # seconds
GiveUp = Callable[[TenantId, UUID], Awaitable[None]]
_log = structlog.get_logger()


class Settling:
    """For one event loop. `give_up` is called for each endpoint that has failed for too long."""

    def __init__(self, ledger: WebhookLedger, clock: Callable[[], datetime], give_up: GiveUp) -> None:
        self._ledger, self._clock, self._give_up = ledger, clock, give_up
        self._waiting: dict[TenantId, list[tuple[Outcome, asyncio.Future[None]]]] = {}
        self._writers: dict[TenantId, asyncio.Task[None]] = {}

    async def settle(self, tenant: TenantId, outcome: Outcome) -> None:
        """Returns once it is written, or can't be."""
        written = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, []).append((outcome, written))
        if tenant not in self._writers:
            self._writers[tenant] = asyncio.create_task(self._write(tenant))
        await written

    async def idle(self, seconds: float) -> None:
        """Until what was told so far is written, or can't be; no longer than that."""
        if writers := list(self._writers.values()):
            await asyncio.wait(writers, timeout=seconds)

    async def _write(self, tenant: TenantId) -> None:
        try:
            while group := self._waiting.pop(tenant, None):
                await self._write_group(tenant, group)
        finally:
            del self._writers[tenant]

    async def _write_group(self, tenant: TenantId, group: list[tuple[Outcome, asyncio.Future[None]]]) -> None:
        try:
            for endpoint in await self._settled(tenant, [outcome for outcome, _ in group]):
                await self._give_up(tenant, endpoint)
        except CofferError as error:
            _log.warning("deliveries not settled", tenant=str(tenant), error=error.code)
        except Exception as error:  # an edge: whoever waits must go on
            _log.error("settling failed", tenant=str(tenant), error=type(error).__name__)
        for _, written in group:
            if not written.done():  # whoever asked may have gone
                written.set_result(None)

    async def _settled(self, tenant: TenantId, outcomes: list[Outcome]) -> list[UUID]:
        """Tried again where somebody changed the endpoints at the same moment."""
        for _ in range(_TRIES - 1):
            with suppress(Conflict):
                return await self._ledger.settle(tenant, outcomes, self._clock(), PATIENCE)
            await asyncio.sleep(_PAUSE)
        return await self._ledger.settle(tenant, outcomes, self._clock(), PATIENCE)
