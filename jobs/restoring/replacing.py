"""A tenant's data replaced by a backup's, inside of one unit: whoever opened the unit commits all of it, or nothing."""

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial

from domain import restored_holds, restored_pages
from domain.restored_holds import Kept, Taken
from domain.restored_pages import Opened, Page, Source
from jobs.restoring.dumps import Dump
from jobs.restoring.pipelines import made
from jobs.restoring.seen import clashing, refuse
from tenants import erasures
from tenants.backups.loading import Row, Standing, Target
from tenants.owned import Backup
from tenants.unit import Unit

Progress = Callable[[int], Awaitable[None]]


@dataclass(slots=True)
class Counts:
    """By table, as ``customers.written``; names of columns of the backup that are not here any more."""

    said: dict[str, int] = field(default_factory=dict)
    rows: int = 0

    def add(self, table: str, **counts: int) -> None:
        for name, count in counts.items():
            if count:
                key = f"{table}.{name}"
                self.said[key] = self.said.get(key, 0) + count

    def gone(self, target: Target) -> None:
        self.said |= {f"{target.name}.{column}.gone": 1 for column in target.gone}


async def replace_data(unit: Unit, dump: Dump, source: Source, stood: Standing, progress: Progress) -> Counts:
    """DATA alone; customers under a legal hold stay exactly as they are. `stood` tells of what is being replaced.

    Raises `Unrestorable`, `HeldClash`, `BackupBroken`, `StoreAway`: then nothing of it may be committed.
    """
    source = replace(source, erased=source.erased | await erasures.erased(unit))
    kept, taken, counts = await restored_holds.held(unit), await restored_holds.taken(unit), Counts()
    removed = await restored_pages.empty(unit, kept)
    make = partial(_made, source=source, unit=unit, kept=kept, taken=taken)
    async with aclosing(made(dump, make, is_data)) as pages:
        async for page in pages:
            standing = await stood(page.target, page.rows)
            restored_pages.outrun(page.target, page.rows, standing)
            removed[page.target.name] -= len(standing)
            await _write(unit, page, counts)
            await progress(counts.rows)
    for table, count in removed.items():
        counts.add(table, removed=count)
    for target in filter(is_data, dump.targets):
        counts.add(target.name, held=kept.count(target))
        counts.gone(target)
    return counts


async def _write(unit: Unit, page: Page, counts: Counts) -> None:
    loaded, secrets = await restored_pages.write(unit, page)
    counts.rows += len(page.rows) + page.erased
    counts.add(
        page.target.name,
        written=loaded.written,
        cleared=loaded.cleared,
        dropped=loaded.dropped,
        erased=page.erased,
    )
    counts.add("subjects", written=secrets)


def is_data(target: Target) -> bool:
    return target.policy is Backup.DATA


def _made(target: Target, rows: list[Row], *, source: Source, unit: Unit, kept: Kept, taken: Taken) -> Page:
    opened: Opened = restored_pages.open_page(target, kept.others(target, rows), source)
    page = restored_pages.page_of(opened, source, unit)
    refuse(clashing(taken, opened, page.tokens))
    return page
