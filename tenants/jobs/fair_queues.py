"""A queue before work that few can do at once: bounded, and nobody's many stand before another's one.

Tenants have turns, and so have, within one, those who ask. Imports nothing of ours.
"""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple


class Asking(NamedTuple):
    """`tenant` as it was named: strangers name a slug, whether or not anybody has it, and members an id.

    `one` stands for an address or a member.
    """

    tenant: str
    one: str


HOUSE = Asking("", "")  # commands, and whatever else the house does of itself


class QueueFull(Exception):
    """Nothing was done."""


class FairQueue:
    """For one event loop: `at_once` are in, up to `most` wait, and `of_one` of them for the same one.

    Where all places are taken, the latest of whoever waits for most makes room for who waits for less.
    """

    def __init__(self, at_once: int, *, most: int, of_one: int) -> None:
        self._free, self._most, self._of_one = at_once, most, of_one
        # In the order of their turns.
        self._lines: OrderedDict[str, OrderedDict[str, deque[asyncio.Future[None]]]] = OrderedDict()
        self._tenants: Counter[str] = Counter()  # how many wait
        self._ones: Counter[str] = Counter()

    def refuse_full(self, asking: Asking) -> None:
        """Raises `QueueFull` where `turn` would do so now."""
        if not self._free and (self._ones[asking.one] >= self._of_one or self._is_full_for(asking)):
            raise QueueFull

    @asynccontextmanager
    async def turn(self, asking: Asking) -> AsyncIterator[None]:
        """Raises `QueueFull`, at once or while it waits."""
        await self._wait(asking)
        try:
            yield
        finally:
            self._call_next()

    async def _wait(self, asking: Asking) -> None:
        if self._free:  # so nobody waits
            self._free -= 1
            return
        self.refuse_full(asking)
        if self._waiting >= self._most:
            self._send_away(self._greediest())
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lines.setdefault(asking.tenant, OrderedDict()).setdefault(asking.one, deque()).append(turn)
        self._count(asking, 1)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._leave(asking, turn)
            elif turn.exception() is None:  # its turn came as it went
                self._call_next()
            raise

    def _call_next(self) -> None:
        if not self._lines:
            self._free += 1
            return
        tenant, line = next(iter(self._lines.items()))
        asking = Asking(tenant, next(iter(line)))
        turn = line[asking.one][0]
        # Both go to the end, and may be gone with their last.
        self._lines.move_to_end(tenant)
        line.move_to_end(asking.one)
        self._leave(asking, turn)
        if turn.done():  # cancelled in this very round of the loop: who waited leaves by itself
            self._call_next()
        else:
            turn.set_result(None)

    def _is_full_for(self, asking: Asking) -> bool:
        if self._waiting < self._most:
            return False
        greediest = self._greediest()
        if greediest.tenant == asking.tenant:
            line = self._lines[asking.tenant]
            return len(line[greediest.one]) <= len(line.get(asking.one, ())) + 1
        return self._tenants[greediest.tenant] <= self._tenants[asking.tenant] + 1

    @property
    def _waiting(self) -> int:
        return self._tenants.total()

    def _greediest(self) -> Asking:
        tenant = max(self._lines, key=self._tenants.__getitem__)
        line = self._lines[tenant]
        return Asking(tenant, max(line, key=lambda one: len(line[one])))

    def _send_away(self, asking: Asking) -> None:
        turn = self._lines[asking.tenant][asking.one][-1]
        self._leave(asking, turn)
        if not turn.done():
            turn.set_exception(QueueFull())

    def _leave(self, asking: Asking, turn: asyncio.Future[None]) -> None:
        line = self._lines.get(asking.tenant, OrderedDict())
        if turn not in line.get(asking.one, ()):
            return
        line[asking.one].remove(turn)
        if not line[asking.one]:
            del line[asking.one]
        if not line:
            del self._lines[asking.tenant]
        self._count(asking, -1)

    def _count(self, asking: Asking, more: int) -> None:
        for counts, name in ((self._tenants, asking.tenant), (self._ones, asking.one)):
            counts[name] += more
            if not counts[name]:
                del counts[name]
