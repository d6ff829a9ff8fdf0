"""A handled job has its effects once, stops when it is asked to, and is tried again only where that may help."""

import asyncio
import logging
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from crypto.errors import CannotOpen, CofferError, KeyUnavailable
from domain.errors import Forbidden
from jobs.handling import Handling, Run
from jobs.pauses import LONGEST_PAUSE, pause_after, pause_before
from tenants import tenants
from tenants.access import Role
from tenants.errors import (
    Conflict,
    DatabaseUnavailable,
    JobRefused,
    JobUnknown,
    LeaseLost,
    RotationWaits,
    TenantNotReady,
    TenantSuspended,
    Unauthenticated,
)
from tenants.jobs import JobId, NoArguments, Wish, job_acts
from tenants.jobs.ledger import Lease, Ledger
from tenants.unit import Unit
from tests.jobs.desk import Desk, until
from tests.jobs.kinds import COUNT, FRAGILE, Counted

SOAK = os.environ.get("COFFER_SOAK") == "1"
JOBS, STEPS = (200, 4) if SOAK else (20, 3)


async def test_a_job_is_led_step_by_step_to_its_end(desk: Desk) -> None:
    job = await desk.enqueue(COUNT, Counted(steps=3))

    assert await desk.handling().handle(desk.acme, job)

    found = await desk.job(job)
    assert (found["state"], found["done"], found["result"]) == ("DONE", 3, '{"steps": 3}')
    assert await desk.effects(job) == [0, 1, 2]


async def test_a_job_that_is_done_is_not_taken_again(desk: Desk) -> None:
    job = await desk.enqueue()
    await desk.handling().handle(desk.acme, job)

    assert not await desk.handling().handle(desk.acme, job)
    assert await desk.effects(job) == [0, 1, 2]


async def test_effects_happen_once_however_often_a_message_comes_and_is_cut_off(desk: Desk) -> None:
    chance = random.Random(7)  # noqa: S311  # a test's chance, repeatable
    jobs = [await desk.enqueue(COUNT, Counted(steps=STEPS)) for _ in range(JOBS)]
    messages = [job for job in jobs for _ in range(chance.randint(1, 5))]
    chance.shuffle(messages)
    cut = 0

    async def deliver(job: JobId) -> None:
        nonlocal cut
        handled = asyncio.create_task(desk.handling().handle(desk.acme, job))
        if chance.random() < 0.5:
            asyncio.get_running_loop().call_later(chance.uniform(0, 0.05), handled.cancel)
        await asyncio.wait([handled])
        cut += handled.cancelled()

    async def all_done() -> bool:
        for start in range(0, len(messages), 10):
            await asyncio.gather(*(deliver(job) for job in messages[start : start + 10]))
        await desk.superuser.execute(
            "UPDATE jobs SET lease_until = now() - interval '1 minute' WHERE state = 'RUNNING'"
        )
        for dead in await desk.ledger.dead():
            await desk.ledger.bury(*dead)
        await desk.superuser.execute("UPDATE jobs SET deaths = 0")
        return bool(await desk.superuser.fetchval("SELECT count(*) FROM jobs WHERE state = 'DONE'") == JOBS)

    await until(all_done, 240)
    assert cut > 0
    assert [await desk.effects(job) for job in jobs] == [list(range(STEPS))] * JOBS


@pytest.mark.parametrize("calls", [[], ["move", "finish"]])
async def test_a_step_that_calls_not_exactly_one_of_move_and_finish_is_undone(desk: Desk, calls: list[str]) -> None:
    caught: list[TypeError] = []

    async def careless(run: Run[NoArguments]) -> None:
        try:
            async with run.step() as step:
                step.unit.audit("test.counted", subjects=[run.job], details={"step": 0})
                if "move" in calls:
                    step.move(cursor=1)
                if "finish" in calls:
                    step.finish()
        except TypeError as error:
            caught.append(error)

    desk.handlers[FRAGILE] = careless
    job = await desk.enqueue(FRAGILE)
    await desk.handling().handle(desk.acme, job)

    assert len(caught) == 1
    assert await desk.effects(job) == []


