"""What one process knows of API keys: which were live when it last looked, and when each was used.

Every request asks the database anew whether its key is live, as it enters. The look here comes before that, so that a
made-up key counts as nobody's: it takes from no tenant's limits and learns nothing of the schema.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from contextvars import Context
from datetime import datetime

from sqlalchemy import or_, update
from sqlalchemy.exc import SQLAlchemyError

from crypto.errors import CofferError
from tenants.database import SCOPE, Database
from tenants.entering import Entrance
from tenants.errors import TenantNotReady, TenantSuspended
from tenants.signing_in.api_keys import ApiKey
from tenants.viewers import Credential, TenantId

KNOWN_SECONDS = 900.0  # as long as an access token lasts
EVERY = 60.0  # seconds
_MOST_KNOWN = 10_000
_LOOKS = 2  # at once: guesses leave the pool to those who have a key


class LiveKeys:
    """For one event loop. When keys were used is written every `every` seconds; a crash loses as much."""

    def __init__(self, database: Database, every: float = EVERY, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._every = every
        self._clock = clock
        self._entrance = Entrance()
        self._known: OrderedDict[Credential, float] = OrderedDict()
        self._turn = asyncio.Semaphore(_LOOKS)
        self._used: dict[TenantId, dict[bytes, datetime]] = {}
        self._writer: asyncio.Task[None] | None = None

    async def prove(self, credential: Credential) -> None:
        """Raises `Unauthenticated` for a key that was never made, has ended, or is of a member who is gone."""
        if self._known.get(credential, float("-inf")) > self._clock():
            return
        async with self._turn, self._database.session(write=False) as session:
            try:
                await self._entrance.enter(
                    session, credential.tenant, credential.principal, write=False, key=credential.key
                )
            except (TenantSuspended, TenantNotReady):
                return  # the key is live: its request says what is the matter
        self._known[credential] = self._clock() + KNOWN_SECONDS
        self._known.move_to_end(credential)
        while len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)

    def used(self, credential: Credential, at: datetime) -> None:
        """Note that this credential's key, if it has one, let somebody in."""
        if credential.key is None:
            return
        self._used.setdefault(credential.tenant, {})[credential.key] = at
        if self._writer is None or self._writer.done():
            # In a context of its own: it is part of nobody's visit.
            self._writer = asyncio.create_task(self._write_on(), context=Context())

    async def flush(self) -> None:
        """Write what is due now; what the database does not take, waits for the next time."""
        due, self._used = self._used, {}
        for tenant, keys in due.items():
            try:
                await self._write(tenant, keys)
            except (CofferError, SQLAlchemyError):
                self._used[tenant] = keys | self._used.get(tenant, {})

    async def close(self) -> None:
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.wait([self._writer])
        await self.flush()

    async def _write_on(self) -> None:
        while self._used:
            await asyncio.sleep(self._every)
            await self.flush()

    async def _write(self, tenant: TenantId, keys: dict[bytes, datetime]) -> None:
        async with self._database.session(write=True) as session:
            await session.execute(SCOPE, {"tenant": tenant})
            for key, at in sorted(keys.items()):  # in order, so that two processes don't wait crosswise
                is_news = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < at)
                mine = (ApiKey.tenant_id == tenant, ApiKey.hash == key)
                await session.execute(update(ApiKey).where(*mine, is_news).values(last_used_at=at))
