"""Sends what is due: each endpoint has a lane of its own, so that a slow or dead one delays nobody else.

A lane claims deliveries of different subjects, has them rendered together, records what they disclose, and only then
sends each. A lane whose last request failed has one request on its way, any other a few.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

import structlog

from crypto import webhooks
from crypto.errors import CofferError
from domain.webhooks import payloads, sending
from domain.webhooks.rendering import Message
from domain.webhooks.sending import Batch
from egress import AnswerTooLarge, Egress, NotReached
from egress.addresses import AddressRefused
from jobs.webhooks.holding import PUT_OFF_LONG, held_back
from jobs.webhooks.schedules import next_try, wish_of
from jobs.webhooks.seats import Seats
from jobs.webhooks.settling import Settling
from jobs.webhooks.stopping import Stopping
from tenants.errors import TenantFrozen, TenantNotReady, TenantSuspended, Unauthenticated
from tenants.recorder import Recorder
from tenants.units import Units
from tenants.viewers import TenantId
from tenants.webhooks import DeliveryState, DisabledWhy
from tenants.webhooks.ledger import Attempt, Claimed, Outcome, WebhookLedger

PER_ENDPOINT = 8  # requests on their way at once
AT_ONCE = 512  # of all endpoints of a process
AT_WORK = 4  # lanes that use the database at the same time; its pool has two connections more
TOTAL_SECONDS, CONNECT_SECONDS = 15.0, 5.0
LARGEST_ANSWER = 1 << 16  # bytes that are read of an answer, and thrown away
PUT_OFF = timedelta(seconds=5)  # where it is our fault that nothing could be sent
GRACE = 5.0  # seconds that what is on its way gets to end in, when its process ends
_FULL = 0.05  # seconds until a lane looks again, where all requests are on their way
_GONE = 410
_HEADERS = {"content-type": "application/json", "user-agent": "Coffer-Webhooks/1"}
_log = structlog.get_logger()
Key = tuple[TenantId, UUID]


@dataclass
class Lane:
    """What one endpoint has on its way."""

    woken: asyncio.Event = field(default_factory=asyncio.Event)
    running: set[asyncio.Task[None]] = field(default_factory=set)
    task: asyncio.Task[None] | None = None


@dataclass(frozen=True, slots=True)
class Said:
    """What came of one request."""

    status: int | None
    why: str | None
    retry_after: str | None = None


class Sender:
    """For one event loop. `chance` is in [0, 1)."""

    def __init__(
        self,
        units: Units,
        ledger: WebhookLedger,
        recorder: Recorder,
        egress: Egress,
        settling: Settling,
        stopping: Stopping,
        *,
        clock: Callable[[], datetime],
        chance: Callable[[], float],
        per_endpoint: int = PER_ENDPOINT,
        at_once: int = AT_ONCE,
    ) -> None:
        self._units, self._ledger, self._recorder, self._egress = units, ledger, recorder, egress
        self._settling, self._stopping, self._clock, self._chance = settling, stopping, clock, chance
        self._per_endpoint, self._seats = per_endpoint, Seats(at_once)
        self._working = asyncio.Semaphore(AT_WORK)
        self._lanes: dict[Key, Lane] = {}
        self._failing: set[Key] = set()
        self._is_closing = False
        self.first_attempts: Callable[[float], None] = lambda _seconds: None

    @property
    def on_the_way(self) -> int:
        return self._seats.taken

    def nudge(self, tenant: TenantId, endpoint: UUID) -> None:
        """Something of that endpoint may be due."""
        key = (tenant, endpoint)
        if self._is_closing:
            return
        lane = self._lanes.get(key)
        if lane is None or lane.task is None or lane.task.done():
            lane = self._lanes[key] = Lane()
            lane.task = asyncio.create_task(self._lead(key, lane))
        lane.woken.set()

    async def idle(self) -> None:
        """Until nothing that was due when it was asked for is on its way any more."""
        while tasks := [lane.task for lane in self._lanes.values() if lane.task is not None]:
            await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self, grace: float = GRACE) -> None:
        """Nothing more is claimed; what is on its way has `grace` seconds to end in and be settled, then it is cut off.

        What was never sent is given back at once. A request that was cut off goes out again, under its id, when its
        lease has run out: its receiver may still be at work.
        """
        self._is_closing = True
        try:
            for lane in self._lanes.values():
                lane.woken.set()
            if leads := [lane.task for lane in self._lanes.values() if lane.task is not None]:
                await asyncio.wait(leads, timeout=grace)
            lanes = list(self._lanes.values())
            tasks = [task for lane in lanes for task in (lane.task, *lane.running) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._settling.idle(GRACE)
        finally:
            self._is_closing = False

    async def _lead(self, key: Key, lane: Lane) -> None:
        try:
            while await self._step(key, lane):
                pass
        except CofferError as error:
            _log.warning("lane resting", endpoint=str(key[1]), error=error.code)
        except Exception as error:  # an edge: one endpoint's trouble is not the others'
            _log.error("lane failed", endpoint=str(key[1]), error=type(error).__name__)
        finally:
            try:
                if lane.running:
                    await asyncio.wait(lane.running)
            finally:
                if self._lanes.get(key) is lane:
                    del self._lanes[key]

    async def _step(self, key: Key, lane: Lane) -> bool:
        """Start what is due, then wait for something to change. False where nothing is left to do."""
        lane.woken.clear()
        most = 1 if key in self._failing else self._per_endpoint
        wanted = 0 if self._is_closing else most - len(lane.running)
        seats, claimed = 0, 0
        if wanted > 0:
            async with self._working:
                seats, claimed = await self._take_up(key, lane, wanted)
        if lane.running:
            await self._changed(lane)
        elif not claimed and not lane.woken.is_set():
            if seats or self._is_closing:
                return False
            await asyncio.sleep(_FULL)
        return True

    async def _changed(self, lane: Lane) -> None:
        woken = asyncio.create_task(lane.woken.wait())
        try:
            await asyncio.wait({woken, *lane.running}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            woken.cancel()
        await asyncio.sleep(0)  # what was settled together has ended together, and is claimed anew together
        lane.running = {task for task in lane.running if not task.done()}

    async def _take_up(self, key: Key, lane: Lane, wanted: int) -> tuple[int, int]:
        """How many seats there were for what is due, and how many deliveries were claimed."""
        seats = unused = self._seats.take(key[0], wanted)
        try:
            claimed = await self._ledger.claim(*key, self._clock(), seats) if seats else []
            if claimed:
                unused -= await self._start(key, lane, claimed)
            return seats, len(claimed)
        finally:
            self._seats.give_back(key[0], unused)

    async def _start(self, key: Key, lane: Lane, claimed: Sequence[Claimed]) -> int:
        """How many requests are on their way by it."""
        try:
            held = held_back(key[1], claimed, self._clock(), self._chance)
            await self._settle(key, held)
            without = {outcome.delivery.id for outcome in held}
            left = [each for each in claimed if each.id not in without]
            batch = await self._prepared(key, left) if left else None
        except asyncio.CancelledError:  # nothing was sent, so others may send it now
            await self._put_off(key, claimed, self._clock())
            raise
        if batch is None:
            return 0
        sent = 0
        for delivery, message in zip(left, batch.messages, strict=True):
            if message is None:
                skipped = Outcome(key[1], delivery, DeliveryState.SKIPPED, "OUT_OF_REACH")
                lane.running.add(asyncio.create_task(self._settling.settle(key[0], skipped)))
            else:
                task = asyncio.create_task(self._deliver(key, batch, delivery, message))
                task.add_done_callback(lambda _task: self._seats.give_back(key[0]))
                lane.running.add(task)
                sent += 1
        return sent

    async def _prepared(self, key: Key, claimed: Sequence[Claimed]) -> Batch | None:
        """None where nothing can be sent now; then all of them are put off."""
        wait = PUT_OFF
        try:
            batch = await sending.prepare(self._units, *key, claimed)
            if batch is not None:
                if batch.entries:
                    await self._recorder.record(batch.entries)
                    if self._units.budgets is not None:
                        self._units.budgets.note(batch.entries)
                return batch
        except Unauthenticated:
            await self._stopping.stop(*key, DisabledWhy.SERVICE_DISABLED)
        except (TenantSuspended, TenantNotReady, TenantFrozen):
            wait = PUT_OFF_LONG
        except CofferError as error:
            _log.warning("webhooks put off", endpoint=str(key[1]), error=error.code)
        except Exception as error:  # an edge: they are tried again, and the others go on
            _log.error("webhooks not rendered", endpoint=str(key[1]), error=type(error).__name__)
            wait = PUT_OFF_LONG
        await self._put_off(key, claimed, self._clock() + wait)
        return None

    async def _put_off(self, key: Key, claimed: Sequence[Claimed], until: datetime) -> None:
        await self._settle(key, [Outcome(key[1], each, DeliveryState.PENDING, None, until) for each in claimed])

    async def _settle(self, key: Key, outcomes: Sequence[Outcome]) -> None:
        await asyncio.gather(*(self._settling.settle(key[0], outcome) for outcome in outcomes))

    async def _deliver(self, key: Key, batch: Batch, delivery: Claimed, message: Message) -> None:
        try:
            at, began = self._clock(), time.monotonic()
            said = await self._said(key[0], batch, delivery, message, at)
            duration = round((time.monotonic() - began) * 1000)
            attempt = Attempt(
                at, duration, said.status, said.why, hashlib.sha256(message.body).digest(), message.fields
            )
            await self._settling.settle(key[0], await self._judged(key, delivery, attempt, said))
        except Exception as error:  # an edge: the lease runs out, and the same message goes out again
            _log.error("delivery failed", endpoint=str(key[1]), error=type(error).__name__)

    async def _judged(self, key: Key, delivery: Claimed, attempt: Attempt, said: Said) -> Outcome:
        """Whatever goes wrong with an answer, the attempt was made, and counts."""
        try:
            return await self._outcome(key, delivery, attempt, said)
        except Exception as error:  # an edge: an endpoint that could not be stopped now is at its next answer
            _log.error("answer not understood", endpoint=str(key[1]), error=type(error).__name__)
            return self._later(key, delivery, attempt, None)

    async def _said(self, tenant: TenantId, batch: Batch, delivery: Claimed, message: Message, at: datetime) -> Said:
        name = payloads.message_id(delivery.id)
        signed = webhooks.headers(name, int(at.timestamp()), message.body, batch.secrets)
        if delivery.tries == 0:
            self.first_attempts((at - delivery.happened_at).total_seconds())
        try:
            headers = _HEADERS | signed
            answer = await self._egress.send("POST", batch.url, headers=headers, body=message.body, asker=tenant)
        except NotReached as failed:
            return Said(None, failed.reason.value)
        except AnswerTooLarge as large:
            return Said(large.status, None, large.headers.get("retry-after"))
        except AddressRefused:
            return Said(None, "address-refused")
        return Said(answer.status, None, answer.headers.get("retry-after"))

    async def _outcome(self, key: Key, delivery: Claimed, attempt: Attempt, said: Said) -> Outcome:
        if said.status is not None and 200 <= said.status < 300:
            self._failing.discard(key)
            return Outcome(key[1], delivery, DeliveryState.DELIVERED, attempt=attempt)
        self._failing.add(key)
        if said.status == _GONE:
            await self._stopping.stop(*key, DisabledWhy.GONE)
            return self._later(key, delivery, attempt, None)
        return self._later(key, delivery, attempt, wish_of(said.status, said.retry_after, self._clock()))

    def _later(self, key: Key, delivery: Claimed, attempt: Attempt, wish: timedelta | None) -> Outcome:
        now = self._clock()
        rest = now + wish if wish else None
        due_at = next_try(delivery.tries + 1, now, self._chance, wish)
        if due_at is None:
            return Outcome(key[1], delivery, DeliveryState.SKIPPED, "ATTEMPTS_SPENT", attempt=attempt, not_before=rest)
        return Outcome(key[1], delivery, DeliveryState.PENDING, None, due_at, attempt, rest)
