"""Jobs as people see them: their own, or with JOBS_READ all; what one can do is in `tenants.jobs.job_acts`."""

from collections.abc import Collection, Sequence
from uuid import UUID

from sqlalchemy import ColumnElement, func, select

from domain.errors import Forbidden
from domain.paging import Page, Window, cut, windowed
from tenants.access import Permission
from tenants.errors import JobUnknown
from tenants.jobs import Job, JobState
from tenants.unit import Unit


async def get(unit: Unit, job: UUID) -> Job:
    """Raises `JobUnknown`, the same for an absent job, another tenant's, and one that the viewer may not read."""
    (found,) = await get_many(unit, [job])
    if found is None:
        raise JobUnknown
    return found


async def get_many(unit: Unit, jobs: Sequence[UUID]) -> list[Job | None]:
    """In the order asked for; None where there is none that the viewer may read."""
    rows = await unit.scalars(select(Job).where(*_readable(unit), Job.id.in_(set(jobs))))
    found = {row.id: row for row in rows}
    return [found.get(job) for job in jobs]


async def page(
    unit: Unit, window: Window, *, state: Collection[JobState] = (), kind: Collection[str] = ()
) -> Page[Job]:
    """Ordered by `created_at` and id, newest first; empty `state` or `kind` means all."""
    statement = select(Job).where(*_readable(unit), *_filtered(state, kind))
    rows = await unit.scalars(windowed(statement, (Job.created_at, Job.id), window, descending=True))
    return Page(*cut(rows, window))


async def count(unit: Unit, *, state: Collection[JobState] = (), kind: Collection[str] = ()) -> int:
    return int((await unit.scalars(select(func.count()).where(*_readable(unit), *_filtered(state, kind))))[0])


async def check_may_act(unit: Unit, job: UUID) -> None:
    """Raises `JobUnknown`; or `Forbidden` for a job that is another's, without the right to manage all."""
    found = await get(unit, job)
    if found.principal != unit.viewer.principal and not unit.viewer.may(Permission.JOBS_MANAGE):
        raise Forbidden(f"This needs the permission {Permission.JOBS_MANAGE}.")


def _readable(unit: Unit) -> list[ColumnElement[bool]]:
    mine = [Job.tenant_id == unit.tenant.id]
    if not unit.viewer.may(Permission.JOBS_READ):
        mine.append(Job.principal == unit.viewer.principal)
    return mine


def _filtered(state: Collection[JobState], kind: Collection[str]) -> list[ColumnElement[bool]]:
    return [*([Job.state.in_(state)] if state else []), *([Job.kind.in_(kind)] if kind else [])]
