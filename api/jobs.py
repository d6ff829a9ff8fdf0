"""Jobs over GraphQL: what is being done and how far it is; who started a job may read, pause, resume and cancel it."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Any, cast
from uuid import UUID

import strawberry
from strawberry import Info

from api.directives import Input, argument, public, requires
from api.meanings import described
from api.members import Member, members_of
from api.operation import Operation
from api.paging import Connection, Node, UserError, cursor, local_id, user_errors, window
from domain import jobs
from domain.errors import Refused
from domain.errors import UserError as Reason
from tenants import jobs as tables
from tenants.access import Permission
from tenants.errors import JobRefused, JobUnknown
from tenants.jobs import JobState, Priority, job_acts
from tenants.unit import Unit
from tenants.viewers import MemberId

_SHAPE = "the shape of a payload"
_READ = "codes, counts and moments, for whoever may read the job"
_OWN = "for who started the job, or holds JOBS_READ; to all others it is NOT_FOUND"
_ACT = "for who started the job, or holds JOBS_MANAGE"
_LIST = "jobs"

described(
    JobState,
    "Where a job stands; DONE, PARKED and CANCELLED have ended.",
    READY="Waits for a worker, or for its due time.",
    RUNNING="A worker is at it.",
    PAUSED="Stands until it is resumed.",
    DONE="Ended well.",
    PARKED="Stopped by an error, which `reason` names; `retryJob` lets it go on.",
    CANCELLED="Was ended before it was done; what it did stays.",
)
described(
    Priority,
    "Which goes first.",
    name="JobPriority",
    URGENT="First: somebody waits for it.",
    NORMAL="As it comes.",
    IDLE="Last: housekeeping.",
)


@strawberry.type(description="How far a job is.")
class JobProgress:
    done: int = public(_READ)
    total: int | None = public(_READ)
    rate_per_second: float | None = public(_READ, description="Since the job first started.")
    seconds_left: float | None = public(_READ, description="At that rate; null where the job stands still.")


@strawberry.type(description="A part of a job's result: how many of what.")
class JobCount:
    name: str = public(_READ)
    count: int = public(_READ)


@strawberry.type(description="Work that goes on after its request was answered.")
class Job(Node):
    kind: str = public(_READ)
    state: JobState = public(_READ)
    priority: Priority = public(_READ)
    attempt: int = public(_READ, description="How often a worker took it up.")
    deaths: int = public(_READ, description="How many workers died of it; after three it is parked.")
    created_at: datetime = public(_READ)
    started_at: datetime | None = public(_READ)
    ended_at: datetime | None = public(_READ)
    due_at: datetime = public(_READ, description="It does not run before then.")
    reason: str | None = public(_READ, description="The code of the error that stopped it, or delays it.")

    @public(_READ)
    def progress(self: Any) -> JobProgress:
        now = job_acts.progress(self)
        left = None if now.left is None else now.left.total_seconds()
        return JobProgress(done=now.done, total=now.total, rate_per_second=now.rate, seconds_left=left)

    @public(_READ, description="Under whose rights it runs; null for the house's own work.")
    async def created_by(self: Any, info: Info[Operation]) -> Member | None:
        member = self.principal
        return None if member is None else cast(Member | None, await members_of(info.context).load(MemberId(member)))

    @public(_READ, description="What came of it, by name; empty until it is done.")
    def result(self: Any) -> list[JobCount]:
        found = self.result if isinstance(self.result, dict) else {}
        return [JobCount(name=name, count=count) for name, count in found.items() if isinstance(count, int)]

    @classmethod
    def is_type_of(cls, value: object, _info: Any) -> bool:
        return isinstance(value, tables.Job)


@strawberry.type
class JobPayload:
    job: Job | None = public(_SHAPE)
    user_errors: list[UserError] = public(_SHAPE)


_ID = Annotated[strawberry.ID, argument(Input(why="an id opens nothing by itself"), "The job's.")]
_FIRST = Annotated[int | None, argument(Input(why="a size"), "1 to 100; 20 unless told.")]
_CURSOR = Annotated[
    str | None, argument(Input(why="holds a clear sort key and an id, under a MAC"), "An end or edge of the list.")
]


@strawberry.type
class JobQueries:
    @public(_OWN, description="One job, or NOT_FOUND.")
    async def job(self, info: Info[Operation], id: _ID) -> Job | None:
        return cast(Job, await jobs.get(info.context.unit, local_id("Job", id)))

    @public("one's own jobs, or with JOBS_READ all of the tenant's", description="Jobs, newest first.")
    async def jobs(
        self,
        info: Info[Operation],
        state: Annotated[list[JobState] | None, argument(Input(why="a code"), "Only those in one of these.")] = None,
        kind: Annotated[
            list[str] | None, argument(Input(why="a code"), "As in `Job.kind`: `import_customers`.")
        ] = None,
        first: _FIRST = None,
        after: _CURSOR = None,
        last: _FIRST = None,
        before: _CURSOR = None,
    ) -> Connection[Job] | None:
        unit = info.context.unit
        within = window(unit, _LIST, first, after, last, before)
        return Connection(
            page=await jobs.page(unit, within, state=state or (), kind=kind or ()),
            cursor_of=lambda job: cursor(unit, _LIST, (job.created_at, job.id)),
            count=lambda: jobs.count(unit, state=state or (), kind=kind or ()),
        )


Act = Callable[[Unit, UUID], Awaitable[tables.Job]]


@strawberry.type
class JobMutations:
    @public(_ACT, description="Let a job stand still: a waiting one at once, a running one after its present step.")
    async def pause_job(self, info: Info[Operation], id: _ID) -> JobPayload | None:
        return await _acted(info, id, job_acts.pause)

    @public(_ACT, description="Let a paused job go on where it stood.")
    async def resume_job(self, info: Info[Operation], id: _ID) -> JobPayload | None:
        return await _acted(info, id, job_acts.resume)

    @public(_ACT, description="End a job: a running one after its present step. What it has done stays done.")
    async def cancel_job(self, info: Info[Operation], id: _ID) -> JobPayload | None:
        return await _acted(info, id, job_acts.cancel)

    @requires(Permission.JOBS_MANAGE, description="Let a parked job go on where it stood.")
    async def retry_job(self, info: Info[Operation], id: _ID) -> JobPayload | None:
        return await _acted(info, id, job_acts.retry)


async def _acted(info: Info[Operation], id: str, act: Act) -> JobPayload:
    unit, local = info.context.unit, local_id("Job", id)
    try:
        await jobs.check_may_act(unit, local)
        return JobPayload(job=cast(Job, await act(unit, local)), user_errors=[])
    except (JobUnknown, JobRefused) as refused:
        reasons = Refused([Reason(refused.code, ("id",), refused.message)])
        return JobPayload(job=None, user_errors=user_errors(reasons))
