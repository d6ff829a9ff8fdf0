"""What workers do with the table of jobs: find what is due, lease it, keep the lease, move on, end it.

Each act is a short transaction of its own, of the job's tenant, and needs no key: a job of a tenant without keys, or of
one whose key store is away, is led as well. The fence, which grows with every lease, makes a worker that lost its lease
unable to write: whatever it does commits together with `moved`, or not at all.
"""

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from sqlalchemy import JSON, BigInteger, Boolean, Integer, Text, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY, INTERVAL
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.types import Uuid

from tenants.database import SCOPE, Database
from tenants.errors import LeaseLost
from tenants.events import EventKind
from tenants.ids import new_id
from tenants.jobs import DEATHS, JobId, JobState, Wish
from tenants.unit import Unit
from tenants.viewers import MemberId, TenantId

# A worker that does not beat for so long, and for the grace after it, is dead. Three deaths, and the two pauses between
# them, take no more than 30 seconds.
LEASE = timedelta(seconds=6)
PARKED_KIND = EventKind("job.parked", "Job", "A job was given up until somebody lets it go on; `reason` says why.")
WAITED = timedelta(seconds=1)  # in which a hand that is free takes what is due
_GRACE = 3  # of a lease: one third, so that one beat more may come late
_TENANT, _JOB = bindparam("tenant", type_=Uuid), bindparam("job", type_=Uuid)
# By priority; then whose tenant has the fewest running or ahead of it here; then the oldest. One step per tenant that
# waits, not per job. Jobs of a suspended tenant are nobody's turn: they go on when it is served again.
_LISTED = """
    WITH RECURSIVE waiting (tenant_id) AS (
        (SELECT tenant_id FROM jobs WHERE state = 'READY' ORDER BY tenant_id LIMIT 1)
        UNION ALL
        SELECT (SELECT j.tenant_id FROM jobs j WHERE j.state = 'READY' AND j.tenant_id > w.tenant_id
                ORDER BY j.tenant_id LIMIT 1)
        FROM waiting w WHERE w.tenant_id IS NOT NULL
    ), listed AS (
        SELECT w.tenant_id, f.id, f.priority, r.running + f.place AS rank, f.due_at FROM waiting w
        JOIN tenants t ON t.id = w.tenant_id AND t.status <> 'SUSPENDED'
        CROSS JOIN LATERAL (
            SELECT j.id, j.priority, j.due_at, row_number() OVER (ORDER BY j.priority, j.due_at, j.id) AS place
            FROM jobs j WHERE j.tenant_id = w.tenant_id AND j.state = 'READY' AND j.due_at <= now() - :waited
            AND j.kind <> ALL (:without)
            ORDER BY j.priority, j.due_at, j.id LIMIT :each
        ) f
        CROSS JOIN LATERAL (
            SELECT count(*) AS running FROM jobs j WHERE j.tenant_id = w.tenant_id AND j.state = 'RUNNING'
        ) r
    )
"""
_LOOK = (
    bindparam("each", type_=Integer),
    bindparam("waited", type_=INTERVAL),
    bindparam("without", type_=ARRAY(Text)),
)
_DUE = text(
    f"{_LISTED} SELECT tenant_id, id FROM listed ORDER BY priority, rank, due_at, id LIMIT :most"  # noqa: S608
).bindparams(*_LOOK, bindparam("most", type_=Integer))
# Whether something would come before this running job, were that given back now: it would be the last of its tenant's.
_FAIRER = text(
    f"""
    {_LISTED} SELECT EXISTS (
        SELECT FROM listed WHERE priority < :priority OR (priority = :priority AND (tenant_id = :tenant OR rank <= (
            SELECT count(*) FROM jobs j WHERE j.tenant_id = :tenant AND j.state = 'RUNNING'
        )))
    )
    """  # noqa: S608  # a text of ours
).bindparams(*_LOOK, _TENANT, bindparam("priority", type_=Integer))
_DEAD = text(
    "SELECT tenant_id, id FROM jobs WHERE state = 'RUNNING' AND lease_until < now() - :grace LIMIT :most"
).bindparams(bindparam("grace", type_=INTERVAL))
_CLAIM = text(
    """
    UPDATE jobs SET state = 'RUNNING', lease_until = now() + :lease, attempt = attempt + 1, fence = fence + 1,
        worker = :worker, started_at = coalesce(started_at, now())
    WHERE tenant_id = :tenant AND id = (
        SELECT id FROM jobs WHERE tenant_id = :tenant AND id = :job AND state = 'READY' AND due_at <= now()
        AND kind <> ALL (:without) FOR UPDATE SKIP LOCKED
    )
    RETURNING *, pg_notify('coffer_jobs', tenant_id || '/' || id)
    """
).bindparams(
    *(_TENANT, _JOB, bindparam("lease", type_=INTERVAL), bindparam("worker", type_=Text)),
    bindparam("without", type_=ARRAY(Text)),
)
# A lease that ran out is a worker that died of it: counted before anything is tried again. The fence moves as well,
# or a worker that was only slow could still end the job, which is nobody's by now. Those that died together come back
# one by one: what only stood beside the culprit makes a step before it strikes again, and a step forgives all deaths.
_BURY = text(
    f"""
    UPDATE jobs SET deaths = deaths + 1, fence = fence + 1, lease_until = NULL, wish = NULL,
        due_at = now() + (deaths + 1) * random() * interval '2 seconds',
        state = CASE WHEN wish = 'CANCEL' THEN 'CANCELLED' WHEN deaths + 1 >= {DEATHS} THEN 'PARKED'
            WHEN wish = 'PAUSE' THEN 'PAUSED' ELSE 'READY' END,
        reason = CASE WHEN deaths + 1 >= {DEATHS} AND wish IS DISTINCT FROM 'CANCEL' THEN 'WORKER_DIED'
            ELSE reason END,
        ended_at = CASE WHEN deaths + 1 >= {DEATHS} OR wish = 'CANCEL' THEN now() END
    WHERE tenant_id = :tenant AND id = (
        SELECT id FROM jobs WHERE tenant_id = :tenant AND id = :job AND state = 'RUNNING'
        AND lease_until < now() - :grace FOR UPDATE SKIP LOCKED
    )
    RETURNING state, pg_notify('coffer_jobs', tenant_id || '/' || id)
    """  # noqa: S608  # a number of ours
).bindparams(_TENANT, _JOB, bindparam("grace", type_=INTERVAL))
_TAKEN = _CLAIM.columns(arguments=JSON, cursor=JSON)
_HELD = "tenant_id = :tenant AND id = :job AND fence = :fence AND state = 'RUNNING'"
_TOLD = "pg_notify('coffer_jobs', tenant_id || '/' || id)"
_FENCE = bindparam("fence", type_=Integer)
_BEAT = text(f"UPDATE jobs SET lease_until = now() + :lease WHERE {_HELD} RETURNING wish").bindparams(  # noqa: S608
    _TENANT, _JOB, _FENCE, bindparam("lease", type_=INTERVAL)
)
_MOVED = text(
    f"""
    UPDATE jobs SET cursor = :cursor, done = :done, total = :total, moved_at = now(), lease_until = now() + :lease,
        attempt = CASE WHEN :gains THEN 1 ELSE attempt END, deaths = CASE WHEN :gains THEN 0 ELSE deaths END
    WHERE {_HELD} RETURNING wish, {_TOLD}
    """  # noqa: S608
).bindparams(
    *(_TENANT, _JOB, _FENCE, bindparam("lease", type_=INTERVAL), bindparam("cursor", type_=JSON(none_as_null=True))),
    bindparam("gains", type_=Boolean),
    *(bindparam("done", type_=BigInteger), bindparam("total", type_=BigInteger)),
)
_SEEN = text(
    f"UPDATE jobs SET done = :done, total = :total, moved_at = now() WHERE {_HELD} RETURNING wish, {_TOLD}"  # noqa: S608
).bindparams(_TENANT, _JOB, _FENCE, bindparam("done", type_=BigInteger), bindparam("total", type_=BigInteger))
# A job that is given back obeys what was asked of it meanwhile.
_OBEYED = """CASE WHEN :state = 'READY' AND wish = 'CANCEL' THEN 'CANCELLED'
            WHEN :state = 'READY' AND wish = 'PAUSE' THEN 'PAUSED' ELSE :state END"""
