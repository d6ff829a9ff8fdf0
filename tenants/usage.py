"""How much each tenant asks for, hour by hour: counted in this process, and added up in the database by and by.

What was counted in the last seconds is lost if the process dies at once; nobody is billed to the request by it.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from datetime import UTC, date, datetime
from uuid import UUID

import structlog
from sqlalchemy import BigInteger, Date
from sqlalchemy.dialects.postgresql import TIMESTAMP, insert
from sqlalchemy.orm import Mapped

from crypto.errors import CofferError
from tenants.database import SCOPE, Database
from tenants.owned import Backup, TenantOwned, clear

FLUSHED = 10.0  # seconds between two flushes
_COUNTS = ("requests", "cost", "refused")
_log = structlog.get_logger(__name__)


class UsageHour(TenantOwned, backup=Backup.NEVER, rights="SELECT INSERT UPDATE DELETE"):
    __tablename__ = "usage_hours"

    hour: Mapped[datetime] = clear("the hour's start, UTC", TIMESTAMP(timezone=True), primary_key=True)
    requests: Mapped[int] = clear("a count", BigInteger)
    cost: Mapped[int] = clear("a sum of costs", BigInteger)
    refused: Mapped[int] = clear("a count", BigInteger)


class UsageSize(TenantOwned, backup=Backup.NEVER, rights="SELECT INSERT UPDATE DELETE"):
    """What the tenant kept on a day; measured by its nightly job."""

    __tablename__ = "usage_sizes"

    day: Mapped[date] = clear("of the measurement, UTC", Date, primary_key=True)
    customers: Mapped[int] = clear("a count", BigInteger)
    bytes: Mapped[int] = clear("a sum of lengths of ciphertexts", BigInteger)
    measured_at: Mapped[datetime] = clear("when it was measured", TIMESTAMP(timezone=True))


class Tally:
    """Of one process. `counting` is a pool of its own, so that counting waits for nobody and nobody for counting."""

    def __init__(self, counting: Database, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._counting = counting
        self._now = now
        self._counts: dict[tuple[UUID, datetime], Counter[str]] = {}
        self._flushing: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    def count(self, tenant: UUID, **counts: int) -> None:
        """Add to this hour's `requests`, `cost` and `refused`; they are written within some ten seconds."""
        hour = self._now().replace(minute=0, second=0, microsecond=0)
        self._counts.setdefault((tenant, hour), Counter()).update(counts)
        if self._flushing is None or self._flushing.done():
            # In a context of its own: it is part of nobody's visit.
            self._flushing = asyncio.create_task(self._flush_later(), context=Context())

    async def flush(self) -> None:
        """Write what was counted so far. What can't be written is kept, and tried again with the next flush."""
        for key in list(self._counts):
            counts = self._counts.pop(key)
            try:
                await self._add(*key, counts)
            except BaseException as error:
                self._counts.setdefault(key, Counter()).update(counts)
                if not isinstance(error, CofferError):
                    raise
                _log.warning("usage not written", error=error.code)
                return

    async def close(self) -> None:
        """Once nobody counts any more."""
        self._closing.set()
        if self._flushing is not None:
            await self._flushing
        await self.flush()

    async def _flush_later(self) -> None:
        while self._counts and not self._closing.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(FLUSHED):
                    await self._closing.wait()
            await self.flush()

    async def _add(self, tenant: UUID, hour: datetime, counts: Counter[str]) -> None:
        row = {"tenant_id": tenant, "hour": hour, **{name: counts[name] for name in _COUNTS}}
        added = insert(UsageHour).values(row)
        summed = {name: getattr(UsageHour, name) + added.excluded[name] for name in _COUNTS}
        async with self._counting.session(write=True) as session:
            await session.execute(SCOPE, {"tenant": tenant})
            await session.execute(added.on_conflict_do_update(index_elements=["tenant_id", "hour"], set_=summed))
