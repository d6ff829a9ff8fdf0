"""The job that restores a backup on trial, into nothing: all read, opened, indexed and held together in memory."""

from collections.abc import Callable
from contextlib import aclosing
from functools import partial
from typing import Any
from uuid import UUID

from crypto.errors import CofferError
from domain import restored_pages, restores
from domain.restored_pages import Opened, Source
from domain.restores import DrillBackup
from jobs.backups.threads import in_thread
from jobs.depots import Depot, Pace
from jobs.handling import Handler, Run
from jobs.restoring.dumps import Dump
from jobs.restoring.pipelines import made
from jobs.restoring.replacing import Counts, Progress
from jobs.restoring.seen import Known, Tokens, Uniques
from jobs.restoring.sources import prove
from tenants.backups.loading import Row, Target
from tenants.errors import BackupsUnavailable
from tenants.jobs import NoArguments
from tenants.unit import Unit
from tenants.units import Units


def drill_by(depot: Depot | None, units: Units | None) -> Handler:
    """Of the newest backup that counts, or of the one that is named."""

    async def drill(run: Run[NoArguments | DrillBackup]) -> None:
        if depot is None or units is None:
            raise BackupsUnavailable
        named = run.arguments.backup if isinstance(run.arguments, DrillBackup) else None
        async with run.step(thaws=True) as step:
            backup = await restores.choose_drill(step.unit, named, run.job)
            if backup is None:
                step.finish(result={"backups": 0})
                return
            step.move(cursor=None)
        try:
            counts = await _drill(depot, units, run, backup)
        except CofferError as error:
            if not error.retryable:
                async with run.step(thaws=True) as step:
                    await restores.drilled(step.unit, backup, error.code, {})
                    step.move(cursor=None)
            raise
        async with run.step(thaws=True) as step:
            await restores.drilled(step.unit, backup, restores.DRILL_OK, counts.said)
            step.finish(result=counts.said, done=counts.rows, total=counts.rows)

    return drill


async def _drill(depot: Depot, units: Units, run: Run[Any], backup: UUID) -> Counts:
    proven = await prove(depot, units, run.tenant, backup)
    pace = Pace(run)

    async def told(rows: int) -> None:
        await pace(rows, proven.rows)

    async with units.enter(run.tenant, None, write=False) as unit, proven.dump() as dump:
        return await try_out(unit, dump, proven.source, told)


async def try_out(
    unit: Unit, dump: Dump, source: Source, progress: Progress, look: Callable[[Opened], None] = lambda _opened: None
) -> Counts:
    """Raises `Unrestorable`, `BackupHasDuplicates` and what reading does, for whatever would keep the backup from being
    restored; and what `look` does, which is shown each page.
    """
    counts, known, uniques = Counts(), Known(dump.targets), Uniques()
    async with aclosing(made(dump, partial(_opened, source=source, unit=unit, known=known))) as pages:
        async for opened, tokens in pages:
            look(opened)
            uniques.take(opened, tokens)
            counts.rows += len(opened.rows) + opened.erased
            made_of = {"opened": restored_pages.count_of(opened), "tokens": len(tokens)}
            counts.add(opened.target.name, read=len(opened.rows), erased=opened.erased, **made_of)
            await progress(counts.rows)
    await in_thread(uniques.refuse)  # it sorts them all
    return counts


def _opened(target: Target, rows: list[Row], *, source: Source, unit: Unit, known: Known) -> tuple[Opened, Tokens]:
    known.take(target, rows)
    opened = restored_pages.open_page(target, rows, source)
    return opened, restored_pages.tokens_of_page(opened, unit)
