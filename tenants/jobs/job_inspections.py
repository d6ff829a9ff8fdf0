"""What an operator sees of jobs, of all tenants: ids, kinds and states; and all of one, which holds no value either."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, select

from tenants.database import SCOPE, Database
from tenants.errors import JobUnknown
from tenants.jobs import ENDED, Job, JobState
from tenants.tenants import tenants
from tenants.viewers import TenantId


@dataclass(frozen=True, slots=True)
class ListedJob:
    id: UUID
    kind: str
    state: str
    created_at: datetime
    due_at: datetime
    slug: str


async def every(
    platform: Database, *, tenant: TenantId | None = None, state: JobState | None = None, most: int = 100
) -> list[ListedJob]:
    """Newest first, as the platform's role sees them."""
    columns = (Job.id, Job.kind, Job.state, Job.created_at, Job.due_at, tenants.c.slug)
    statement = select(*columns).join(tenants, tenants.c.id == Job.tenant_id)
    if tenant is not None:
        statement = statement.where(Job.tenant_id == tenant)
    if state is not None:
        statement = statement.where(Job.state == state)
    async with platform.session(write=False) as session:
        rows = await session.execute(statement.order_by(Job.created_at.desc(), Job.id.desc()).limit(most))
        return [ListedJob(*row) for row in rows]


async def counts(platform: Database) -> dict[tuple[str, str], int]:
    """How many jobs there are of each kind and state, of all tenants; of those that ended only the parked."""
    states = [state for state in JobState if state is JobState.PARKED or state not in ENDED]
    statement = select(Job.kind, Job.state, func.count()).where(Job.state.in_(states)).group_by(Job.kind, Job.state)
    async with platform.session(write=False) as session:
        return {(row[0], row[1]): row[2] for row in await session.execute(statement)}


async def tenant_of(platform: Database, job: UUID) -> TenantId:
    """Raises `JobUnknown`."""
    async with platform.session(write=False) as session:
        found = (await session.execute(select(Job.tenant_id).where(Job.id == job))).scalars().first()
    if found is None:
        raise JobUnknown
    return TenantId(found)


async def get(app: Database, tenant: TenantId, job: UUID) -> Job:
    """All of one job; needs no key store, so it also works for a tenant that is suspended or not yet made."""
    async with app.session(write=False) as session:
        await session.execute(SCOPE, {"tenant": tenant})
        statement = select(Job).where(Job.tenant_id == tenant, Job.id == job)
        found: Job | None = (await session.execute(statement)).scalars().first()
    if found is None:
        raise JobUnknown
    return found
