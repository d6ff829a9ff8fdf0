"""What just happened, for the readers of one process: ids of events and jobs as they commit, of the tenants followed.

One connection listens for all of them; where it is cut, a poll every second stands in until it is back. Only ids pass
here: a reader opens a unit of its own to see what they mean.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from uuid import UUID

from sqlalchemy import BigInteger, Uuid, bindparam, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from crypto.errors import CofferError
from tenants.database import Database
from tenants.errors import TooSlow
from tenants.viewers import TenantId

POLL = 1.0  # seconds
MOST_WAITING = 1_000
_PAGE = 1_000
_HORIZON = text("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")
# All transactions below the horizon have ended: nothing can still appear behind a reader that has passed it.
_NEW = text(
    """
    SELECT tenant_id, id, xid FROM events
    WHERE (xid, id) > (:xid, :id) AND xid < :horizon ORDER BY xid, id LIMIT :most
    """
).bindparams(bindparam("xid", type_=BigInteger), bindparam("id", type_=Uuid), bindparam("horizon", type_=BigInteger))
_FIRST, _LAST = UUID(int=0), UUID(int=2**128 - 1)


class Following:
    """The ids that one reader has not taken yet. A job's progress counts once, however often it moved."""

    def __init__(self, only: UUID | None) -> None:
        self.only = only
        self.since = 0
        self._waiting: dict[UUID, int] = {}
        self._wake = asyncio.Event()
        self._is_late = False
        self._has_ended = False

    def end(self) -> None:
        """Nothing more will come; what waits is still given out."""
        self._has_ended = True
        self._wake.set()

    def tell(self, id: UUID, xid: int = 0) -> None:
        if self.only in (None, id) and not self._is_late:
            self._waiting[id] = xid
            self._is_late = len(self._waiting) > MOST_WAITING
            self._wake.set()

    async def ids(self) -> AsyncIterator[UUID]:
        """Raises `TooSlow` once more wait than one may keep: what was missed must be read anew."""
        while True:
            await self._wake.wait()
            if self._is_late:
                self._waiting.clear()
                raise TooSlow
            if not self._waiting:
                if self._has_ended:
                    return
                self._wake.clear()
                continue
            id = next(iter(self._waiting))
            if self._waiting.pop(id) >= self.since or self.only is not None:
                yield id


class Feed:
    """For one event loop. `platform` sees ids alone; the feed holds one of its connections while anybody follows."""

    def __init__(self, platform: Database, poll: float = POLL) -> None:
        self._platform = platform
        self._poll = poll
        self._events: dict[TenantId, set[Following]] = {}
        self._jobs: dict[TenantId, set[Following]] = {}
        self._at: tuple[int, UUID] | None = None
        self._woken = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._told_at = 0.0

    @contextmanager
    def events(self, tenant: TenantId) -> Iterator[Following]:
        """The events that commit from `ready` on."""
        with self._following(self._events, tenant, None) as following:
            yield following

    @contextmanager
    def job(self, tenant: TenantId, job: UUID) -> Iterator[Following]:
        with self._following(self._jobs, tenant, job) as following:
            yield following

    async def ready(self, following: Following) -> None:
        """Returns once whatever commits from now on will be told. Raises `DatabaseUnavailable`."""
        async with self._platform.connection() as connection:
            following.since = await _horizon(connection)
        if self._reader is None or self._reader.done():
            self._ready.clear()
            self._at = (following.since, _FIRST)
            self._reader = asyncio.create_task(self._read())
        await asyncio.wait_for(self._ready.wait(), 5)

    @property
    def followers(self) -> int:
        return sum(map(len, self._events.values())) + sum(map(len, self._jobs.values()))

    def lag(self) -> float:
        """Seconds since the followers of events were last told all that had committed; 0 where nobody follows."""
        return time.monotonic() - self._told_at if self._events else 0.0

    async def close(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            with suppress(asyncio.CancelledError):
                await self._reader

    @contextmanager
    def _following(
        self, kind: dict[TenantId, set[Following]], tenant: TenantId, only: UUID | None
    ) -> Iterator[Following]:
        following = Following(only)
        kind.setdefault(tenant, set()).add(following)
        try:
            yield following
        finally:
            kind[tenant].discard(following)
            if not kind[tenant]:
                del kind[tenant]

    async def _read(self) -> None:
        while self._events or self._jobs or not self._ready.is_set():
            try:
                await self._listen()
            except (CofferError, SQLAlchemyError, OSError):
                self._ready.set()
                await asyncio.sleep(
                    self._poll
                )  # the listener is away: ask again, and tell the followers of jobs to look
                self._tell_all_jobs()

    async def _listen(self) -> None:
        async with self._platform.listening(
            {"coffer_events": self._on_event, "coffer_jobs": self._on_job}
        ) as connection:
            self._tell_all_jobs()
            while self._events or self._jobs or not self._ready.is_set():
                self._woken.clear()
                await self._pass_on(connection)
                self._told_at = time.monotonic()
                self._ready.set()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._woken.wait(), self._poll)

    def _on_event(self, _payload: str) -> None:
        self._woken.set()

    def _on_job(self, payload: str) -> None:
        tenant, _, job = payload.partition("/")
        for following in self._jobs.get(TenantId(UUID(tenant)), ()):
            following.tell(UUID(job))

    def _tell_all_jobs(self) -> None:
        for followers in self._jobs.values():
            for following in followers:
                if following.only is not None:
                    following.tell(following.only)

    async def _pass_on(self, connection: AsyncConnection) -> None:
        if self._at is None or not self._events:
            self._at = (await _horizon(connection), _FIRST)
            return
        horizon = await _horizon(connection)
        while True:
            parameters = {"xid": self._at[0], "id": self._at[1], "horizon": horizon, "most": _PAGE}
            rows = (await connection.execute(_NEW, parameters)).all()
            for row in rows:
                self._at = (row.xid, row.id)
                for following in self._events.get(TenantId(row.tenant_id), ()):
                    following.tell(row.id, row.xid)
            if len(rows) < _PAGE:
                self._at = (horizon - 1, _LAST)
                return


async def _horizon(connection: AsyncConnection) -> int:
    return int((await connection.execute(_HORIZON)).scalar_one())
