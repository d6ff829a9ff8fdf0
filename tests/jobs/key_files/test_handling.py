"""Whoever changes what a key file must hold enqueues its publishing, and no change is missed."""

from uuid import UUID

import pytest

from jobs.key_files.handling import publish_key_file_by
from tenants.jobs import JobId
from tenants.keys.key_files import PUBLISH_KEY_FILE, begin_publish, enqueue_publish
from tests.jobs.desk import Desk
from tests.jobs.key_files.cabinets import Cabinet, erase, only


@pytest.fixture
async def at_work(desk: Desk, cabinet: Cabinet) -> Desk:
    desk.handlers[PUBLISH_KEY_FILE] = publish_key_file_by(cabinet.key_files)
    return desk


async def erased(cabinet: Cabinet, subject: UUID) -> JobId:
    async with cabinet.house.api.units.enter(cabinet.tenant, None, write=True) as unit:
        await erase(unit, subject)
        return await enqueue_publish(unit)


async def test_the_job_publishes_what_was_changed(at_work: Desk, cabinet: Cabinet) -> None:
    (subject,) = await cabinet.add_subjects(1)
    job = await erased(cabinet, subject)

    await at_work.handling().handle(cabinet.tenant, job)

    assert (await at_work.job(job))["state"] == "DONE"
    assert cabinet.names() == only(1)
    file = await cabinet.key_files.read(cabinet.tenant)
    assert [row.subject for row in file.ledger] == [subject]


async def test_of_many_changes_one_job_waits(at_work: Desk, cabinet: Cabinet) -> None:
    jobs = {await erased(cabinet, subject) for subject in await cabinet.add_subjects(3)}

    assert len(jobs) == 1


async def test_a_change_that_comes_while_the_job_runs_gets_a_job_of_its_own(at_work: Desk, cabinet: Cabinet) -> None:
    first, second = await cabinet.add_subjects(2)
    job = await erased(cabinet, first)
    async with cabinet.house.api.units.enter(cabinet.tenant, None, write=True, fences=True) as unit:
        await begin_publish(unit, job)

    assert await erased(cabinet, second) != job


async def test_a_store_that_is_away_puts_the_job_off(at_work: Desk, cabinet: Cabinet) -> None:
    (subject,) = await cabinet.add_subjects(1)
    job = await erased(cabinet, subject)
    cabinet.unmount(0)
    await at_work.handling().handle(cabinet.tenant, job)
    waiting = await at_work.job(job)
    cabinet.mount(0)
    await at_work.set(job, "due_at = now()")

    await at_work.handling().handle(cabinet.tenant, job)

    assert (waiting["state"], waiting["reason"]) == ("READY", "STORE_AWAY")
    assert (await at_work.job(job))["state"] == "DONE"


async def test_without_stores_the_job_has_nothing_to_do(at_work: Desk, cabinet: Cabinet) -> None:
    at_work.handlers[PUBLISH_KEY_FILE] = publish_key_file_by(cabinet.made_of())
    (subject,) = await cabinet.add_subjects(1)
    job = await erased(cabinet, subject)

    await at_work.handling().handle(cabinet.tenant, job)

    assert (await at_work.job(job))["state"] == "DONE"
