"""The hands of a worker: none reaches for what another of them reaches for, or leads."""

import asyncio
from collections.abc import Collection

import pytest

from jobs.handling import Run
from jobs.hands import Hands
from tenants.jobs import JobId, NoArguments
from tenants.jobs.ledger import Lease
from tenants.viewers import TenantId
from tests.jobs.desk import Desk, until
from tests.jobs.kinds import FRAGILE


async def test_each_job_is_reached_for_once_though_the_ledger_lists_it_until_it_is_taken(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.hands._FRESH", -1.0)  # each looks for itself
    jobs = [await desk.enqueue() for _ in range(3)]
    claim, asked, may_claim = desk.ledger.claim, list[JobId](), asyncio.Event()

    async def slowly(tenant: TenantId, job: JobId, without: Collection[str] = ()) -> Lease | None:
        asked.append(job)
        await may_claim.wait()
        return await claim(tenant, job, without)

    async def all_reach() -> bool:
        return len(asked) == 3

    monkeypatch.setattr(desk.ledger, "claim", slowly)
    hands = Hands(desk.ledger, desk.handling(), most=3)
    hands.nudge(3)
    await until(all_reach)
    may_claim.set()
    await desk.until_state("DONE", *jobs)
    await hands.stop(grace=5)

    assert sorted(asked) == sorted(jobs)


async def test_a_message_about_a_job_that_a_hand_leads_wakes_nobody_for_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_end, claim, asked = asyncio.Event(), desk.ledger.claim, list[JobId]()

    async def wait(_: Run[NoArguments]) -> None:
        await may_end.wait()

    async def noted(tenant: TenantId, job: JobId, without: Collection[str] = ()) -> Lease | None:
        asked.append(job)
        return await claim(tenant, job, without)

    desk.handlers[FRAGILE] = wait
    monkeypatch.setattr(desk.ledger, "claim", noted)
    job = await desk.enqueue(FRAGILE)
    hands = Hands(desk.ledger, desk.handling(), most=3)
    await hands.wake(desk.acme, job)

    await hands.wake(desk.acme, job)

    assert asked == [job]
    may_end.set()
    await desk.until_state("DONE", job)
    await hands.wake(desk.acme, job)
    assert asked == [job, job]
    await hands.stop(grace=5)
