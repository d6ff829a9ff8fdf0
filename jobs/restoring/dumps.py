"""A dump read again, as `tenants.backups.dumping` describes it: its head, then its rows by page, then its counts."""

from collections.abc import AsyncGenerator, Iterator
from typing import Any

import orjson

from jobs.backups.errors import BackupBroken
from tenants.backups import loading
from tenants.backups.dumping import END, HEAD
from tenants.backups.loading import Row, Target

PAGE = 1_000  # rows that are opened together
_PLAIN_PAGE = 5_000  # of a table that holds nothing sealed


class Dump:
    """Can be read once. Rows are counted by table as they come."""

    def __init__(self, records: AsyncGenerator[bytes]) -> None:
        self.targets: list[Target] = []
        self.counts: dict[str, int] = {}
        self._records = records

    async def begin(self) -> None:
        """Learn which tables there are. Raises `BackupBroken` for what is no dump, `Unrestorable`."""
        head = _record(await anext(self._records, b""), HEAD)
        self.targets = loading.targets(head["tables"])
        self.counts = dict.fromkeys((target.name for target in self.targets), 0)

    async def pages(self) -> AsyncGenerator[tuple[Target, list[Row]]]:
        """In the order of the tables, parents first. Raises `BackupBroken` at the end unless that is all there was."""
        by_name, last = {target.name: (place, target) for place, target in enumerate(self.targets)}, 0
        async for record in self._records:
            name, _, lines = record.partition(b"\n")
            if name == END:
                await self._end(record)
                return
            place, target = by_name.get(name.decode(), (-1, None))
            if target is None or place < last:
                raise BackupBroken
            last = place
            for rows in _pages(lines, PAGE if target.places else _PLAIN_PAGE):
                self.counts[target.name] += len(rows)
                yield target, rows
        raise BackupBroken

    async def close(self) -> None:
        await self._records.aclose()

    async def _end(self, record: bytes) -> None:
        if _record(record, END) != self.counts or await anext(self._records, None) is not None:
            raise BackupBroken


def _pages(lines: bytes, most: int) -> Iterator[list[Row]]:
    try:
        rows = [orjson.loads(line) for line in lines.split(b"\n") if line]
    except ValueError:
        raise BackupBroken from None
    for start in range(0, len(rows), most):
        yield rows[start : start + most]


def _record(record: bytes, kind: bytes) -> dict[str, Any]:
    name, _, said = record.partition(b"\n")
    if name != kind:
        raise BackupBroken
    found: dict[str, Any] = orjson.loads(said)
    return found