async def test_a_handler_that_only_returns_is_done(desk: Desk) -> None:
    async def nothing(_: Run[NoArguments]) -> None:
        return

    desk.handlers[FRAGILE] = nothing
    job = await desk.enqueue(FRAGILE)
    await desk.handling().handle(desk.acme, job)

    assert (await desk.job(job))["state"] == "DONE"


async def failing(desk: Desk, *errors: Exception) -> list[tuple[str, str, int]]:
    """State, reason and attempt after each of these tries."""
    left = iter(errors)

    async def fail(_: Run[NoArguments]) -> None:
        raise next(left)

    desk.handlers[FRAGILE] = fail
    job, seen = await desk.enqueue(FRAGILE), []
    for _ in errors:
        await desk.set(job, "due_at = now()")
        await desk.handling().handle(desk.acme, job)
        found = await desk.job(job)
        seen.append((found["state"], found["reason"], found["attempt"]))
    return seen


PASSING = [KeyUnavailable(), DatabaseUnavailable(), Conflict(), TenantNotReady(), TenantSuspended()]


@pytest.mark.parametrize("error", PASSING)
async def test_an_error_that_passes_never_parks_a_job(desk: Desk, error: CofferError) -> None:
    assert set(await failing(desk, *[error] * 25)) == {("READY", error.code, 0)}


async def test_an_error_that_passes_is_not_held_against_a_job_that_fails_later(desk: Desk) -> None:
    seen = await failing(desk, ValueError(), *PASSING, ValueError(), *PASSING, ValueError())

    assert [attempt for _, reason, attempt in seen if reason == "INTERNAL"] == [1, 2, 3]
    assert [state for state, _, _ in seen[-2:]] == ["READY", "PARKED"]


async def test_the_pauses_of_a_job_that_waits_for_something_to_pass_grow(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: Run[NoArguments]) -> None:
        raise KeyUnavailable

    monkeypatch.setattr("jobs.pauses.random.uniform", lambda _least, most: most)
    desk.handlers[FRAGILE] = fail
    job, pauses = await desk.enqueue(FRAGILE), []
    for _ in range(6):
        await desk.set(job, "due_at = due_at - interval '1 hour', moved_at = moved_at - interval '1 hour'")
        await desk.handling().handle(desk.acme, job)
        found = await desk.job(job)
        pauses.append((found["due_at"] - found["moved_at"]).total_seconds())

    assert pauses == [3, 9, 27, LONGEST_PAUSE, LONGEST_PAUSE, LONGEST_PAUSE]


async def test_who_knows_how_long_it_must_wait_is_put_off_for_so_long(desk: Desk) -> None:
    async def wait(_: Run[NoArguments]) -> None:
        raise RotationWaits(300)

    desk.handlers[FRAGILE] = wait
    job = await desk.enqueue(FRAGILE)

    await desk.handling().handle(desk.acme, job)

    found = await desk.job(job)
    assert (found["state"], found["reason"], found["attempt"]) == ("READY", "ROTATION_WAITS", 0)
    assert found["due_at"] - found["moved_at"] == timedelta(minutes=5)


def test_a_pause_is_a_minute_at_most_however_long_the_last_was() -> None:
    assert pause_after(timedelta(days=3)) <= timedelta(seconds=LONGEST_PAUSE)
    assert timedelta(seconds=1) <= pause_after(timedelta()) <= timedelta(seconds=3)


@pytest.mark.parametrize("error", [Forbidden(), CannotOpen(), Unauthenticated()])
async def test_a_refusal_parks_at_once_with_its_code(desk: Desk, error: Forbidden) -> None:
    assert await failing(desk, error) == [("PARKED", error.code, 1)]


