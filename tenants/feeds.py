"""What just happened, for the readers of one process: events and jobs as they commit, of the tenants followed.

One connection listens for all of them; where it is cut, a poll every second stands in until it is back. Only ids and
types pass here: a reader opens a unit of its own to see what they mean.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

from sqlalchemy import BigInteger, Row, Uuid, bindparam, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from crypto.errors import CofferError
from tenants.database import SCOPE, Database
from tenants.errors import DatabaseUnavailable, TooSlow
from tenants.events import Event
from tenants.unit import Unit
from tenants.viewers import TenantId

POLL = 1.0  # seconds
PATIENCE = 5.0  # seconds
MOST_WAITING = 10_000
LONGEST_WAIT = 30.0  # seconds
MOST_TOGETHER = 50
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

Clock = Callable[[], float]
F = TypeVar("F", "Following", "Watching")


@dataclass(frozen=True, slots=True)
class Fact:
    """That an event committed; made once per process, and shared by all who follow. `told_at` is in monotonic seconds.

    `xid` is the transaction that wrote it.
    """

    id: UUID
    type: str
    subject: UUID
    xid: int
    told_at: float


Concerns = Callable[[Fact], bool]


class Following:
    """The facts that concern one reader, and that it has not taken yet."""

    def __init__(self, concerns: Concerns = lambda _fact: True, clock: Clock = time.monotonic) -> None:
        self.since = 0
        self._concerns, self._clock = concerns, clock
        self._waiting: deque[Fact] = deque()
        self._wake = asyncio.Event()
        self._is_late = False

    def tell(self, fact: Fact) -> None:
        if self._is_late or not self._concerns(fact):
            return
        self._waiting.append(fact)
        self._notice_lateness()
        self._wake.set()

    async def facts(self) -> AsyncIterator[list[Fact]]:
        """In order, up to `MOST_TOGETHER` at once.

        Raises `TooSlow` once more wait than one may keep, or one waits for too long: then all is to be read anew.
        """
        while True:
            await self._wake.wait()
            self._notice_lateness()
            if self._is_late:
                raise TooSlow
            if not self._waiting:
                self._wake.clear()
                continue
            taken = [self._waiting.popleft() for _ in range(min(MOST_TOGETHER, len(self._waiting)))]
            if heard := [fact for fact in taken if fact.xid >= self.since]:
                yield heard

    def _notice_lateness(self) -> None:
        waiting = self._waiting
        if len(waiting) > MOST_WAITING or (waiting and self._clock() - waiting[0].told_at > LONGEST_WAIT):
            self._is_late = True
            waiting.clear()


class Watching:
    """Whether one job moved since its reader last looked: that counts once, however often it was."""

    def __init__(self, job: UUID) -> None:
        self.since = 0
        self.job = job
        self._has_moved = self._has_ended = False
        self._wake = asyncio.Event()

    def tell(self, job: UUID) -> None:
        if job == self.job:
            self._has_moved = True
            self._wake.set()

    def end(self) -> None:
        """Nothing more will come; a move that waits is still given out."""
        self._has_ended = True
        self._wake.set()

    async def moves(self) -> AsyncIterator[UUID]:
        while True:
            await self._wake.wait()
            if self._has_moved:
                self._has_moved = False
                yield self.job
            elif self._has_ended:
                return
            else:
                self._wake.clear()


class Feed:
    """For one event loop; it holds a connection of `platform`, which sees ids alone, while anybody follows.

    What type an event has, and whom it is about, is read from `database`: once, under its tenant's scope.
    """

    def __init__(
        self, platform: Database, database: Database, poll: float = POLL, clock: Clock = time.monotonic
    ) -> None:
        self._platform, self._database = platform, database
        self._poll, self._clock = poll, clock
        self._events: dict[TenantId, set[Following]] = {}
        self._jobs: dict[TenantId, set[Watching]] = {}
        self._at: tuple[int, UUID] | None = None
        self._woken = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._turn = asyncio.Lock()
        self._told_at = 0.0

    @contextmanager
    def events(self, tenant: TenantId, concerns: Concerns = lambda _fact: True) -> Iterator[Following]:
        """The events that commit from `ready` on, of those that concern the reader."""
        if not self._events:
            self._told_at = self._clock()  # all that a first follower can have missed by now is nothing
        with _among(self._events, tenant, Following(concerns, self._clock)) as following:
            yield following

    @contextmanager
    def job(self, tenant: TenantId, job: UUID) -> Iterator[Watching]:
        with _among(self._jobs, tenant, Watching(job)) as watching:
            yield watching

    async def ready(self, follower: Following | Watching) -> None:
        """Returns once whatever commits from now on will be told. Raises `DatabaseUnavailable`."""
        try:
            async with asyncio.timeout(PATIENCE):
                # In turn, so that many who begin at once take one connection of a small pool.
                async with self._turn, self._platform.connection() as connection:
                    follower.since = await _horizon(connection)
                if self._reader is None or self._reader.done():
                    self._ready.clear()
                    self._at = (follower.since, _FIRST)
                    self._reader = asyncio.create_task(self._read())
                await self._ready.wait()
        except TimeoutError as error:
            raise DatabaseUnavailable from error

    @property
    def followers(self) -> int:
        return sum(map(len, self._events.values())) + sum(map(len, self._jobs.values()))

    def lag(self) -> float:
        """Seconds since the followers of events were last told all that had committed; 0 where nobody follows."""
        return self._clock() - self._told_at if self._events else 0.0

    async def close(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            with suppress(asyncio.CancelledError):
                await self._reader

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
                self._told_at = self._clock()
                self._ready.set()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._woken.wait(), self._poll)

    def _on_event(self, _payload: str) -> None:
        self._woken.set()

    def _on_job(self, payload: str) -> None:
        tenant, _, job = payload.partition("/")
        for watching in self._jobs.get(TenantId(UUID(tenant)), ()):
            watching.tell(UUID(job))

    def _tell_all_jobs(self) -> None:
        for watchers in self._jobs.values():
            for watching in watchers:
                watching.tell(watching.job)

    async def _pass_on(self, connection: AsyncConnection) -> None:
        if self._at is None or not self._events:
            self._at = (await _horizon(connection), _FIRST)
            return
        horizon = await _horizon(connection)
        while True:
            parameters = {"xid": self._at[0], "id": self._at[1], "horizon": horizon, "most": _PAGE}
            rows = (await connection.execute(_NEW, parameters)).all()
            await self._tell(rows)
            if len(rows) < _PAGE:
                self._at = (horizon - 1, _LAST)
                return
            self._at = (rows[-1].xid, rows[-1].id)

    async def _tell(self, rows: Sequence[Row[tuple[UUID, UUID, int]]]) -> None:
        """All is read before anybody is told: what fails is told later as a whole, and nothing twice."""
        followed: dict[TenantId, list[UUID]] = {}
        for row in rows:
            if row.tenant_id in self._events:
                followed.setdefault(TenantId(row.tenant_id), []).append(row.id)
        known = {tenant: await self._facts(tenant, ids) for tenant, ids in followed.items()}
        for row in rows:
            fact = known.get(TenantId(row.tenant_id), {}).get(row.id)
            if fact is not None:  # else nobody follows, or it was forgotten meanwhile
                for following in self._events.get(TenantId(row.tenant_id), ()):
                    following.tell(fact)

    async def _facts(self, tenant: TenantId, ids: Sequence[UUID]) -> dict[UUID, Fact]:
        wanted = select(Event.id, Event.type, Event.subject, Event.xid).where(
            Event.tenant_id == tenant, Event.id.in_(ids)
        )
        async with self._database.session(write=False) as session:
            await session.execute(SCOPE, {"tenant": tenant})
            rows = (await session.execute(wanted)).all()
        now = self._clock()
        return {row.id: Fact(row.id, row.type, row.subject, row.xid, now) for row in rows}


async def find_many(unit: Unit, ids: Iterable[UUID]) -> list[Event | None]:
    """The events themselves, in the order asked for; None for another tenant's, or one that was forgotten by now."""
    ids = [*ids]
    rows = await unit.scalars(select(Event).where(Event.tenant_id == unit.tenant.id, Event.id.in_(ids)))
    found = {event.id: event for event in rows}
    return [found.get(id) for id in ids]


@contextmanager
def _among(kind: dict[TenantId, set[F]], tenant: TenantId, follower: F) -> Iterator[F]:
    kind.setdefault(tenant, set()).add(follower)
    try:
        yield follower
    finally:
        kind[tenant].discard(follower)
        if not kind[tenant]:
            del kind[tenant]


async def _horizon(connection: AsyncConnection) -> int:
    return int((await connection.execute(_HORIZON)).scalar_one())
