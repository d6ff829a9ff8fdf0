"""Looks at who a credential is by now: one every few seconds, shared by all that goes on under that credential."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from contextvars import Context
from functools import partial
from typing import Any

from api.turns import Turns
from tenants.viewers import Credential, Viewer

Look = Callable[[], asyncio.Task[Viewer]]


class Looks:
    """`ask` tells the viewer, or raises where there is none; `every` is in seconds, `most` are asked at once."""

    def __init__(self, ask: Callable[[Credential], Awaitable[Viewer]], every: float, most: int = 1) -> None:
        self._ask, self._every = ask, every
        self._turns = Turns(most)  # its own, so that no burst of events keeps anybody from being looked at
        self._shared: dict[Credential, _Shared] = {}

    @asynccontextmanager
    async def of(self, credential: Credential) -> AsyncIterator[Look]:
        """Gives a function to the look that comes next, which is to be waited for and not cancelled."""
        shared = self._shared.get(credential)
        if shared is None:
            shared = self._shared[credential] = _Shared(partial(self._look, credential))
        shared.users += 1
        try:
            yield shared.next
        finally:
            shared.users -= 1
            if not shared.users:
                del self._shared[credential]
                await leave(shared.task)

    async def _look(self, credential: Credential) -> Viewer:
        await asyncio.sleep(self._every)
        async with self._turns.turn(credential.tenant):
            return await self._ask(credential)


class _Shared:
    def __init__(self, look: Callable[[], Coroutine[Any, Any, Viewer]]) -> None:
        self.users = 0
        self.task: asyncio.Task[Viewer] | None = None
        self._look = look

    def next(self) -> asyncio.Task[Viewer]:
        if self.task is None or self.task.done():
            # In a context of its own: it is part of nobody's visit.
            self.task = asyncio.create_task(self._look(), context=Context())
        return self.task


async def leave(task: "asyncio.Future[Any] | None") -> None:
    """Cancel what nobody waits for any more, and let it end; what it raised is nobody's concern."""
    if task is None:
        return
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()
