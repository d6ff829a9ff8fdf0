"""Leads one leased job to its end: keeps the lease, runs the handler, and settles what came of it.

A handler works in steps. Each is one transaction that holds the step's work and where the next one begins, so that a
job that is cut off anywhere, or is delivered often, has its effects once.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, TypeVar

import structlog

from crypto.errors import CofferError
from jobs.beating import BEATS, beating
from jobs.pauses import pause_after, pause_before
from jobs.telling import Telling
from jobs.turns import TURN, Turn
from telemetry.logs import chain, places, told
from telemetry.traces import note, span, traceparent
from tenants.errors import Conflict, DatabaseUnavailable, LeaseLost, TenantSuspended
from tenants.jobs import JobId, JobKind, JobState, Wish, ledger
from tenants.jobs.ledger import Lease, Ledger
from tenants.origins import Origin
from tenants.unit import Unit
from tenants.units import Units
from tenants.viewers import MemberId, TenantId

A = TypeVar("A")
UNKNOWN_TRIES = 20  # of a job whose kind this release does not know
_log = structlog.get_logger()


class _Stop(BaseException):
    """Ends a handler between two steps; no Exception, so that a handler can't catch it by accident."""

    def __init__(self, state: JobState) -> None:
        self.state = state


class Step:
    """`unit` is the step's transaction. Exactly one of `move` and `finish` is called before its block ends."""

    def __init__(self, unit: Unit) -> None:
        self.unit = unit
        self.moved: dict[str, Any] | None = None
        self.finished: dict[str, Any] | None = None
        self.gains = True

    def move(self, *, cursor: Any, done: int | None = None, total: int | None = None, gains: bool = True) -> None:
        """The job goes on at `cursor`: ids and numbers, as JSON. `done` and `total` stay as they are where None.

        Behind a step that `gains` nothing all work is still to be done: attempts stay counted, and no turn ends.
        """
        self.moved, self.gains = {"cursor": cursor, "done": done, "total": total, "gains": gains}, gains

    def finish(self, *, result: Any = None, done: int | None = None, total: int | None = None) -> None:
        """The job is done; `result` is ids, counts and codes, as JSON."""
        self.finished = {"result": result, "done": done, "total": total}


class Run(Generic[A]):
    """What a handler gets: one job in this worker's hands."""

    def __init__(
        self,
        units: Units,
        lease: Lease,
        arguments: A,
        held: timedelta,
        is_stopping: Callable[[], bool],
        turn: Turn,
    ) -> None:
        self.arguments = arguments
        self.is_finished = False
        self.is_ending = False  # from the moment at which the last step's end stands in its transaction
        self._units = units
        self._lease = lease
        self._held = held
        self._is_stopping = is_stopping
        self._turn = turn

    @property
    def tenant(self) -> TenantId:
        return self._lease.tenant

    @property
    def job(self) -> JobId:
        return self._lease.job

    @property
    def principal(self) -> MemberId | None:
        return self._lease.principal

    @property
    def attempt(self) -> int:
        return self._lease.attempt

    @property
    def cursor(self) -> Any:
        return self._lease.cursor

    @property
    def done(self) -> int:
        return self._lease.done

    @property
    def total(self) -> int | None:
        return self._lease.total

    @asynccontextmanager
    async def step(self, *, fences: bool = False, thaws: bool = False) -> AsyncIterator[Step]:
        """One transaction of the job's tenant, under the rights its principal has now; it commits with the progress.

        `fences` and `thaws` are those of `Units.enter`.

        Behind it the job may be given back: asked to, or because its turn is over.
        Raises TypeError where neither or both of `move` and `finish` were called; then nothing of it happened.
        """
        if self.is_finished:
            raise TypeError("the job is finished; a step after that would be nobody's")
        self._obey(None)
        with span("step"):
            trace = traceparent() or self._lease.trace
            origin = Origin(request_id=self._lease.request_id or str(self.job), trace=trace)
            try:
                async with self._units.enter(
                    self.tenant, self.principal, write=True, origin=origin, fences=fences, thaws=thaws
                ) as unit:
                    step = Step(unit)
                    yield step
                    lease, wish = await self._settled(step)
                    self.is_ending = step.finished is not None
            except BaseException:
                self.is_ending = False
                raise
        self._lease, self.is_finished = lease, step.finished is not None
        if not self.is_finished:
            self._obey(wish)
            if step.gains and await self._turn.is_over():
                raise _Stop(JobState.READY)

    @asynccontextmanager
    async def looking(self) -> AsyncIterator[Unit]:
        """A snapshot of the job's tenant, as the house sees it."""
        async with self._units.enter(self.tenant, None, write=False) as unit:
            yield unit

    async def show(self, *, done: int, total: int | None = None) -> None:
        """Tell how far a long step is. It may be asked to end here, but keeps its turn, and nothing is committed."""
        self._obey(None)
        async with self._units.enter(self.tenant, None, write=True, thaws=True) as unit:
            self._lease, wish = await ledger.seen(unit, self._lease, done=done, total=total)
        self._obey(wish)

    async def _settled(self, step: Step) -> tuple[Lease, Wish | None]:
        if (step.moved is None) == (step.finished is None):
            raise TypeError("a step calls exactly one of move and finish")
        if step.moved is None:
            await ledger.ended(step.unit, self._lease, **(step.finished or {}))
            return self._lease, None
        kept = {"done": self.done, "total": self.total}
        given = {name: value for name, value in step.moved.items() if name == "cursor" or value is not None}
        return await ledger.moved(step.unit, self._lease, self._held, **(kept | given))

    def _obey(self, wish: Wish | None) -> None:
        if wish is not None:
            raise _Stop(JobState.CANCELLED if wish is Wish.CANCEL else JobState.PAUSED)
        if self._is_stopping():
            raise _Stop(JobState.READY)


