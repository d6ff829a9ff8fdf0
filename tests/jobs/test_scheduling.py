"""A schedule keeps its hour over changes of the clock, catches up once, and is started by one of many workers."""

import asyncio
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from jobs.scheduling import Scheduler
from tenants import tenants
from tenants.errors import ScheduleRefused
from tenants.jobs import JobId, JobKind, NoArguments, schedules
from tenants.jobs.crons import next_moment
from tests.jobs.desk import Desk
from tests.jobs.kinds import KINDS

BERLIN = ZoneInfo("Europe/Berlin")
NIGHTLY = JobKind("test_nightly", NoArguments, "Come every night.", declared_in=KINDS)


def moments(cron: str, after: datetime, count: int) -> list[str]:
    """Local times in Berlin, with their distance from UTC."""
    found = []
    for _ in range(count):
        after = next_moment(cron, "Europe/Berlin", after)
        found.append(after.astimezone(BERLIN).strftime("%m-%d %H:%M %z"))
    return found


def test_a_daily_hour_stays_the_same_when_the_clocks_change() -> None:
    march, october = datetime(2026, 3, 28, tzinfo=BERLIN), datetime(2026, 10, 24, tzinfo=BERLIN)

    assert moments("0 9 * * *", march, 2) == ["03-28 09:00 +0100", "03-29 09:00 +0200"]
    assert moments("0 9 * * *", october, 2) == ["10-24 09:00 +0200", "10-25 09:00 +0100"]


def test_an_hour_that_the_clock_skips_is_not_lost() -> None:
    after = datetime(2026, 3, 28, 12, tzinfo=BERLIN)

    assert moments("30 2 * * *", after, 2) == ["03-29 03:00 +0200", "03-30 02:30 +0200"]


def test_an_hour_that_comes_twice_is_taken_once() -> None:
    after = datetime(2026, 10, 24, 12, tzinfo=BERLIN)

    assert moments("30 2 * * *", after, 2) == ["10-25 02:30 +0200", "10-26 02:30 +0100"]


def test_each_hour_is_taken_as_often_as_the_clock_shows_it() -> None:
    october = datetime(2026, 10, 25, 1, 30, tzinfo=BERLIN)

    assert moments("0 * * * *", october, 3) == ["10-25 02:00 +0200", "10-25 02:00 +0100", "10-25 03:00 +0100"]


@pytest.mark.parametrize(
    ("cron", "zone"),
    [
        ("* * * *", "UTC"),
        ("* * * * * *", "UTC"),
        ("60 * * * *", "UTC"),
        ("@daily", "UTC"),
        ("0 0 31 2 *", "UTC"),
        ("0 0 * * *", "Mars/Olympus"),
        ("0 0 * * *", "../../etc/passwd"),
        ("0 0 * * *", ""),
        ("", "UTC"),
    ],
)
def test_what_can_be_no_schedule_is_refused_in_a_sentence(cron: str, zone: str) -> None:
    with pytest.raises(ScheduleRefused) as refused:
        next_moment(cron, zone, datetime(2026, 1, 1, tzinfo=UTC))

    assert refused.value.message.endswith(".")


def scheduler(desk: Desk, rung: list[JobId]) -> Scheduler:
    return Scheduler(desk.app, desk.house.api.platform, lambda _, job: rung.append(job), nightly=[NIGHTLY], kinds=KINDS)


async def scheduled(desk: Desk, cron: str = "0 3 * * *") -> None:
    async with desk.units.enter(desk.acme, None, write=True) as unit:
        await schedules.set_(unit, NIGHTLY, cron, "Europe/Berlin")


async def miss(desk: Desk, days: int) -> None:
    await desk.superuser.execute("UPDATE schedules SET next_at = now() - make_interval(days => $1)", days)


async def jobs_of(desk: Desk) -> list[str]:
    rows = await desk.superuser.fetch("SELECT state FROM jobs WHERE kind = $1", NIGHTLY.name)
    return [row["state"] for row in rows]


async def test_runs_that_were_missed_are_caught_up_with_once(desk: Desk) -> None:
    rung: list[JobId] = []
    await scheduled(desk)
    await miss(desk, 10)

    assert await scheduler(desk, rung).start_due() == 1
    assert await scheduler(desk, rung).start_due() == 0

    kept = await desk.superuser.fetchrow("SELECT next_at > now() AS is_ahead, last_job FROM schedules")
    assert kept is not None
    assert (kept["is_ahead"], [kept["last_job"]]) == (True, rung)
    assert await jobs_of(desk) == ["READY"]


async def test_of_many_schedulers_one_starts_a_run(desk: Desk) -> None:
    rung: list[JobId] = []
    await scheduled(desk)
    await miss(desk, 1)

    started = await asyncio.gather(*(scheduler(desk, rung).start_due() for _ in range(5)))

    assert sum(started) == len(rung) == 1
    assert await jobs_of(desk) == ["READY"]


async def test_a_run_that_is_still_open_is_not_doubled(desk: Desk) -> None:
    rung: list[JobId] = []
    await scheduled(desk)
    for _ in range(2):
        await miss(desk, 1)
        await scheduler(desk, rung).start_due()

    assert len(rung) == 1
    assert await jobs_of(desk) == ["READY"]


async def test_what_is_not_due_or_switched_off_is_not_started(desk: Desk) -> None:
    rung: list[JobId] = []
    await scheduled(desk)
    assert await scheduler(desk, rung).start_due() == 0
    async with desk.units.enter(desk.acme, None, write=True) as unit:
        await schedules.switch_off(unit, NIGHTLY)
        (kept,) = await schedules.every(unit)
    assert kept.next_at is None
    assert await scheduler(desk, rung).start_due() == 0
    assert await jobs_of(desk) == []


async def test_a_suspended_tenants_schedule_waits_until_it_is_served_again(desk: Desk) -> None:
    rung: list[JobId] = []
    platform = desk.house.api.platform
    await scheduled(desk)
    await miss(desk, 3)
    await tenants.suspend(platform, "acme")
    try:
        assert await scheduler(desk, rung).start_due() == 0
    finally:
        await tenants.resume(platform, "acme")
    assert await scheduler(desk, rung).start_due() == 1


async def test_every_tenant_gets_the_houses_own_schedule_and_keeps_a_changed_one(desk: Desk) -> None:
    await scheduled(desk, "0 12 * * 1")
    await scheduler(desk, []).add_missing()
    await scheduler(desk, []).add_missing()

    rows = await desk.superuser.fetch("SELECT tenant_id, cron, next_at FROM schedules WHERE kind = $1", NIGHTLY.name)
    crons = {row["tenant_id"]: row["cron"] for row in rows}
    active = await desk.superuser.fetchval("SELECT count(*) FROM tenants WHERE status = 'ACTIVE'")
    assert len(rows) == active
    assert crons[desk.acme] == "0 12 * * 1"
    assert crons[desk.globex].endswith("* * *")
    assert all(row["next_at"] for row in rows)


async def test_another_tenants_schedule_can_be_neither_seen_nor_changed(desk: Desk) -> None:
    await scheduled(desk)
    async with desk.units.enter(desk.globex, None, write=True) as unit:
        assert await schedules.every(unit) == []
        await schedules.switch_off(unit, NIGHTLY)

    assert await desk.superuser.fetchval("SELECT next_at IS NOT NULL FROM schedules")
