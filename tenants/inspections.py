"""What an operator may look at: a tenant's data keys without their secrets, the clock, how a connection came.

Read by the command line alone; nothing here opens a key or a value.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, select, text
from sqlalchemy.sql.base import Executable

from tenants.database import SCOPE, Database, Read
from tenants.keys import DataKeyRow
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
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Link:
    """The server's clock, and whether what we send it stays on this machine or is encrypted."""

    clock: datetime
    is_local: bool
    is_tls: bool


async def data_keys(app: Database, tenant: TenantId) -> list[DataKey]:
    """All data keys by purpose and version; needs no key store, so it also works for a suspended tenant."""
    columns = (DataKeyRow.purpose, DataKeyRow.version, DataKeyRow.state, DataKeyRow.created_at)
    statement = select(*columns).where(DataKeyRow.tenant_id == tenant).order_by(DataKeyRow.purpose, DataKeyRow.version)
    async with app.session(write=False) as session:
        await session.execute(SCOPE, {"tenant": tenant})
        return [DataKey(r.purpose, r.version, r.state, r.created_at) for r in await session.execute(statement)]


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
