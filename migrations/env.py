"""Runs revisions as `coffer_owner`; knows the whole metadata, so that drift between code and database shows."""

import asyncio

from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from tenants.owned import TenantOwned

LOCK_TIMEOUT = "5s"


def run(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=TenantOwned.metadata, compare_type=True)
    connection.execute(text("SELECT pg_advisory_lock(hashtextextended('coffer.migrate', 0))"))
    connection.execute(text(f"SET lock_timeout = '{LOCK_TIMEOUT}'"))
    connection.commit()
    with context.begin_transaction():
        context.run_migrations()


async def main() -> None:
    engine = create_async_engine(context.config.attributes["url"], poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(run)
        await connection.commit()
    await engine.dispose()


def start() -> None:
    connection = context.config.attributes.get("connection")
    if connection is None:
        asyncio.run(main())
    else:
        run(connection)


start()