Handler = Callable[[Run[Any]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Outcome:
    state: JobState
    reason: str | None = None
    delay: timedelta = timedelta()
    is_spared: bool = False


class Handling:
    """`handlers` by the kind they handle; for kinds in `without` no job gives way. For one event loop.

    After `turn` seconds a job that is not yet at its end gives way to what should come first.
    """

    def __init__(
        self,
        units: Units,
        ledger: Ledger,
        handlers: Mapping[JobKind[Any], Handler],
        telling: Telling | None = None,
        *,
        without: Collection[str] = (),
        turn: float = TURN,
    ) -> None:
        self._units = units
        self._telling = telling or Telling()
        self._without = without
        self._turn = turn
        self._ledger = ledger
        self._handlers = {kind.name: (kind, handler) for kind, handler in handlers.items()}
        self._is_stopping = False

    def stop(self) -> None:
        """From now on a job ends with its present step, and is given back."""
        self._is_stopping = True

    async def handle(self, tenant: TenantId, job: JobId) -> bool:
        """Whether the job could be taken; then it was led as far as it goes."""
        lease = None if self._is_stopping else await self._ledger.claim(tenant, job)
        if lease is not None:
            await self.lead(lease)
        return lease is not None

    async def lead(self, lease: Lease) -> None:
        """Cancelling this gives the job back, its attempt not counted; the step it was in is undone."""
        with self._telling.lead(lease):
            try:
                outcome = await self._outcome(lease)
            except asyncio.CancelledError:
                await asyncio.shield(self._end(lease, _Outcome(JobState.READY, is_spared=True), most=BEATS))
                raise
            if outcome is not None:
                await self._end(lease, outcome)

    async def _outcome(self, lease: Lease) -> _Outcome | None:
        """What is to be written; None where the job is no longer ours, or was finished by its last step."""
        known = self._handlers.get(lease.kind)
        if known is None:  # a newer release's, which its own workers know
            return _again(lease, UNKNOWN_TRIES, "JOB_KIND_UNKNOWN")
        kind, handler = known
        run: Run[Any] | None = None
        try:
            run = self._run(lease, kind.load(lease.arguments))
            await beating(self._ledger, lease, handler(run), lambda: run.is_ending)
        except _Stop as stop:
            return _Outcome(stop.state, is_spared=True)
        except LeaseLost:
            note(outcome="LOST")
            return None
        except asyncio.CancelledError as error:
            if _is_cancelled():
                raise
            _tell(lease, error)  # something inside the handler was, which is its own affair
            return _again(_now(run, lease), kind.most_attempts, "INTERNAL")
        except CofferError as error:
            if error.retryable or isinstance(error, TenantSuspended):
                return _later(_now(run, lease), error)
            return _Outcome(JobState.PARKED, error.code)
        except Exception as error:  # an edge: a handler's bug must not stop the worker
            _tell(lease, error)
            return _again(_now(run, lease), kind.most_attempts, "INTERNAL")
        return None if run.is_finished else _Outcome(JobState.DONE)

    def _run(self, lease: Lease, arguments: Any) -> Run[Any]:
        turn = Turn(self._ledger, lease, self._without, self._turn)
        return Run(self._units, lease, arguments, self._ledger.lease, lambda: self._is_stopping, turn)

    async def _end(self, lease: Lease, outcome: _Outcome, *, most: float = math.inf) -> None:
        """Tried until the database is back, or `most` times by a worker that must end: then the job counts as dead."""
        note(outcome=outcome.state, reason=outcome.reason)
        tries = 0
        while (tries := tries + 1) <= most:
            with suppress(LeaseLost):
                try:
                    with span("end"):
                        await self._ledger.end(
                            lease,
                            outcome.state,
                            reason=outcome.reason,
                            delay=outcome.delay,
                            is_spared=outcome.is_spared,
                        )
                except (DatabaseUnavailable, Conflict):
                    await asyncio.sleep(self._ledger.lease.total_seconds() / BEATS)
                    continue
            if outcome.state is JobState.PARKED:
                _log.warning("job parked", job=str(lease.job), kind=lease.kind, reason=outcome.reason)
            return


def _again(lease: Lease, most: int, reason: str) -> _Outcome:
    if lease.attempt >= most:
        return _Outcome(JobState.PARKED, reason)
    return _Outcome(JobState.READY, reason, pause_before(lease.attempt))


def _later(lease: Lease, error: CofferError) -> _Outcome:
    """What the job is not to blame for passes, or somebody cancels it: not counted, and so never parked for it."""
    seconds = error.retry_after
    pause = pause_after(lease.paused) if seconds is None else timedelta(seconds=seconds)
    return _Outcome(JobState.READY, error.code, pause, is_spared=True)


def _now(run: Run[Any] | None, lease: Lease) -> Lease:
    """As the job stands after its last step: a step that succeeded starts the count of attempts anew."""
    return lease if run is None else run._lease


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _tell(lease: Lease, error: BaseException) -> None:
    """Classes and places, never a message, which may hold a value."""
    exceptions = [told(each) for each in chain(error)]
    _log.error("job failed", job=str(lease.job), kind=lease.kind, exceptions=exceptions, frames=places(error))
