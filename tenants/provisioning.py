"""How a tenant comes to life: its row, its Transit key, its data keys, its own subject; each step can be repeated.

The row is written with a job, so that a tenant whose making was cut off is finished by a worker.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert

from crypto.keys import KeyState, Purpose
from crypto.transit import TransitKeys
from tenants import tenants
from tenants.database import SCOPE, Database
from tenants.jobs import Job, JobId, JobKind, JobState, NoArguments, Priority
from tenants.keys import DataKeyRow, new_keys
from tenants.subjects import Subject, fresh_secret
from tenants.tenants import Tenant
from tenants.viewers import TenantId

PROVISION = JobKind(
    "provision_tenant", NoArguments, "Make the keys of a new tenant, then serve it.", priority=Priority.URGENT
)


async def create(
    platform: Database,
    slug: str,
    name: str,
    *,
    region: str = "US",
    language: str = "en",
    id: TenantId | None = None,
) -> Tenant:
    """The tenant of that slug, made PENDING unless it exists; a worker makes the rest. Raises `SlugRefused`."""
    return await tenants.create(platform, slug, name, region=region, language=language, work=PROVISION, id=id)


class Provisioning:
    """`maker` may create keys and open none; `opener` opens what was made, to check it in with a check value."""

    def __init__(self, platform: Database, app: Database, maker: TransitKeys, opener: TransitKeys) -> None:
        self._platform = platform
        self._app = app
        self._maker = maker
        self._opener = opener

    async def provision(self, slug: str, name: str, *, region: str = "US", language: str = "en") -> Tenant:
        """The tenant of that slug, ACTIVE with one active key of each purpose, however many ask at once.

        Cut off anywhere, it is finished by asking again. Raises `SlugRefused`, `KeyUnavailable`, `KeyRefused`.
        """
        tenant = await create(self._platform, slug, name, region=region, language=language)
        if tenant.status != "PENDING":
            return tenant
        made = await self.finish(tenant)
        await self._spare_the_worker(tenant.id)
        return made

    async def finish(self, tenant: Tenant) -> Tenant:
        """What is left of making a PENDING tenant ACTIVE; may be repeated, and by many at once."""
        await self._maker.create_tenant_key(tenant.id)
        made = [await self._make(tenant.id, purpose) for purpose in Purpose]
        await self._check_in(tenant.id, made)
        return await tenants.activate(self._platform, tenant.slug)

    async def work(self, tenant: TenantId) -> None:
        """The job `PROVISION`."""
        found = await tenants.find_by_id(self._platform, tenant)
        if found is not None and found.status == "PENDING":
            await self.finish(found)

    async def find_job(self, tenant: TenantId) -> JobId | None:
        """The job that waits to do this work."""
        waiting = select(Job.id).where(Job.tenant_id == tenant, Job.kind == PROVISION.name, Job.state == JobState.READY)
        async with self._platform.session(write=False) as session:
            found = (await session.execute(waiting)).scalars().first()
        return None if found is None else JobId(found)

    async def _spare_the_worker(self, tenant: TenantId) -> None:
        """The job that waits is done; one that runs ends by itself."""
        waiting = update(Job).where(Job.tenant_id == tenant, Job.kind == PROVISION.name, Job.state == JobState.READY)
        async with self._app.session(write=True) as session:
            await session.execute(SCOPE, {"tenant": tenant, "writes": True})
            await session.execute(waiting.values(state=JobState.DONE, ended_at=func.now(), fence=Job.fence + 1))

    async def _make(self, tenant: TenantId, purpose: Purpose) -> dict[str, Any]:
        made = await new_keys.make(self._maker, self._opener, tenant, purpose, 1, KeyState.ACTIVE)
        return {
            "tenant_id": tenant,
            "id": made.id,
            "purpose": purpose.value,
            "version": made.version,
            "wrapped": made.wrapped,
            "check_value": made.check_value,
            "state": made.state.value,
            "created_at": datetime.now(UTC),
        }

    async def _check_in(self, tenant: TenantId, keys: list[dict[str, Any]]) -> None:
        """The first to commit wins; the keys of the others were never used and are dropped."""
        subject = {"tenant_id": tenant, "id": tenant, "secret": fresh_secret(), "created_at": datetime.now(UTC)}
        async with self._app.session(write=True) as session:
            await session.execute(SCOPE, {"tenant": tenant, "writes": True})
            await session.execute(insert(DataKeyRow).values(keys).on_conflict_do_nothing())
            await session.execute(insert(Subject).values(subject).on_conflict_do_nothing())
