"""Moves tenants' audit chains on: a pass of linking, with the checkpoint that belongs to the turn of a day."""

from contextlib import suppress

from crypto import chain
from crypto.errors import KeyRefused, KeyUnavailable
from crypto.transit import TransitKeys
from tenants.audit import linking
from tenants.audit.checkpoints import Checkpoints
from tenants.audit.linking import MOST, DayTurned, Linked, NoHead
from tenants.audit.store import CheckpointStore
from tenants.keys import find_audit_key, open_audit_key
from tenants.units import Units
from tenants.viewers import TenantId


class AuditChains:
    """For the linking process. It holds no audit key: one is opened for a moment when a tenant's chain begins."""

    def __init__(self, units: Units, keys: TransitKeys, store: CheckpointStore) -> None:
        self._units = units
        self._keys = keys
        self.checkpoints = Checkpoints(units, keys, store)

    async def link(self, tenant: TenantId, most: int = MOST) -> Linked:
        """One pass, at most `most` entries. Raises `ChainBroken`, and what `Units.enter` raises."""
        try:
            return await self._link(tenant, most)
        except NoHead:
            return await self._link(tenant, most, first_key=await self._first_key(tenant))
        except DayTurned:
            with suppress(KeyUnavailable, KeyRefused):  # a later checkpoint vouches for these links as well
                await self.checkpoints.make(tenant, at_once=True)
            return await self._link(tenant, most, turns=True)

    async def _first_key(self, tenant: TenantId) -> bytes:
        async with self._units.enter(tenant, None, write=False) as unit:
            wrapped = await find_audit_key(unit.rows, tenant)
        return chain.first_key(await open_audit_key(self._keys, wrapped), tenant)

    async def _link(
        self, tenant: TenantId, most: int, *, first_key: bytes | None = None, turns: bool = False
    ) -> Linked:
        async with self._units.enter(tenant, None, write=True, thaws=True) as unit:
            return await linking.link(unit, first_key=first_key, turns=turns, most=most)
