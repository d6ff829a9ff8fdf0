"""Opens units: finds the tenant's keyring, enters its transaction as whoever asks, and ends it."""

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from crypto.cache import KeyringCache
from crypto.errors import KeyUnavailable
from crypto.keyring import Keyring
from crypto.keys import Purpose
from crypto.transit import TransitKeys
from telemetry.traces import span
from tenants.database import Database
from tenants.entering import Entrance
from tenants.jobs import JobId
from tenants.keys import find_wrapped, open_keyring
from tenants.origins import UNKNOWN, Origin
from tenants.unit import Unit
from tenants.viewers import MemberId, SessionId, TenantId

if TYPE_CHECKING:
    from tenants.budgets import Budgets

_EPOCH_RACES = 3


class Units:
    """Opens units. `now` is the clock of every unit it opens; `ring` is told of each job once it has committed."""

    def __init__(
        self,
        database: Database,
        keys: TransitKeys,
        cache: KeyringCache,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        ring: Callable[[TenantId, JobId], None] = lambda _tenant, _job: None,
        budgets: "Budgets | None" = None,
        admits: Collection[str] = ("ACTIVE",),
    ) -> None:
        """Without `budgets` no viewer is ever capped: for units that show nobody anything.

        `admits` are the states of tenants that may be entered.
        """
        self.budgets = budgets
        self._database = database
        self._keys = keys
        self._cache = cache
        self._entrance = Entrance(admits)
        self._now = now
        self._ring = ring

    @asynccontextmanager
    async def enter(
        self,
        tenant: TenantId,
        principal: MemberId | None,
        *,
        write: bool,
        origin: Origin = UNKNOWN,
        under: SessionId | None = None,
        key: bytes | None = None,
        fences: bool = False,
        thaws: bool = False,
    ) -> AsyncIterator[Unit]:
        """One transaction of `tenant` as `principal` (None: the house itself).

        `under` and `key` are the session and the API key that the principal was proved by, if any; see `Credential`.

        A unit that `fences` is alone: it waits a little for those that write, and keeps others from it until it ends.
        One that `thaws` writes although the tenant is frozen.

        No connection is held while a cold keyring waits for the key store. Raises `Unauthenticated` for an unknown
        tenant or member, `TenantSuspended`, `TenantNotReady`, `TenantFrozen`, `KeyUnavailable`, `DatabaseUnavailable`,
        and `Conflict` where a fence found writers that did not end.
        """
        for _ in range(_EPOCH_RACES):
            ring = self._cache.peek(tenant)
            if ring is None:
                with span("keys"):
                    ring = await self._cache.load(tenant, lambda: self._open(tenant))
            async with self._database.session(write=write) as session:
                with span("enter", writes=write):
                    state, viewer = await self._entrance.enter(
                        session, tenant, principal, write=write, under=under, key=key, fences=fences, thaws=thaws
                    )
                if state.key_epoch != ring.epoch:
                    self._cache.drop(tenant)
                    continue
                if write:
                    ring.active_version(Purpose.DEK)
                now = self._now()
                is_over = self.budgets is not None and await self.budgets.is_spent(session, state, viewer, now)
                viewer = viewer.capped() if is_over else viewer
                unit = Unit(session, state, viewer, ring, now, origin, is_over_budget=is_over)
                try:
                    yield unit
                    if write:  # what a reading unit witnessed is the recorder's, once the unit has ended
                        await unit.record()
                        if self.budgets is not None:
                            self.budgets.note(unit.recorded)
                finally:
                    await unit.end()
            for job in unit.enqueued:
                self._ring(tenant, job)
            return
        raise KeyUnavailable

    async def _open(self, tenant: TenantId) -> Keyring:
        async with self._database.session(write=False) as session:
            state, _ = await self._entrance.enter(session, tenant, None, write=False)
            wrapped = await find_wrapped(session, tenant)
        return await open_keyring(self._keys, tenant, state.key_epoch, wrapped)
