"""The table of tenants and what the platform does with them: find, create, list, suspend, resume.

Only the platform's database role writes it; to the serving role row-level security shows the one tenant it entered.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Integer,
    Row,
    Table,
    Text,
    Uuid,
    false,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import TIMESTAMP, insert

from tenants.database import Database
from tenants.errors import SlugRefused, TenantUnknown
from tenants.ids import new_id
from tenants.jobs import Job, JobKind, JobState, NoArguments
from tenants.owned import TenantOwned
from tenants.viewers import TenantId

_SLUG = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])")


def _clear(why: str) -> dict[str, str]:
    return {"clear": why}


tenants = Table(
    "tenants",
    TenantOwned.metadata,
    Column("id", Uuid, primary_key=True, info=_clear("the tenant's id")),
    Column("slug", Text, nullable=False, unique=True, info=_clear("names the tenant at sign-in, before any key")),
    Column("name", Text, nullable=False, info=_clear("a company's name, chosen to be shown")),
    Column("status", Text, nullable=False, info=_clear("decides whether the tenant is served")),
    Column("key_epoch", BigInteger, nullable=False, info=_clear("makes open keyrings stale")),
    Column("access_epoch", BigInteger, nullable=False, info=_clear("makes cached roles stale")),
    Column("default_region", Text, nullable=False, info=_clear("reads phone numbers without a country code")),
    Column("default_language", Text, nullable=False, info=_clear("a setting of the house")),
    Column("created_at", TIMESTAMP(timezone=True), nullable=False, info=_clear("when the tenant came")),
    Column("disclosure_budget", Integer, nullable=True, info=_clear("plain values per member and hour")),
    Column("frozen", Text, nullable=True, info=_clear("why nothing may be written now")),
    Column("reveal_needs_step_up", Boolean, nullable=False, server_default=false(), info=_clear("a setting of theirs")),
    CheckConstraint("status IN ('PENDING', 'ACTIVE', 'SUSPENDED', 'CLOSED')", name="status"),
    CheckConstraint("frozen IN ('RESTORE', 'OFFBOARDING')", name="frozen"),
)


# Columns of its own tenant's row that the serving role writes.
APP_MAY_SET = (
    "access_epoch",
    "key_epoch",
    "frozen",
    "name",
    "default_region",
    "default_language",
    "disclosure_budget",
    "reveal_needs_step_up",
)


@dataclass(frozen=True, slots=True)
class Tenant:
    id: TenantId
    slug: str
    name: str
    status: str
    created_at: datetime


def check_slug(slug: str) -> None:
    """Raises `SlugRefused`."""
    if not _SLUG.fullmatch(slug):
        raise SlugRefused


async def create(
    platform: Database,
    slug: str,
    name: str,
    *,
    region: str,
    language: str,
    work: JobKind[NoArguments],
    id: TenantId | None = None,
) -> Tenant:
    """The tenant of that slug, made PENDING unless it exists, and with it the job of `work` that brings it to life.

    `id` is what it is to be, should it be made; the tenant of that slug may be another. Raises `SlugRefused`.
    """
    check_slug(slug)
    row = {
        "id": id or new_id(),
        "slug": slug,
        "name": name,
        "status": "PENDING",
        "key_epoch": 1,
        "access_epoch": 1,
        "default_region": region,
        "default_language": language,
        "created_at": datetime.now(UTC),
    }
    made = insert(tenants).values(row).on_conflict_do_nothing().returning(tenants.c.id)
    async with platform.connection() as connection:
        if (await connection.execute(made)).one_or_none() is not None:
            await connection.execute(insert(Job.__table__).values(_job(row, work)))  # type: ignore[arg-type]  # a Table
    return await get(platform, slug)


def _job(tenant: dict[str, Any], work: JobKind[NoArguments]) -> dict[str, Any]:
    return {
        "tenant_id": tenant["id"],
        "id": new_id(),
        "kind": work.name,
        "state": JobState.READY,
        "priority": work.priority,
        "arguments": work.dump(NoArguments()),
        "due_at": tenant["created_at"],
        "created_at": tenant["created_at"],
    }


async def find(platform: Database, slug: str) -> Tenant | None:
    async with platform.connection() as connection:
        row = (await connection.execute(select(tenants).where(tenants.c.slug == slug))).one_or_none()
    return None if row is None else _tenant(row)


async def find_by_id(platform: Database, tenant: TenantId) -> Tenant | None:
    async with platform.connection() as connection:
        row = (await connection.execute(select(tenants).where(tenants.c.id == tenant))).one_or_none()
    return None if row is None else _tenant(row)


async def get(platform: Database, slug: str) -> Tenant:
    found = await find(platform, slug)
    if found is None:
        raise TenantUnknown
    return found


async def page(platform: Database, *, after: str = "", first: int = 100) -> list[Tenant]:
    """Tenants by slug, from the first one behind `after`."""
    statement = select(tenants).where(tenants.c.slug > after).order_by(tenants.c.slug).limit(first)
    async with platform.connection() as connection:
        return [_tenant(row) for row in await connection.execute(statement)]


async def find_with_keys(platform: Database) -> Tenant | None:
    """Some tenant whose key is at the key store; None where there is none yet."""
    statement = select(tenants).where(tenants.c.status.in_(("ACTIVE", "SUSPENDED"))).order_by(tenants.c.slug).limit(1)
    async with platform.connection() as connection:
        return next((_tenant(row) for row in await connection.execute(statement)), None)


async def suspend(platform: Database, slug: str) -> Tenant:
    """From the next request on nobody of this tenant is served, and its keys leave every process."""
    return await _move(platform, slug, "ACTIVE", "SUSPENDED")


async def resume(platform: Database, slug: str) -> Tenant:
    return await _move(platform, slug, "SUSPENDED", "ACTIVE")


async def shut(platform: Database, slug: str) -> Tenant:
    """From the next request on nobody enters it any more, ever; its name goes, its slug stays taken."""
    statement = (
        update(tenants)
        .where(tenants.c.slug == slug, tenants.c.status != "CLOSED")
        .values(status="CLOSED", name=tenants.c.slug, key_epoch=tenants.c.key_epoch + 1)
    )
    async with platform.connection() as connection:
        await connection.execute(statement)
    return await get(platform, slug)


async def activate(platform: Database, slug: str) -> Tenant:
    return await _move(platform, slug, "PENDING", "ACTIVE")


async def _move(platform: Database, slug: str, old: str, new: str) -> Tenant:
    """Idempotent: a tenant that is not in the old state is left as it is."""
    statement = (
        update(tenants)
        .where(tenants.c.slug == slug, tenants.c.status == old)
        .values(status=new, key_epoch=tenants.c.key_epoch + 1)
    )
    async with platform.connection() as connection:
        await connection.execute(statement)
    return await get(platform, slug)


def _tenant(row: Row[tuple[UUID]]) -> Tenant:
    return Tenant(TenantId(row.id), row.slug, row.name, row.status, row.created_at)
