"""Housekeeping of a tenant: forgets what has served its time, in batches, so that no statement holds locks for long."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, exists, func, select, tuple_

from domain import outcomes
from domain.imports import ImportRow
from domain.outcomes import Outcome
from tenants import events, webhooks
from tenants.audit.entries import DisclosureCounter
from tenants.events import Event
from tenants.jobs import Job, JobKind, NoArguments, Priority
from tenants.owned import TenantOwned
from tenants.signing_in.attempts import SignInAttempt
from tenants.signing_in.one_time_tokens import OneTimeToken
from tenants.signing_in.sessions import Session
from tenants.signing_in.sign_on import SignOnRequest
from tenants.unit import Unit
from tenants.usage import UsageHour, UsageSize
from tenants.webhooks import WebhookDelivery, WebhookEndpoint, WebhookSecret

BATCH = 1_000
JOBS_KEPT = timedelta(days=90)
_ATTEMPTS_KEPT = timedelta(days=1)
_SESSIONS_KEPT = timedelta(days=30)  # with their refresh tokens, after they ended
_COUNTERS_KEPT = timedelta(days=400)  # a year, and time to compare it with the one before
TIDY = JobKind("tidy", NoArguments, "Forget what has served its time.", priority=Priority.IDLE)

_OF_JOB = (Job.tenant_id == ImportRow.tenant_id, Job.id == ImportRow.job_id)
_OF_DELIVERY = (
    WebhookEndpoint.tenant_id == WebhookDelivery.tenant_id,
    WebhookEndpoint.id == WebhookDelivery.endpoint_id,
)
# What of each table has served its time. Import rows go before the jobs they belong to.
FORGOTTEN: Mapping[type[TenantOwned], Callable[[datetime], Any]] = {
    Event: lambda now: Event.at < now - events.KEPT,
    Outcome: lambda now: Outcome.created_at < now - outcomes.KEPT,
    SignInAttempt: lambda now: SignInAttempt.until < now - _ATTEMPTS_KEPT,
    Session: lambda now: func.coalesce(Session.ended_at, Session.expires_at) < now - _SESSIONS_KEPT,
    OneTimeToken: lambda now: OneTimeToken.expires_at < now,
    # One that waits is kept, also one from long ago that is to be sent again. The index knows when each was made.
    WebhookDelivery: lambda now: (
        ((WebhookDelivery.ended_at < now - webhooks.KEPT) & (WebhookDelivery.created_at < now - webhooks.KEPT))
        | ~exists().where(*_OF_DELIVERY)
    ),
    WebhookSecret: lambda now: WebhookSecret.expires_at < now,
    SignOnRequest: lambda now: SignOnRequest.expires_at < now,
    DisclosureCounter: lambda now: DisclosureCounter.hour < now - _COUNTERS_KEPT,
    UsageHour: lambda now: UsageHour.hour < now - _COUNTERS_KEPT,
    UsageSize: lambda now: UsageSize.day < (now - _COUNTERS_KEPT).date(),
    ImportRow: lambda now: exists().where(*_OF_JOB, Job.ended_at < now - JOBS_KEPT),
    Job: lambda now: (Job.ended_at < now - JOBS_KEPT) & ~exists().where(*_OF_JOB),
}


async def forget_some(unit: Unit, table: type[TenantOwned]) -> int:
    """Deletes up to `BATCH` rows and tells how many; fewer means that there are no more."""
    keys: Any = tuple_(*_key(table))
    old = select(*_key(table)).where(table.tenant_id == unit.tenant.id, FORGOTTEN[table](unit.now)).limit(BATCH)
    gone = delete(table).where(table.tenant_id == unit.tenant.id, keys.in_(old)).returning(table.tenant_id)
    return len(await unit.rows(gone.execution_options(synchronize_session=False)))


def _key(table: type[TenantOwned]) -> list[Any]:
    return [column for column in table.__table__.columns if column.primary_key]
