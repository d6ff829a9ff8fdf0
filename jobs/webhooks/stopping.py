"""Disables an endpoint that nothing can be sent to any more, and has its tenant's administrators told."""

from uuid import UUID

from domain.webhooks import endpoints
from tenants import mails
from tenants.mails import Template
from tenants.units import Units
from tenants.viewers import TenantId
from tenants.webhooks import DisabledWhy


class Stopping:
    def __init__(self, units: Units) -> None:
        self._units = units

    async def stop(self, tenant: TenantId, endpoint: UUID, why: DisabledWhy) -> None:
        """Once, whoever else does it at the same time."""
        async with self._units.enter(tenant, None, write=True) as unit:
            if await endpoints.stop(unit, endpoint, why):
                await mails.tell_administrators(unit, Template.WEBHOOK_DISABLED)

    async def give_up(self, tenant: TenantId, endpoint: UUID) -> None:
        await self.stop(tenant, endpoint, DisabledWhy.FAILED_FOR_DAYS)
