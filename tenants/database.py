"""Connections to Postgres: one pool per database role; only `tenants.unit` and the tenants' own acts use them."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from typing import Any

from sqlalchemy import Boolean, Row, Uuid, bindparam, event, text
from sqlalchemy.exc import DBAPIError, DisconnectionError, InterfaceError, OperationalError, PendingRollbackError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, create_async_engine
from sqlalchemy.sql.base import Executable

from telemetry.traces import span
from tenants.errors import Conflict, DatabaseUnavailable

# For the house's own acts inside a tenant; everybody else enters by a unit. (`SELECT FROM`: nothing comes back.)
SCOPE = text("SELECT FROM coffer_enter(:tenant, NULL, :writes)").bindparams(
    bindparam("tenant", type_=Uuid), bindparam("writes", False, type_=Boolean)
)
Read = Callable[[Executable], Awaitable[Sequence[Row[Any]]]]  # rows of one statement, in somebody's transaction

_READS: dict[str, Any] = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
_CONFLICT = "40"  # deadlock or serialisation failure: the transaction that lost may be repeated
_NO_LOCK = "55P03"  # a lock was not free in time: as good as a conflict
_LOST = "8s2b"  # SQLAlchemy's: the connection broke earlier in this transaction
_AWAY = ("08", "57P0", "53")  # connection lost, server shutting down, out of connections or of space
_NO_WRITES = "25006"  # a standby, or a server that a provider closed for writes because its disk is full


class Database:
    """`url` is ``postgresql+asyncpg://role@host/name``. Nothing here knows a tenant, so no row shows."""

    def __init__(self, url: str, *, pool_size: int = 10, connect_args: dict[str, Any] | None = None) -> None:
        self._engine = create_async_engine(
            url,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=5,
            pool_use_lifo=True,
            connect_args={"timeout": 5, "server_settings": {"application_name": "coffer", "jit": "off"}}
            | (connect_args or {}),
        )
        event.listen(self._engine.sync_engine, "checkout", _refuse_closed)
        self._reads = self._engine.execution_options(**_READS)
        self._statements = self._engine.execution_options(isolation_level="AUTOCOMMIT")

    @asynccontextmanager
    async def session(self, *, write: bool) -> AsyncIterator[AsyncSession]:
        """One transaction: READ COMMITTED to write, one snapshot (REPEATABLE READ READ ONLY) to read.

        Commits when the block ends well, rolls back when it does not.
        """
        with ExitStack() as last:  # outside of the transaction, so that the stop lasts until it has ended
            async with (
                translated(writes=write),
                AsyncSession(self._engine if write else self._reads, expire_on_commit=False) as session,
                session.begin(),
            ):
                yield session
                last.enter_context(span("commit"))

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AsyncConnection]:
        async with translated(writes=True), self._engine.begin() as connection:
            yield connection

    @asynccontextmanager
    async def statements(self) -> AsyncIterator[AsyncConnection]:
        """Each statement is a transaction of its own: one round trip, where a block would need three."""
        async with translated(writes=True), self._statements.connect() as connection:
            yield connection

    @asynccontextmanager
    async def listening(self, channels: Mapping[str, Callable[[str], None]]) -> AsyncIterator[AsyncConnection]:
        """A connection of its own that hears these channels (https://www.postgresql.org/docs/current/sql-listen.html).

        Each statement on it is its own transaction. What is heard is the payload; raises `DatabaseUnavailable`.
        """
        async with translated(), self._engine.connect() as raw:
            connection = await raw.execution_options(isolation_level="AUTOCOMMIT")
            driver: Any = (await connection.get_raw_connection()).driver_connection
            for channel, hear in channels.items():
                await driver.add_listener(channel, lambda _c, _pid, _channel, payload, hear=hear: hear(payload))
            try:
                yield connection
            finally:
                await connection.invalidate()  # never back to the pool with its listeners

    async def close(self) -> None:
        await self._engine.dispose()


def _refuse_closed(connection: Any, _record: object, _proxy: object) -> None:
    """One that broke while nobody used it is made anew instead of failing its next user; Postgres is asked nothing.

    See https://docs.sqlalchemy.org/en/21/core/pooling.html, Custom / Legacy Pessimistic Ping.
    """
    if connection.driver_connection.is_closed():
        raise DisconnectionError


@asynccontextmanager
async def translated(*, writes: bool = False) -> AsyncIterator[None]:
    """Who `writes` and is refused meets a server that takes no writes just now; anybody else has a bug."""
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeout, OSError) as error:
        raise DatabaseUnavailable from error
    except PendingRollbackError as error:
        if error.code != _LOST:
            raise
        raise DatabaseUnavailable from error
    except DBAPIError as error:
        state = str(getattr(error.orig, "sqlstate", "") or "")
        if error.connection_invalidated or state.startswith(_AWAY) or (writes and state == _NO_WRITES):
            raise DatabaseUnavailable from error
        if state.startswith(_CONFLICT) or state == _NO_LOCK:
            raise Conflict from error
        raise
