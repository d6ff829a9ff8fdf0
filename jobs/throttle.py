"""Keeps long work from slowing others down: while the database is slow, at most half of the time is spent working."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from jobs.handling import Run

SLOWER = 2.0  # times the usual: from there on the database counts as busy
CEILING = 0.1  # seconds: whatever is usual, a probe that takes as long tells of a busy one
_LEAST = 0.02  # seconds: what differs below that is noise
_LONGEST = 5.0  # seconds of one rest
_APART = 0.25  # seconds between two probes
_ADAPTS = 0.002  # share of a probe in what counts as usual: hundreds of slow ones make slowness usual, to the ceiling


class Throttle:
    """Measure each step with `measured`, call `rest` behind it, outside of any transaction.

    How busy the database is, a `probe` tells: a small transaction, the same each time, however much a step did. Usual
    is what the quickest took, and drifts slowly.
    """

    def __init__(self, probe: Callable[[], Awaitable[None]]) -> None:
        self._probe = probe
        self._usual: float | None = None
        self._last = 0.0
        self._step = 0.0
        self._probed_at: float | None = None

    @contextmanager
    def measured(self) -> Iterator[None]:
        begun = time.monotonic()
        yield
        self._step = time.monotonic() - begun

    async def rest(self) -> None:
        """As long as the last step took, if the database is slow; else not at all."""
        begun = time.monotonic()
        if self._probed_at is None or begun - self._probed_at >= _APART:
            await self._probe()
            self._probed_at = time.monotonic()
            self._note(self._probed_at - begun)
        if self.owed:
            await asyncio.sleep(self.owed)

    @property
    def owed(self) -> float:
        """Seconds."""
        return min(self._step, _LONGEST) if self._last > self._busy_from else 0.0

    @property
    def _busy_from(self) -> float:
        usual = self._last if self._usual is None else self._usual
        return min(CEILING, max(_LEAST, usual * SLOWER))

    def _note(self, seconds: float) -> None:
        self._last = seconds
        usual = seconds if self._usual is None else self._usual
        self._usual = min(seconds, usual + (seconds - usual) * _ADAPTS)


def throttle_of(run: Run[Any]) -> Throttle:
    """Its probe enters the tenant to read, and looks at nothing."""

    async def probe() -> None:
        async with run.looking():
            pass

    return Throttle(probe)
