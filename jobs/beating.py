"""The heart of a leased job: keeps the lease while the work goes on, and ends the work where the lease is lost."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from tenants.errors import Conflict, DatabaseUnavailable, LeaseLost
from tenants.jobs.ledger import Lease, Ledger

BEATS = 3  # per lease


async def beating(ledger: Ledger, lease: Lease, handled: Awaitable[None], is_ending: Callable[[], bool]) -> None:
    """Run the work while the lease is kept; raises what it raises, or `LeaseLost`.

    Where `is_ending` the work's last step is committed or about to be: then the lease is not lost but given up, and
    there is nothing to end the work for.
    """
    work = asyncio.ensure_future(handled)
    heart = asyncio.create_task(_beat(ledger, lease, is_ending))
    try:
        await asyncio.wait({work, heart}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            heart.result()
        await work
    finally:
        await _cancelled(work, heart)


async def _beat(ledger: Ledger, lease: Lease, is_ending: Callable[[], bool]) -> None:
    """Until the lease is lost. While the database is away there is nothing to lose it to."""
    while True:
        await asyncio.sleep(ledger.lease.total_seconds() / BEATS)
        with suppress(DatabaseUnavailable, Conflict):
            try:
                await ledger.beat(lease)
            except LeaseLost:
                if is_ending():
                    return
                raise


async def _cancelled(*tasks: "asyncio.Future[None]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # seen: it was raised already, or came too late to matter
