"""The job that backs a tenant up: one snapshot, sealed and spread over the stores, which counts once it was verified.

Killed anywhere it begins anew under the same number and key; what it left is deleted first. The key file that opens the
backup is published while the snapshot stands: it holds the secret of everybody who is in it, before the manifest is.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any
from uuid import UUID

from crypto.errors import CofferError
from domain import backup_acts
from domain.backup_acts import Claimed, Written
from domain.backups import BACK_UP, RETIRE_BACKUPS, Depth, MakeBackup
from jobs.backups import finding, writing
from jobs.backups.errors import StoreAway
from jobs.backups.manifests import About, Manifest
from jobs.checking_backups import check
from jobs.depots import Depot, Pace
from jobs.handling import Handler, Run
from tenants.backups import BackupKind, dumping
from tenants.backups.dumping import Dump
from tenants.errors import BackupsUnavailable
from tenants.ids import new_id
from tenants.jobs import NoArguments


def back_up_by(depot: Depot | None) -> Handler:
    """None: this worker has no stores, or no right to make keys of backups, and takes no such job."""

    async def back_up(run: Run[NoArguments | MakeBackup]) -> None:
        if depot is None:
            raise BackupsUnavailable
        kind = run.arguments.kind if isinstance(run.arguments, MakeBackup) else BackupKind.SCHEDULED
        await _Making(depot, run, kind).work()

    return back_up


async def make(depot: Depot, run: Any, kind: BackupKind) -> None:
    """A backup made by another job, on a run of its own that has no cursor yet; `run` keeps its moves and its end."""
    await _Making(depot, run, kind).work()


class _Making:
    """The cursor is the backup's id, once it is written; before that a job has nothing to go on from."""

    def __init__(self, depot: Depot, run: Run[Any], kind: BackupKind) -> None:
        self._depot = depot
        self._run = run
        self._thaws = kind is BackupKind.BEFORE_RESTORE
        self._kind = kind
        self._backup: UUID | None = None

    async def work(self) -> None:
        try:
            if self._run.cursor is None:
                claimed = await self._claimed()
                self._backup = claimed.id
                await self._written(claimed)
            self._backup = UUID(self._run.cursor)
            await self._verified(self._backup)
        except CofferError as error:
            if not error.retryable:
                await self._tell_failed(error.code)
            raise
        except Exception:
            if self._run.attempt >= BACK_UP.most_attempts:
                await self._tell_failed("INTERNAL")
            raise

    async def _claimed(self) -> Claimed:
        tenant, job = self._run.tenant, self._run.job
        async with self._run.step(thaws=self._thaws) as step:
            taken = await backup_acts.take(step.unit, job, self._kind)
            step.move(cursor=None, gains=False)
        if taken is not None:
            return taken
        backup = new_id()
        wrapped, coding = await self._depot.make_key(tenant, backup), str(self._depot.shape.coding)
        async with self._run.step(thaws=self._thaws) as step:
            made = await backup_acts.claim(
                step.unit, job, self._kind, backup=backup, wrapped_key=wrapped, coding=coding
            )
            step.move(cursor=None, gains=False)
        return made

    async def _written(self, claimed: Claimed) -> None:
        depot, tenant = self._depot, self._run.tenant
        await finding.discard(depot.stores, tenant, claimed.id)
        key = await depot.open_key(tenant, claimed.id, claimed.wrapped_key)
        try:
            async with dumping.snapshot(depot.dumps, tenant, depot.revision) as dump:
                manifest = await self._write(claimed, key, dump)
        except BaseException as error:
            if not isinstance(error, asyncio.CancelledError):  # that waits for nothing any more
                with suppress(CofferError):  # the next try does it again
                    await finding.discard(depot.stores, tenant, claimed.id)
            raise
        async with self._run.step(thaws=self._thaws) as step:
            await backup_acts.written(step.unit, claimed.id, _written(manifest))
            rows = sum(manifest.tables.values())
            step.move(cursor=str(claimed.id), done=rows, total=rows)

    async def _write(self, claimed: Claimed, key: bytes, dump: Dump) -> Manifest:
        depot, run = self._depot, self._run
        async with run.step(thaws=self._thaws) as step:
            await backup_acts.snapped(step.unit, claimed.id, dump.taken, dump.dek_versions)
            step.move(cursor=None, done=0, total=dump.total, gains=False)
        about = About(
            tenant=run.tenant,
            backup=claimed.id,
            number=claimed.number,
            previous=claimed.previous,
            created=dump.taken,
            kind=claimed.kind.value,
            key_file=await depot.key_files.publish(run.tenant),
        )
        return await writing.write(
            self._paced(dump),
            about=about,
            key=key,
            stores=depot.stores,
            sign=depot.sign,
            tables=dump.rows,
            shape=depot.shape,
        )

    async def _paced(self, dump: Dump) -> AsyncIterator[bytes]:
        pace = Pace(self._run)
        async for record in dump.records:
            yield record
            await pace(sum(dump.rows.values()), dump.total)

    async def _verified(self, backup: UUID) -> None:
        """By what lies on the stores now. Only then it counts, and older ones may go."""
        found = await check(self._depot, self._run, backup, Depth.CHUNKS, repairs=True)
        if found.is_readable and not found.is_whole:
            raise StoreAway
        async with self._run.step(thaws=self._thaws) as step:
            state = await backup_acts.judged(step.unit, backup, found)
            await step.unit.enqueue(RETIRE_BACKUPS, NoArguments(), once=RETIRE_BACKUPS.name, by_house=True)
            step.finish(result={"state": state, "missing": found.missing, "rotten": found.rotten})

    async def _tell_failed(self, reason: str) -> None:
        if self._backup is not None:
            async with self._run.step(thaws=True) as step:
                await backup_acts.failed(step.unit, self._backup, reason)
                step.move(cursor=self._run.cursor, gains=False)


def _written(manifest: Manifest) -> Written:
    layout = manifest.layout
    objects = sum(layout.object_bytes(layout.span(segment)) for segment in range(layout.segments))
    return Written(
        identity=manifest.identity,
        generation=manifest.generation,
        key_file=manifest.about.key_file,
        coding=str(layout.shape.coding),
        places=manifest.places,
        bytes=objects * layout.shape.coding.shards,
        record_bytes=manifest.record_bytes,
        records=manifest.records,
        tables=manifest.tables,
    )
