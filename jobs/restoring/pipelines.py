"""Pages of a dump made ready by threads while the ones before are being written."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TypeVar

from jobs.backups.threads import in_thread
from jobs.restoring.dumps import Dump
from tenants.backups.loading import Row, Target

T = TypeVar("T")


async def made(
    dump: Dump, make: Callable[[Target, list[Row]], T], wanted: Callable[[Target], bool] = lambda _target: True
) -> AsyncGenerator[T]:
    """What `make` makes of each page of the wanted tables, in order; one is being made ahead."""
    ahead: asyncio.Task[T] | None = None
    try:
        async with aclosing(dump.pages()) as pages:
            async for target, rows in pages:
                if not wanted(target):
                    continue
                before, ahead = ahead, asyncio.create_task(in_thread(make, target, rows))
                if before is not None:
                    yield await before
        if ahead is not None:
            yield await ahead
    finally:
        if ahead is not None:
            ahead.cancel()
            await asyncio.gather(ahead, return_exceptions=True)
