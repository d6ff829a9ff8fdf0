"""Runs revisions as `coffer_owner`; knows the whole metadata, so that drift between code and database shows."""

import asyncio

from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from domain import tables
from tenants.errors import UnsafeDatabase
from tenants.owned import TenantOwned

LOCK_TIMEOUT = "5s"
tables.load()  # drift must not depend on what else the process does


def run(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=TenantOwned.metadata, compare_type=True)
    connection.execute(text("SELECT pg_advisory_lock(hashtextextended('coffer.migrate', 0))"))
    if not connection.execute(text("SELECT has_schema_privilege('public', 'CREATE')")).scalar_one():
        if not connection.execute(text("SELECT pg_has_role('pg_database_owner', 'MEMBER')")).scalar_one():
            raise UnsafeDatabase(
                "The database is not coffer_owner's: run deploy/postgres/20-database.sh as superuser, or"
                " ALTER DATABASE … OWNER TO coffer_owner, then `coffer migrate` again."
            )
        # Up to Postgres 15 a NOINHERIT owner of the database has to ask for the rights of pg_database_owner.
        for step in ("SET ROLE pg_database_owner", "GRANT ALL ON SCHEMA public TO coffer_owner", "RESET ROLE"):
            connection.execute(text(step))
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
