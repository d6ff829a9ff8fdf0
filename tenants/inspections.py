"""What an operator may look at: a tenant's data keys without their secrets, the clock, how a connection came.

Read by the command line alone; nothing here opens a key or a value.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, func, select, text
from sqlalchemy.sql.base import Executable

from crypto.transit import wrapped_version
from tenants.database import SCOPE, Database, Read
from tenants.jobs import Job
from tenants.keys import DataKeyRow
from tenants.keys.rotations import Rotation
from tenants.viewers import TenantId

# clock_timestamp moves within a transaction, now() does not; no rows in pg_stat_ssl means a unix socket
_LINK = text("""
    SELECT clock_timestamp() AS clock, inet_server_addr() IS NULL OR inet_server_addr() <<= '127.0.0.0/8'
        OR inet_server_addr() = '::1' AS is_local,
        coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false) AS is_tls
""")


@dataclass(frozen=True, slots=True)
class DataKey:
    purpose: str
    version: int
    state: str
    kek_version: int | None  # the key store's that wraps it; None once it is destroyed
    created_at: datetime
    age: timedelta


@dataclass(frozen=True, slots=True)
class OpenRotation:
    """How far a rotation is that has not ended, and its job, as far as that is still known."""

    purpose: str
    state: str
    moved_at: datetime
    job_state: str | None
    done: int | None
    total: int | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Link:
    """The server's clock, and whether what we send it stays on this machine or is encrypted."""

    clock: datetime
    is_local: bool
    is_tls: bool


async def data_keys(app: Database, tenant: TenantId) -> list[DataKey]:
    """All data keys by purpose and version; needs no key store, so it also works for a suspended tenant."""
    statement = (
        select(DataKeyRow, func.now().label("now"))
        .where(DataKeyRow.tenant_id == tenant)
        .order_by(DataKeyRow.purpose, DataKeyRow.version)
    )
    async with snapshot(app, tenant) as read:
        return [_data_key(row[0], row.now) for row in await read(statement)]


async def open_rotations(app: Database, tenant: TenantId) -> list[OpenRotation]:
    """By purpose; needs no key store either."""
    columns = (Rotation.purpose, Rotation.state, Rotation.moved_at, Job.state.label("job_state"))
    statement = (
        select(*columns, Job.done, Job.total, Job.reason)
        .outerjoin(Job, (Job.tenant_id == Rotation.tenant_id) & (Job.id == Rotation.job_id))
        .where(Rotation.tenant_id == tenant, Rotation.ended_at.is_(None))
        .order_by(Rotation.purpose)
    )
    async with snapshot(app, tenant) as read:
        return [OpenRotation(**row._mapping) for row in await read(statement)]


@asynccontextmanager
async def snapshot(app: Database, tenant: TenantId) -> AsyncIterator[Read]:
    """Reads rows of a tenant in one snapshot; needs no key store, so it also works for a suspended tenant."""
    async with app.session(write=False) as session:
        await session.execute(SCOPE, {"tenant": tenant})

        async def read(statement: Executable) -> Sequence[Row[Any]]:
            return (await session.execute(statement)).all()

        yield read


async def link(database: Database) -> Link:
    async with database.connection() as connection:
        row = (await connection.execute(_LINK)).one()
    return Link(row.clock, row.is_local, row.is_tls)


def _data_key(row: DataKeyRow, now: datetime) -> DataKey:
    wrapped_by = wrapped_version(row.wrapped) if row.wrapped else None
    return DataKey(row.purpose, row.version, row.state, wrapped_by, row.created_at, now - row.created_at)
