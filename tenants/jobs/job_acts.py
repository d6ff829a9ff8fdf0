"""What people do with jobs: look at one, pause, resume, cancel, retry, and how far it is.

Each act is one UPDATE guarded by the job's state, and stands in the audit log. A page of jobs is `domain.jobs.page`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, case, exists, func, null, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import aliased

from tenants.errors import JobRefused, JobUnknown
from tenants.events import EventKind
from tenants.jobs import ENDED, Job, JobId, JobState, Wish
from tenants.unit import Unit

PAUSED_BY = EventKind("job.paused", "Job", "Somebody paused a job.")
RESUMED = EventKind("job.resumed", "Job", "Somebody let a job go on.")
CANCELLED = EventKind("job.cancelled", "Job", "Somebody cancelled a job.")
RETRIED = EventKind("job.retried", "Job", "Somebody let a parked job go on.")
READY, RUNNING, PAUSED = JobState.READY, JobState.RUNNING, JobState.PAUSED


@dataclass(frozen=True, slots=True)
class Progress:
    """`rate` is what was done per second since the job first started, `left` what the rest takes at that rate.

    None: not known (yet), or not to be told of a job that stands still.
    """

    done: int
    total: int | None
    rate: float | None
    left: timedelta | None


async def get(unit: Unit, job: UUID) -> Job:
    """Raises `JobUnknown`."""
    found: Sequence[Job] = await unit.scalars(select(Job).where(*_named(unit, job)))
    if not found:
        raise JobUnknown
    return found[0]


async def pause(unit: Unit, job: UUID) -> Job:
    """A waiting job stands still at once, a running one after its present step. Raises `JobUnknown`, `JobRefused`."""
    is_running = Job.state == RUNNING
    may = or_(Job.state == READY, and_(is_running, Job.wish.is_distinct_from(Wish.CANCEL)))
    values = {"state": case((is_running, RUNNING), else_=PAUSED), "wish": case((is_running, Wish.PAUSE), else_=null())}
    return await _act(unit, job, PAUSED_BY, may, values)


async def resume(unit: Unit, job: UUID) -> Job:
    """A paused job goes on where it stood; one that was about to pause, does not. Raises as `pause` does."""
    is_running = Job.state == RUNNING
    may = or_(Job.state == PAUSED, and_(is_running, Job.wish == Wish.PAUSE))
    values = {
        "state": case((is_running, RUNNING), else_=READY),
        "wish": null(),
        "due_at": case((is_running, Job.due_at), else_=func.now()),
    }
    return await _act(unit, job, RESUMED, may, values)


async def cancel(unit: Unit, job: UUID) -> Job:
    """A waiting or paused job ends at once, a running one after its present step; what is done stays done.

    Raises as `pause` does.
    """
    is_running = Job.state == RUNNING
    values = {
        "state": case((is_running, RUNNING), else_=JobState.CANCELLED),
        "wish": case((is_running, Wish.CANCEL), else_=null()),
        "ended_at": case((is_running, null()), else_=func.now()),
    }
    return await _act(unit, job, CANCELLED, Job.state.in_([READY, RUNNING, PAUSED]), values)


async def retry(unit: Unit, job: UUID) -> Job:
    """A parked job goes on where it stood, as if it had never failed. Raises as `pause` does.

    Refused too while another job does what only one may do at a time.
    """
    other = aliased(Job)
    rival = exists().where(
        *(other.tenant_id == Job.tenant_id, other.kind == Job.kind, other.once == Job.once, other.ended_at.is_(None))
    )
    values = {
        **{"state": READY, "attempt": 0, "deaths": 0, "due_at": func.now()},
        **{"wish": null(), "reason": null(), "ended_at": null()},
    }
    try:
        async with unit.savepoint():
            return await _act(unit, job, RETRIED, and_(Job.state == JobState.PARKED, ~rival), values)
    except IntegrityError:  # the rival came in between
        raise JobRefused from None


def progress(job: Job) -> Progress:
    until = job.ended_at or job.moved_at
    seconds = (until - job.started_at).total_seconds() if until and job.started_at else 0.0
    rate = job.done / seconds if seconds > 0 and job.done else None
    if job.state in ENDED or job.state == PAUSED or not rate or job.total is None:
        return Progress(job.done, job.total, rate, None)
    return Progress(job.done, job.total, rate, timedelta(seconds=max(job.total - job.done, 0) / rate))


async def _act(unit: Unit, job: UUID, kind: EventKind, may: ColumnElement[bool], values: dict[str, Any]) -> Job:
    told = func.pg_notify("coffer_jobs", f"{unit.tenant.id}/{job}")
    statement = update(Job).where(*_named(unit, job), may).values(values).returning(Job, told)
    rows = await unit.rows(statement.execution_options(populate_existing=True, synchronize_session=False))
    if not rows:
        await get(unit, job)
        raise JobRefused
    changed: Job = rows[0][0]
    unit.publish(kind, [job])
    if changed.state == READY:
        unit.enqueued.append(JobId(job))  # so that the broker is told once this has committed
    return changed


def _named(unit: Unit, job: UUID) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return Job.tenant_id == unit.tenant.id, Job.id == job