async def test_an_unexpected_error_parks_after_the_kinds_attempts_and_tells_no_value(
    desk: Desk, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        seen = await failing(desk, *[ValueError("ada@example.org")] * FRAGILE.most_attempts)

    told = capsys.readouterr().out + caplog.text
    assert [state for state, _, _ in seen] == ["READY", "READY", "PARKED"]
    assert seen[-1][1] == "INTERNAL"
    assert "ValueError" in told
    assert "ada@example.org" not in told


async def test_a_step_that_succeeded_starts_the_count_of_attempts_anew(desk: Desk) -> None:
    async def stumble(run: Run[NoArguments]) -> None:
        if run.attempt < FRAGILE.most_attempts:
            raise ValueError
        async with run.step() as step:
            step.move(cursor=(run.cursor or 0) + 1)
        raise ValueError

    desk.handlers[FRAGILE] = stumble
    job = await desk.enqueue(FRAGILE)
    for _ in range(FRAGILE.most_attempts * 2):
        await desk.set(job, "due_at = now()")
        await desk.handling().handle(desk.acme, job)

    found = await desk.job(job)
    assert (found["state"], found["cursor"]) == ("READY", "2")


def test_pauses_grow_and_stay_below_a_minute() -> None:
    pauses = [max(pause_before(attempt) for _ in range(200)) for attempt in range(1, 21)]

    assert pauses[0] <= timedelta(seconds=2)
    assert timedelta(seconds=30) < pauses[-1] <= timedelta(seconds=LONGEST_PAUSE)


async def test_a_suspended_tenants_job_waits(desk: Desk) -> None:
    slug = f"suspended-{os.urandom(4).hex()}"
    tenant = (await desk.house.provisioning.provision(slug, "Suspended")).id
    job = await desk.enqueue(tenant=tenant)
    await tenants.suspend(desk.house.api.platform, slug)

    await desk.handling().handle(tenant, job)

    found = await desk.job(job)
    assert (found["state"], found["reason"]) == ("READY", "TENANT_SUSPENDED")
    assert found["due_at"] > found["created_at"]


async def test_a_job_of_a_member_who_is_gone_is_parked(desk: Desk) -> None:
    agent = desk.house.members["acme"][Role.AGENT].principal
    job = await desk.enqueue(principal=agent)
    await desk.set(job, "principal = gen_random_uuid()")

    await desk.handling().handle(desk.acme, job)

    found = await desk.job(job)
    assert (found["state"], found["reason"]) == ("PARKED", "UNAUTHENTICATED")
    assert await desk.effects(job) == []


async def test_a_kind_that_only_newer_workers_know_is_given_back(desk: Desk) -> None:
    job = await desk.enqueue(FRAGILE)

    await desk.handling().handle(desk.acme, job)

    found = await desk.job(job)
    assert (found["state"], found["reason"]) == ("READY", "JOB_KIND_UNKNOWN")


# What people ask of a job


async def stepping(desk: Desk) -> tuple[UUID, "asyncio.Task[bool]", asyncio.Event]:
    """A job of endless steps that is in its first one, its task, and what lets that step end."""
    is_inside, may_end = asyncio.Event(), asyncio.Event()

    async def step_on(run: Run[NoArguments]) -> None:
        while True:
            async with run.step() as step:
                number = run.cursor or 0
                step.unit.audit("test.counted", subjects=[run.job], details={"step": number})
                is_inside.set()
                await may_end.wait()
                step.move(cursor=number + 1, done=number + 1)

    desk.handlers[FRAGILE] = step_on
    job = await desk.enqueue(FRAGILE)
    handled = asyncio.create_task(desk.handling().handle(desk.acme, job))
    await is_inside.wait()
    return job, handled, may_end


async def test_a_running_job_pauses_after_its_step_and_goes_on_from_there(desk: Desk) -> None:
    job, handled, may_end = await stepping(desk)
    async with desk.units.enter(desk.acme, None, write=True) as unit:
        assert (await job_acts.pause(unit, job)).state == "RUNNING"
    may_end.set()
    await handled

    paused = await desk.job(job)
    assert (paused["state"], paused["cursor"], paused["wish"]) == ("PAUSED", "1", None)
    assert await desk.effects(job) == [0]
    async with desk.units.enter(desk.acme, None, write=True) as unit:
        assert (await job_acts.resume(unit, job)).state == "READY"


async def test_a_running_job_is_cancelled_after_its_step(desk: Desk) -> None:
    job, handled, may_end = await stepping(desk)
    async with desk.units.enter(desk.acme, None, write=True) as unit:
        await job_acts.cancel(unit, job)
    may_end.set()
    await handled

    found = await desk.job(job)
    assert (found["state"], found["done"]) == ("CANCELLED", 1)
    assert await desk.effects(job) == [0]


async def test_a_worker_that_stops_lets_the_step_end_and_holds_no_attempt_against_the_job(desk: Desk) -> None:
    is_inside, may_end = asyncio.Event(), asyncio.Event()

    async def two_steps(run: Run[NoArguments]) -> None:
        for number in (0, 1):
            async with run.step() as step:
                step.unit.audit("test.counted", subjects=[run.job], details={"step": number})
                is_inside.set()
                await may_end.wait()
                step.move(cursor=number + 1)

    desk.handlers[FRAGILE] = two_steps
    job, handling = await desk.enqueue(FRAGILE), desk.handling()
    handled = asyncio.create_task(handling.handle(desk.acme, job))
    await is_inside.wait()
    handling.stop()
    may_end.set()
    await handled

    found = await desk.job(job)
    assert (found["state"], found["cursor"], found["attempt"]) == ("READY", "1", 0)
    assert await desk.effects(job) == [0]
    assert not await handling.handle(desk.acme, job)


async def test_a_job_that_is_cut_off_is_given_back_and_its_step_undone(desk: Desk) -> None:
    job, handled, _ = await stepping(desk)

    handled.cancel()
    await asyncio.wait([handled])

    found = await desk.job(job)
    assert (found["state"], found["attempt"], found["cursor"]) == ("READY", 0, None)
    assert await desk.effects(job) == []


async def test_a_worker_that_lost_its_lease_stops_quietly(desk: Desk) -> None:
    desk.ledger = desk.another_ledger(lease=timedelta(milliseconds=300))
    job, handled, _ = await stepping(desk)
    await desk.set(job, "fence = fence + 1, worker = 'a third'")

    assert await asyncio.wait_for(handled, 10)

    found = await desk.job(job)
    assert (found["state"], found["worker"]) == ("RUNNING", "a third")
    assert await desk.effects(job) == []


async def test_what_became_of_a_job_is_kept_through_an_outage_longer_than_a_lease(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.ledger = desk.another_ledger(lease=timedelta(milliseconds=30))
    end, outage = desk.ledger.end, iter(range(10))

    async def away(*what: Any, **how: Any) -> None:
        if next(outage, None) is not None:
            raise DatabaseUnavailable
        await end(*what, **how)

    monkeypatch.setattr(desk.ledger, "end", away)

    assert await failing(desk, KeyUnavailable()) == [("READY", "KEY_UNAVAILABLE", 0)]


class Met(Ledger):
    """Tells when a beat met a job that is no longer held."""

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk.app, desk.house.api.platform, "met", timedelta(milliseconds=300))
        self.met = asyncio.Event()

    async def beat(self, lease: Lease) -> Wish | None:
        try:
            return await super().beat(lease)
        except LeaseLost:
            self.met.set()
            raise


class Slow:
    """Units whose block ends a beat later than its commit."""

    def __init__(self, desk: Desk, met: asyncio.Event) -> None:
        self._desk = desk
        self._met = met

    @asynccontextmanager
    async def enter(self, *who: Any, **how: Any) -> AsyncIterator[Unit]:
        async with self._desk.units.enter(*who, **how) as unit:
            yield unit
        await self._met.wait()
        await self._desk.ledger.due()  # here it would be cut off


@pytest.mark.parametrize("is_slow", [True, False])
async def test_a_beat_does_not_cut_off_a_job_whose_last_step_has_committed(desk: Desk, is_slow: bool) -> None:
    ledger, went_on = Met(desk), asyncio.Event()

    async def finish(run: Run[NoArguments]) -> None:
        async with run.step() as step:
            step.finish()
        await ledger.met.wait()
        await desk.job(run.job)  # here it would be cut off
        went_on.set()

    desk.handlers[FRAGILE] = finish
    units: Any = Slow(desk, ledger.met) if is_slow else desk.units
    job = await desk.enqueue(FRAGILE)
    await asyncio.wait_for(Handling(units, ledger, desk.handlers).handle(desk.acme, job), 10)

    assert went_on.is_set()
    assert (await desk.job(job))["state"] == "DONE"


async def test_a_beating_worker_keeps_a_job_for_longer_than_a_lease(desk: Desk) -> None:
    desk.ledger = desk.another_ledger(lease=timedelta(milliseconds=300))
    job, handled, _ = await stepping(desk)
    first = (await desk.job(job))["lease_until"]

    async def is_kept() -> bool:
        return bool((await desk.job(job))["lease_until"] > first + timedelta(seconds=1))

    await until(is_kept)
    assert (await desk.job(job))["deaths"] == 0
    handled.cancel()
    await asyncio.wait([handled])


# Acts on jobs that wait or have ended


async def test_a_parked_job_is_retried_as_if_it_had_never_failed(desk: Desk) -> None:
    job = await desk.enqueue()
    await desk.set(job, "state = 'PARKED', ended_at = now(), attempt = 9, deaths = 3, reason = 'WORKER_DIED'")

    async with desk.units.enter(desk.acme, None, write=True) as unit:
        retried = await job_acts.retry(unit, job)
        assert unit.enqueued == [job]

    assert (retried.state, retried.attempt, retried.deaths, retried.reason) == ("READY", 0, 0, None)
    assert await desk.handling().handle(desk.acme, job)
    assert await desk.effects(job) == [0, 1, 2]


@pytest.mark.parametrize(
    ("act", "state"),
    [
        (job_acts.pause, "PAUSED"),
        (job_acts.pause, "DONE"),
        (job_acts.resume, "READY"),
        (job_acts.cancel, "DONE"),
        (job_acts.retry, "READY"),
        (job_acts.retry, "DONE"),
    ],
)
async def test_an_act_that_the_state_forbids_is_refused_and_changes_nothing(desk: Desk, act, state: str) -> None:  # type: ignore[no-untyped-def]  # four functions of one shape
    job = await desk.enqueue()
    await desk.set(job, f"state = '{state}', ended_at = CASE WHEN '{state}' = 'DONE' THEN now() END")

    with pytest.raises(JobRefused):
        async with desk.units.enter(desk.acme, None, write=True) as unit:
            await act(unit, job)
    assert (await desk.job(job))["state"] == state


async def test_a_parked_job_is_not_retried_beside_another_that_does_the_same(desk: Desk) -> None:
    parked = await desk.enqueue(once="only")
    await desk.set(parked, "state = 'PARKED', ended_at = now()")
    await desk.enqueue(once="only")

    with pytest.raises(JobRefused):
        async with desk.units.enter(desk.acme, None, write=True) as unit:
            await job_acts.retry(unit, parked)
    assert (await desk.job(parked))["state"] == "PARKED"


async def test_another_tenants_job_can_be_neither_seen_nor_touched(desk: Desk) -> None:
    job = await desk.enqueue(tenant=desk.globex)

    for act in (job_acts.get, job_acts.pause, job_acts.resume, job_acts.cancel, job_acts.retry):
        with pytest.raises(JobUnknown):
            async with desk.units.enter(desk.acme, None, write=True) as unit:
                await act(unit, job)
    assert (await desk.job(job))["state"] == "READY"


async def test_an_act_stands_in_the_audit_log(desk: Desk) -> None:
    job = await desk.enqueue()
    async with desk.units.enter(desk.acme, None, write=True) as unit:
        await job_acts.pause(unit, job)

    query = "SELECT action, subject_type FROM audit_entries WHERE $1 = ANY(subjects)"
    assert [tuple(row) for row in await desk.superuser.fetch(query, job)] == [("job.paused", "Job")]


async def test_progress_tells_the_rate_and_what_is_left(desk: Desk) -> None:
    job = await desk.enqueue()
    await desk.set(
        job,
        "state = 'RUNNING', lease_until = now(), done = 50, total = 200,"
        " started_at = now() - interval '10 s', moved_at = now()",
    )

    async with desk.units.enter(desk.acme, None, write=False) as unit:
        told = job_acts.progress(await job_acts.get(unit, job))

    assert (told.done, told.total) == (50, 200)
    assert told.rate == pytest.approx(5)
    assert told.left == pytest.approx(timedelta(seconds=30), abs=timedelta(seconds=1))
