"""Turns at the database for those who need not be first: so many at once, and of each tenant one at a time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from tenants.viewers import TenantId


class Turns:
    """For one event loop. A tenant that asks for a thousand turns has one of them, and the others come in between."""

    def __init__(self, most: int) -> None:
        self._any = asyncio.Semaphore(most)
        self._own: WeakValueDictionary[TenantId, asyncio.Lock] = WeakValueDictionary()  # of those who are in a queue

    @asynccontextmanager
    async def turn(self, tenant: TenantId) -> AsyncIterator[None]:
        own = self._own.get(tenant)
        if own is None:
            own = self._own[tenant] = asyncio.Lock()
        async with own, self._any:
            yield