_ENDED = text(
    f"""
    UPDATE jobs SET state = {_OBEYED}, reason = :reason, result = coalesce(:result, result), lease_until = NULL,
        ended_at = CASE WHEN {_OBEYED} IN ('DONE', 'PARKED', 'CANCELLED') THEN now() END,
        due_at = now() + :delay, wish = NULL, moved_at = now(), attempt = attempt - :spared,
        done = coalesce(:done, done), total = coalesce(:total, total)
    WHERE {_HELD} RETURNING {_TOLD}
    """  # noqa: S608
).bindparams(
    *(_TENANT, _JOB, _FENCE, bindparam("state", type_=Text), bindparam("reason", type_=Text)),
    *(bindparam("result", type_=JSON(none_as_null=True)), bindparam("delay", type_=INTERVAL)),
    *(bindparam(name, type_=BigInteger) for name in ("done", "total")),
    bindparam("spared", type_=Integer),
)


# Without a unit: a job may be of a tenant whose keys are away, or not made yet.
_PARKED_TOLD = text(
    """
    WITH fact AS (
        INSERT INTO events (tenant_id, id, at, type, version, subject, fields)
        VALUES (:tenant, :event, now(), 'job.parked', 1, :job, '{}')
    )
    INSERT INTO audit_entries (tenant_id, id, at, action, subject_type, subjects, fields, outcome, details)
    VALUES (:tenant, :entry, now(), 'job.parked', 'Job', ARRAY[CAST(:job AS uuid)], '{}', 'OK', '{}')
    """
).bindparams(_TENANT, _JOB, bindparam("event", type_=Uuid), bindparam("entry", type_=Uuid))


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A job in this worker's hands, as it stood when it was taken or last moved.

    `paused` is how long it was put off when it was last given up, so that the next pause can be longer.
    """

    tenant: TenantId
    job: JobId
    kind: str
    priority: int
    arguments: Mapping[str, Any]
    fence: int
    attempt: int
    paused: timedelta
    cursor: Any
    done: int
    total: int | None
    principal: MemberId | None
    request_id: str | None
    trace: str | None


class Ledger:
    """`app` is the serving role, one transaction of one tenant at a time; `platform` sees ids of all tenants."""

    def __init__(self, app: Database, platform: Database, worker: str, lease: timedelta = LEASE) -> None:
        self._app = app
        self._platform = platform
        self._worker = worker
        self.lease = lease
        self._grace = lease / _GRACE

    async def due(self, most: int = 10, each: int = 1, without: Collection[str] = ()) -> list[tuple[TenantId, JobId]]:
        """What should run now, fairest first; at most `each` of one tenant, and none of the kinds in `without`."""
        parameters = {"most": most, "each": each, "waited": timedelta(), "without": list(without)}
        async with self._platform.statements() as connection:
            rows = (await connection.execute(_DUE, parameters)).all()
        return [(TenantId(row.tenant_id), JobId(row.id)) for row in rows]

    async def has_fairer(self, lease: Lease, without: Collection[str] = ()) -> bool:
        """Whether a job that should have this one's hand has waited for so long that no other hand is free for it."""
        parameters = {"each": 1, "waited": WAITED, "without": list(without)}
        mine = {"tenant": lease.tenant, "priority": lease.priority}
        async with self._platform.statements() as connection:
            return bool((await connection.execute(_FAIRER, parameters | mine)).scalar_one())

    async def dead(self, most: int = 100) -> list[tuple[TenantId, JobId]]:
        """Jobs whose worker stopped beating."""
        async with self._platform.statements() as connection:
            rows = (await connection.execute(_DEAD, {"most": most, "grace": self._grace})).all()
        return [(TenantId(row.tenant_id), JobId(row.id)) for row in rows]

    async def claim(self, tenant: TenantId, job: JobId, without: Collection[str] = ()) -> Lease | None:
        """None where the job is not due, is in other hands, or is of a kind in `without`."""
        async with self._tenant(tenant) as session:
            held = {"lease": self.lease, "worker": self._worker}
            parameters = {"tenant": tenant, "job": job, "without": list(without), **held}
            row = (await session.execute(_TAKEN, parameters)).one_or_none()
        if row is None:
            return None
        return Lease(
            tenant=tenant,
            job=job,
            kind=row.kind,
            priority=row.priority,
            arguments=row.arguments,
            fence=row.fence,
            attempt=row.attempt,
            paused=max(row.due_at - row.moved_at, timedelta()) if row.moved_at else timedelta(),
            cursor=row.cursor,
            done=row.done,
            total=row.total,
            principal=row.principal,
            request_id=row.request_id,
            trace=row.trace,
        )

    async def bury(self, tenant: TenantId, job: JobId) -> JobState | None:
        """Count the death of the worker that held it: READY again, or PARKED if it was the third. None: not dead."""
        async with self._tenant(tenant) as session:
            parameters = {"tenant": tenant, "job": job, "grace": self._grace}
            row = (await session.execute(_BURY, parameters)).one_or_none()
            if row is not None and row.state == JobState.PARKED:
                await _tell_parked(session, tenant, job)
        return None if row is None else JobState(row.state)

    async def beat(self, lease: Lease) -> Wish | None:
        """Keep the lease; tells what somebody asked of the job meanwhile. Raises `LeaseLost`."""
        async with self._tenant(lease.tenant) as session:
            row = (await session.execute(_BEAT, _held(lease) | {"lease": self.lease})).one_or_none()
        return _wish(row)

    async def end(
        self,
        lease: Lease,
        state: JobState,
        *,
        reason: str | None = None,
        delay: timedelta = timedelta(),
        is_spared: bool = False,
    ) -> None:
        """Give the job up: ended, PAUSED, or READY again after `delay`; where `is_spared`, the attempt is not counted.

        Raises `LeaseLost`.
        """
        parameters = _held(lease) | _end(state, reason=reason, delay=delay, spared=int(is_spared))
        async with self._tenant(lease.tenant) as session:
            if (await session.execute(_ENDED, parameters)).one_or_none() is None:
                raise LeaseLost
            if state is JobState.PARKED:
                await _tell_parked(session, lease.tenant, lease.job)

    @asynccontextmanager
    async def _tenant(self, tenant: TenantId) -> AsyncIterator[AsyncSession]:
        async with self._app.session(write=True) as session:
            await session.execute(SCOPE, {"tenant": tenant})
            yield session


