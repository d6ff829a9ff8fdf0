"""The turn of a job: how long it may keep a hand while others wait whose right to it is as good or better."""

import time
from collections.abc import Collection

from crypto.errors import CofferError
from tenants.jobs.ledger import Lease, Ledger

TURN = 5.0  # seconds; after that a job keeps its hand only while nobody fairer waits
_LOOK = 1.0  # seconds between two looks at who waits


class Turn:
    """Begins when it is made."""

    def __init__(self, ledger: Ledger, lease: Lease, without: Collection[str], seconds: float = TURN) -> None:
        self._ledger = ledger
        self._lease = lease
        self._without = without
        self._next_look = time.monotonic() + seconds

    async def is_over(self) -> bool:
        """Never raises: a job that can't look goes on."""
        now = time.monotonic()
        if now < self._next_look:
            return False
        self._next_look = now + _LOOK
        try:
            return await self._ledger.has_fairer(self._lease, self._without)
        except CofferError:
            return False
