"""The job that restores a backup on trial, into nothing: all read, opened, indexed and held together in memory."""

from array import array
from bisect import bisect_left
from collections.abc import Iterable
from contextlib import aclosing
from functools import partial
from hashlib import blake2b
from typing import Any
from uuid import UUID

from crypto.errors import CofferError
from domain import restored_pages, restores
from domain.restored_pages import Opened, Source
from domain.restores import DrillBackup
from jobs.depots import Depot, Pace
from jobs.handling import Handler, Run
from jobs.restoring.dumps import Dump
from jobs.restoring.pipelines import made
from jobs.restoring.replacing import Counts, Progress
from jobs.restoring.sources import prove
from tenants.errors import BackupsUnavailable, Unrestorable
from tenants.jobs import NoArguments
from tenants.loading import Reference, Row, Target
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


async def try_out(unit: Unit, dump: Dump, source: Source, progress: Progress) -> Counts:
    """Raises `Unrestorable` and what reading does, for whatever would keep the backup from being restored."""
    counts, known = Counts(), Known(dump.targets)
    async with aclosing(made(dump, partial(_opened, source=source, unit=unit, known=known))) as pages:
        async for opened, tokens in pages:
            counts.rows += len(opened.rows) + opened.erased
            name = opened.target.name
            counts.add(
                name, read=len(opened.rows), erased=opened.erased, opened=restored_pages.count_of(opened), tokens=tokens
            )
            await progress(counts.rows)
    return counts


def _opened(target: Target, rows: list[Row], *, source: Source, unit: Unit, known: "Known") -> tuple[Opened, int]:
    known.take(target, rows)
    opened = restored_pages.open_page(target, rows, source)
    return opened, len(restored_pages.tokens_of_page(opened, unit))


class _Seen:
    """Hashes by their first byte, 8 bytes each; no more than one part of 256 is ever anything but an array."""

    def __init__(self) -> None:
        self._parts = [array("Q") for _ in range(256)]
        self._unsorted: set[int] = set()

    def add(self, seen: int) -> None:
        part = seen >> 56
        self._parts[part].append(seen)
        self._unsorted.add(part)

    def __contains__(self, wanted: int) -> bool:
        part = wanted >> 56
        if part in self._unsorted:
            self._parts[part] = array("Q", sorted(self._parts[part]))
            self._unsorted.remove(part)
        seen = self._parts[part]
        at = bisect_left(seen, wanted)
        return at < len(seen) and seen[at] == wanted


class Known:
    """Which rows have been seen, of the tables that others refer to: 8 bytes of a hash each."""

    def __init__(self, targets: Iterable[Target]) -> None:
        self._targets = {target.name for target in targets}
        self._seen: dict[tuple[str, tuple[str, ...]], _Seen] = {}
        for target in targets:
            for each in target.references:
                if each.parent in self._targets:
                    self._seen[each.parent, each.theirs] = _Seen()

    def take(self, target: Target, rows: list[Row]) -> None:
        """Raises `Unrestorable` for a row that refers to what the backup does not have. Parents come first."""
        for (table, columns), seen in self._seen.items():
            if table == target.name:
                for row in rows:
                    seen.add(_hash(row, columns))
        for each in target.references:
            if each.parent in self._targets:
                self._refuse_orphans(target, each, rows)

    def _refuse_orphans(self, target: Target, each: Reference, rows: list[Row]) -> None:
        seen = self._seen[each.parent, each.theirs]
        for row in rows:
            if all(row[column] is not None for column in each.columns) and _hash(row, each.columns) not in seen:
                raise Unrestorable(f"A row of {target.name} refers to a row of {each.parent} that is not there.")


def _hash(row: Row, columns: tuple[str, ...]) -> int:
    named = "\0".join(str(row[column]) for column in columns)
    return int.from_bytes(blake2b(named.encode(), digest_size=8).digest(), "big")
