"""What a restore would change, without changing anything: every row read, opened, and held against what stands now."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from functools import partial

from domain import restored_holds, restored_pages
from domain.restored_holds import Kept
from domain.restored_pages import Opened, Source
from jobs.backups.threads import in_thread
from jobs.restoring.dumps import Dump
from jobs.restoring.pipelines import made
from jobs.restoring.replacing import Counts, Progress, is_data
from jobs.restoring.seen import Tokens, Uniques
from tenants import erasures
from tenants.backups import loading
from tenants.backups.loading import Row, Target
from tenants.unit import Unit


async def check(unit: Unit, dump: Dump, source: Source, progress: Progress) -> None:
    """Read it all before anything is frozen. Raises what `compare` does."""
    kept, rows = await restored_holds.held(unit), 0
    async with aclosing(_checked(unit, dump, await _of_today(unit, source), kept)) as pages:
        async for opened in pages:
            rows += len(opened.rows) + opened.erased
            await progress(rows)


async def compare(unit: Unit, dump: Dump, source: Source, progress: Progress) -> Counts:
    """By table, rows that would be added, changed, removed, and those that stay as they are; `unit` reads.

    Raises what `replacing.replace_data` does, and `BackupHasDuplicates`.
    """
    source, counts = await _of_today(unit, source), Counts()
    standing = dict.fromkeys((target.name for target in dump.targets), 0)
    kept = await restored_holds.held(unit)
    async with aclosing(_checked(unit, dump, source, kept)) as pages:
        async for opened in pages:
            restored_pages.note(unit, opened.target, restored_pages.count_of(opened))
            standing[opened.target.name] += await _compare(unit, opened, source, counts)
            await progress(counts.rows)
    for target in filter(is_data, dump.targets):
        gone = await loading.count(unit, target) - standing[target.name] - kept.count(target)
        counts.add(target.name, removed=gone, held=kept.count(target))
        counts.gone(target)
    return counts


async def _checked(unit: Unit, dump: Dump, source: Source, kept: Kept) -> AsyncGenerator[Opened]:
    """Each page, and at the end a refusal of what only one may have and more would."""
    uniques = Uniques(await restored_holds.taken(unit))
    async with aclosing(made(dump, partial(_opened, source=source, unit=unit, kept=kept), is_data)) as pages:
        async for opened, tokens in pages:
            uniques.take(opened, tokens)
            yield opened
    await in_thread(uniques.refuse)  # it sorts them all


async def _of_today(unit: Unit, source: Source) -> Source:
    return replace(source, erased=source.erased | await erasures.erased(unit))


async def _compare(unit: Unit, opened: Opened, source: Source, counts: Counts) -> int:
    """How many rows of the page stand in some form."""
    now = await loading.current(unit, opened.target, opened.rows)
    changed = 0
    for number, row in enumerate(opened.rows):
        there = now.get(loading.key_of(opened.target, row))
        changed += there is not None and restored_pages.differs(unit, opened, number, there, source)
    counts.rows += len(opened.rows) + opened.erased
    added, same = len(opened.rows) - len(now), len(now) - changed
    counts.add(opened.target.name, added=added, changed=changed, same=same, erased=opened.erased)
    return len(now)


def _opened(target: Target, rows: list[Row], *, source: Source, unit: Unit, kept: Kept) -> tuple[Opened, Tokens]:
    """What can't be indexed can't be restored."""
    opened = restored_pages.open_page(target, kept.others(target, rows), source)
    return opened, restored_pages.tokens_of_page(opened, unit)
