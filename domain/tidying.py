"""Housekeeping of a tenant: forgets what has served its time, in batches, so that no statement holds locks for long."""

from datetime import timedelta
from typing import Any

from sqlalchemy import Select, delete, exists, select, tuple_

from domain import outcomes
from domain.imports import ImportRow
from domain.outcomes import Outcome
from tenants import events
from tenants.events import Event
from tenants.jobs import Job, JobKind, NoArguments, Priority
from tenants.owned import TenantOwned
from tenants.sign_in import SignInAttempt
from tenants.unit import Unit

BATCH = 1_000
JOBS_KEPT = timedelta(days=90)
_ATTEMPTS_KEPT = timedelta(days=1)
TIDY = JobKind("tidy", NoArguments, "Forget what has served its time.", priority=Priority.IDLE)

# Import rows go before the jobs they belong to.
TABLES: tuple[type[TenantOwned], ...] = (Event, Outcome, SignInAttempt, ImportRow, Job)


async def forget_some(unit: Unit, table: type[TenantOwned]) -> int:
    """Deletes up to `BATCH` rows and tells how many; fewer means that there are no more."""
    keys: Any = tuple_(*_key(table))
    old = _old(unit, table).limit(BATCH)
    gone = delete(table).where(table.tenant_id == unit.tenant.id, keys.in_(old)).returning(table.tenant_id)
    return len(await unit.rows(gone.execution_options(synchronize_session=False)))


def _key(table: type[TenantOwned]) -> list[Any]:
    return [column for column in table.__table__.columns if column.primary_key]


def _old(unit: Unit, table: type[TenantOwned]) -> Select[Any]:
    statement = select(*_key(table)).where(table.tenant_id == unit.tenant.id)
    is_ended = Job.ended_at < unit.now - JOBS_KEPT
    has_rows = exists().where(ImportRow.tenant_id == Job.tenant_id, ImportRow.job_id == Job.id)
    of_ended = exists().where(Job.tenant_id == ImportRow.tenant_id, Job.id == ImportRow.job_id, is_ended)
    conditions: dict[type[TenantOwned], Any] = {
        Event: Event.at < unit.now - events.KEPT,
        Outcome: Outcome.created_at < unit.now - outcomes.KEPT,
        SignInAttempt: SignInAttempt.until < unit.now - _ATTEMPTS_KEPT,
        ImportRow: of_ended,
        Job: is_ended & ~has_rows,
    }
    return statement.where(conditions[table])
