"""A long job gives way to what should come first, between two steps and without harm, and to nothing else."""

from jobs.hands import Hands
from tenants.jobs import JobId
from tests.jobs.desk import Desk, until
from tests.jobs.kinds import COUNT, URGENT, Counted

LONG = 1_000_000
SHORT = 0.2  # seconds


async def started(desk: Desk) -> tuple[Hands, JobId]:
    """The only hand leads a job that does not end."""
    hands, job = Hands(desk.ledger, desk.handling(turn=SHORT), most=1), await desk.enqueue(COUNT, Counted(steps=LONG))
    await hands.wake()
    return hands, job


async def test_an_urgent_job_of_another_tenant_does_not_wait_for_the_end_of_a_long_one(desk: Desk) -> None:
    hands, long = await started(desk)
    urgent = await desk.enqueue(URGENT, tenant=desk.globex)
    try:
        await desk.until_state("DONE", urgent, patience=10)
        await desk.until_state("RUNNING", long, patience=10)
    finally:
        await hands.stop(grace=10)

    found = await desk.job(long)
    assert (found["state"], found["attempt"], found["reason"]) == ("READY", 0, None)
    assert await desk.effects(long) == list(range(found["done"]))


async def test_long_jobs_take_turns(desk: Desk) -> None:
    hands, _ = await started(desk)
    for _ in range(2):
        await desk.enqueue(COUNT, Counted(steps=LONG))

    async def all_moved() -> bool:
        return bool(await desk.superuser.fetchval("SELECT min(done) > 0 AND max(fence) > 1 FROM jobs"))

    try:
        await until(all_moved, 20)
    finally:
        await hands.stop(grace=10)
    assert await desk.superuser.fetchval("SELECT sum(deaths) + sum(attempt) FROM jobs") == 0


async def test_a_job_that_nobody_waits_behind_keeps_its_hand(desk: Desk) -> None:
    job = await desk.enqueue(COUNT, Counted(steps=5))
    await desk.enqueue(COUNT, Counted(), tenant=desk.globex)  # this moment: a free hand would take it

    await desk.handling(turn=0).handle(desk.acme, job)

    found = await desk.job(job)
    assert (found["state"], found["fence"]) == ("DONE", 1)
