"""A backup is read: records out, each proven before it is given. Memory is a few chunks, whatever its size."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import TypeVar

from crypto.chunks import Opening
from jobs.backups.errors import BackupBroken
from jobs.backups.manifests import Manifest
from jobs.backups.records import Counts, Unpacking
from jobs.backups.shards import Shards
from jobs.backups.stores import Store
from jobs.backups.threads import in_thread

T = TypeVar("T")
_AHEAD = 2  # chunks fetched before they are asked for


async def read(manifest: Manifest, stores: Sequence[Store], key: bytes) -> AsyncGenerator[bytes]:
    """The records in the order in which they were written.

    Raises `CannotOpen` for a wrong key and `BackupBroken` where too much is lost: before the first record, if whole
    shards are; else in front of the first one that can't be proven. Who restores commits after the last.
    """
    opening = Opening(key, manifest.about.backup, manifest.opening)
    shards = await Shards.located(manifest, stores)
    shards.require()
    layout, unpacking = manifest.layout, Unpacking()

    async def opened(stripe: int) -> bytes:
        sealed = await shards.sealed(stripe)
        return await in_thread(opening.open, stripe, sealed, is_last=layout.is_last(stripe))

    async with aclosing(ahead(opened, range(layout.chunks))) as contents:
        async for content in contents:
            async for record in unpacking.records(content):
                yield record
    if not unpacking.is_between_blocks or unpacking.counts != Counts(manifest.records, manifest.record_bytes):
        raise BackupBroken


async def ahead(make: Callable[[int], Awaitable[T]], numbers: Iterable[int], depth: int = _AHEAD) -> AsyncGenerator[T]:
    """What `make` makes of the numbers, in their order, while the next few are being made."""
    tasks: deque[asyncio.Task[T]] = deque()
    try:
        for number in numbers:
            tasks.append(asyncio.ensure_future(_made(make, number)))
            if len(tasks) > depth:
                yield await tasks.popleft()
        while tasks:
            yield await tasks.popleft()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _made(make: Callable[[int], Awaitable[T]], number: int) -> T:
    return await make(number)
