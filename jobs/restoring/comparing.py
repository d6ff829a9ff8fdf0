"""What a restore would change, without changing anything: every row read, opened, and held against what stands now."""

from contextlib import aclosing
from dataclasses import replace
from functools import partial

from domain import restored_pages
from domain.restored_pages import Kept, Opened, Source
from jobs.restoring.dumps import Dump
from jobs.restoring.pipelines import made
from jobs.restoring.replacing import Counts, Progress, is_data
from tenants import erasures, loading
from tenants.loading import Row, Target
from tenants.unit import Unit


async def compare(unit: Unit, dump: Dump, source: Source, progress: Progress) -> Counts:
    """By table, rows that would be added, changed, removed, and those that stay as they are; `unit` reads.

    Raises what `replacing.replace_data` does.
    """
    source, counts = replace(source, erased=source.erased | await erasures.erased(unit)), Counts()
    standing = dict.fromkeys((target.name for target in dump.targets), 0)
    kept = await restored_pages.held(unit)
    async with aclosing(made(dump, partial(_opened, source=source, unit=unit, kept=kept), is_data)) as pages:
        async for opened in pages:
            restored_pages.note(unit, opened.target, restored_pages.count_of(opened))
            standing[opened.target.name] += await _compare(unit, opened, source, counts)
            await progress(counts.rows)
    for target in filter(is_data, dump.targets):
        gone = await loading.count(unit, target) - standing[target.name] - kept.count(target)
        counts.add(target.name, removed=gone, held=kept.count(target))
        counts.gone(target)
    return counts


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


def _opened(target: Target, rows: list[Row], *, source: Source, unit: Unit, kept: Kept) -> Opened:
    """Tokens are made and let go: what can't be indexed can't be restored."""
    opened = restored_pages.open_page(target, kept.others(target, rows), source)
    restored_pages.tokens_of_page(opened, unit)
    return opened
