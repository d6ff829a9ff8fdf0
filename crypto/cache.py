"""Keyrings open in memory for a few minutes, least recently used out first, each opened once however many ask."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from uuid import UUID

from crypto.keyring import Keyring

Load = Callable[[], Awaitable[Keyring]]


class KeyringCache:
    """For one event loop. `ttl` in seconds counts from the opening, so a key store that stays away is felt after it.

    `hits`, `misses` and `loads` count what was asked of it since it was made.
    """

    def __init__(self, size: int = 1000, ttl: float = 300.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._size = size
        self._ttl = ttl
        self._clock = clock
        self._open: OrderedDict[UUID, tuple[float, Keyring]] = OrderedDict()
        self._flights: dict[UUID, asyncio.Task[Keyring]] = {}
        self.hits = self.misses = self.loads = 0

    def __len__(self) -> int:
        return len(self._open)

    def peek(self, tenant: UUID) -> Keyring | None:
        """The keyring if one is open and young enough; the caller compares its epoch with the one Postgres tells."""
        entry = self._open.get(tenant)
        if entry is None or entry[0] <= self._clock():
            self._open.pop(tenant, None)
            self.misses += 1
            return None
        self.hits += 1
        self._open.move_to_end(tenant)
        return entry[1]

    async def load(self, tenant: UUID, load: Load) -> Keyring:
        """Open and keep a keyring. All who ask meanwhile share one flight, which goes on if one of them gives up."""
        flight = self._flights.get(tenant)
        if flight is None:
            flight = self._flights[tenant] = asyncio.create_task(self._fly(tenant, load))
            flight.add_done_callback(_observed)
        return await asyncio.shield(flight)

    def drop(self, tenant: UUID) -> None:
        self._open.pop(tenant, None)

    async def _fly(self, tenant: UUID, load: Load) -> Keyring:
        self.loads += 1
        try:
            ring = await load()
            self._open[tenant] = (self._clock() + self._ttl, ring)
            while len(self._open) > self._size:
                self._open.popitem(last=False)
            return ring
        finally:
            del self._flights[tenant]


def _observed(flight: "asyncio.Task[Keyring]") -> None:
    """Callers may all have gone; asyncio would complain of an error that nobody fetched."""
    if not flight.cancelled():
        flight.exception()