async def _tell_parked(session: AsyncSession, tenant: TenantId, job: JobId) -> None:
    ids = {"event": new_id(), "entry": new_id()}
    await session.execute(_PARKED_TOLD, {"tenant": tenant, "job": job, **ids})


async def moved(
    unit: Unit, lease: Lease, held: timedelta, *, cursor: Any, done: int, total: int | None, gains: bool = True
) -> tuple[Lease, Wish | None]:
    """Commit a step's work and where the next one begins together. Raises `LeaseLost`, which undoes the step.

    Where it `gains` nothing, the next try has as much to do, and attempts and deaths stay counted.
    """
    parameters = _held(lease) | {"lease": held, "cursor": cursor, "done": done, "total": total, "gains": gains}
    rows = await unit.rows(_MOVED, parameters)
    wish = _wish(rows[0] if rows else None)
    counts: dict[str, Any] = {"attempt": 1, "paused": timedelta()} if gains else {}
    return replace(lease, cursor=cursor, done=done, total=total, **counts), wish


async def seen(unit: Unit, lease: Lease, *, done: int, total: int | None) -> tuple[Lease, Wish | None]:
    """Show how far a step is, which counts as nothing until it has ended. Raises `LeaseLost`."""
    rows = await unit.rows(_SEEN, _held(lease) | {"done": done, "total": total})
    wish = _wish(rows[0] if rows else None)
    return replace(lease, done=done, total=total), wish


async def ended(
    unit: Unit, lease: Lease, *, result: Any = None, done: int | None = None, total: int | None = None
) -> None:
    """Commit the last step's work and the job's end together. Raises `LeaseLost`, which undoes the step."""
    parameters = _held(lease) | _end(JobState.DONE, result=result, done=done, total=total)
    if not await unit.rows(_ENDED, parameters):
        raise LeaseLost


def _end(state: JobState, **what: Any) -> dict[str, Any]:
    nothing = {"reason": None, "result": None, "delay": timedelta(), "spared": 0, "done": None, "total": None}
    return {**nothing, "state": state, **what}


def _held(lease: Lease) -> dict[str, Any]:
    return {"tenant": lease.tenant, "job": lease.job, "fence": lease.fence}


def _wish(row: Any) -> Wish | None:
    if row is None:
        raise LeaseLost
    return None if row.wish is None else Wish(row.wish)
