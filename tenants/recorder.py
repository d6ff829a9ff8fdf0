"""Records what must be on record before an answer leaves, or although its transaction is undone.

One writer per process, in a database role that may add audit entries and do nothing else. Those who ask while a commit
is on its way share the next one.
"""

import asyncio
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import cast

from sqlalchemy import Table, insert
from sqlalchemy.exc import SQLAlchemyError

from crypto.errors import CofferError
from tenants.audit.entries import AuditEntry, Entry
from tenants.database import Database
from tenants.errors import AuditUnavailable

PATIENCE = 5.0  # seconds
Told = Callable[[Sequence[dict[str, int | str]], float], None]
_entries = cast(Table, AuditEntry.__table__)


class Recorder:
    """For one event loop; `database` connects as `coffer_recorder`.

    `told` hears of each commit: the details of its entries, and the seconds it took.
    """

    def __init__(self, database: Database, patience: float = PATIENCE, told: Told = lambda _details, _s: None) -> None:
        self._database = database
        self._told = told
        self._patience = patience
        self._waiting: list[tuple[Sequence[Entry], asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def record(self, entries: Sequence[Entry]) -> None:
        """Returns once the entries have committed. Raises `AuditUnavailable`; then nothing may be let out."""
        written = asyncio.get_running_loop().create_future()
        self._waiting.append((entries, written))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        try:
            await asyncio.wait_for(written, self._patience)
        except TimeoutError:
            raise AuditUnavailable from None

    async def close(self) -> None:
        """Let what is on its way commit; the database is its giver's to close."""
        if self._writer is not None:
            await asyncio.wait([self._writer], timeout=self._patience)

    async def _write(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting, []
            try:
                # else a connection that went dead without a word would stop all reading until TCP gives it up
                async with asyncio.timeout(self._patience):
                    await self._commit([entry for entries, _ in group for entry in entries])
            except (CofferError, SQLAlchemyError, TimeoutError):
                _settle(group, AuditUnavailable())
            else:
                _settle(group, None)

    async def _commit(self, entries: Sequence[Entry]) -> None:
        began = perf_counter()
        async with self._database.statements() as connection:
            await connection.execute(insert(_entries), [entry.row() for entry in entries])
        self._told([entry.details for entry in entries], perf_counter() - began)


def _settle(group: "list[tuple[Sequence[Entry], asyncio.Future[None]]]", error: AuditUnavailable | None) -> None:
    for _, written in group:
        if not written.done():  # whoever asked may have gone
            written.set_result(None) if error is None else written.set_exception(error)
