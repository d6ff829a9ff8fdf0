"""What tests of webhooks work at: a tenant of their own, endpoints, and an engine whose clock they turn."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg

from crypto.webhooks import SigningSecret
from domain import customers
from domain.webhooks import endpoints
from domain.webhooks.endpoints import EndpointView, Wanted
from egress import Egress
from jobs.webhooks.engine import Webhooks
from tenants.access import Role
from tenants.budgets import Budgets
from tenants.database import Database
from tenants.ids import any_local_id, new_id
from tenants.tenants import Tenant
from tenants.unit import Unit
from tenants.units import Units
from tenants.webhooks import Payload, relaying
from tests.house import House


class Clock:
    """Stands still unless it is turned, or runs."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)
        self.is_running = False

    def __call__(self) -> datetime:
        if self.is_running:
            self.now = datetime.now(UTC)
        return self.now

    def turn(self, by: timedelta) -> None:
        self.now += by


@dataclass
class PostOffice:
    """`webhooks` is led by hand: `settle` sends all that is due now."""

    house: House
    tenant: Tenant
    superuser: asyncpg.Connection
    webhooks: Webhooks
    clock: Clock
    app: Database
    platform: Database

    async def add(
        self,
        url: str,
        *,
        roles: Iterable[Role] = (Role.MANAGER,),
        own: Iterable[UUID] = (),
        payload: Payload = Payload.THIN,
        types: Iterable[str] = ("customer.*",),
    ) -> tuple[EndpointView, SigningSecret]:
        async with self.writing() as unit:
            wanted = Wanted(
                name="A receiver", url=url, payload=payload, types=list(types), roles=list(roles), own_roles=list(own)
            )
            return await endpoints.create(unit, wanted)

    async def move(self, endpoint: UUID, url: str) -> None:
        """To an address that is allowed from now on."""
        async with self.writing() as unit:
            await endpoints.change(unit, endpoint, 1, Wanted(url=url))
        self.webhooks.sender._egress = Egress(allowed=frozenset({url.split("/")[2]}), total_seconds=10)

    async def customer(self, **fields: Any) -> UUID:
        made = await self.house.create(tenant=self.tenant.slug, **fields)
        found = any_local_id(made["id"])
        assert found is not None
        return found[1]

    async def change(self, customer: UUID, **fields: Any) -> None:
        async with self.writing() as unit:
            view = await customers.get(unit, customer)
            await customers.update(unit, customer, view.row.version, fields)

    def writing(self) -> AbstractAsyncContextManager[Unit]:
        """A unit of the owner's."""
        owner = self.house.members[self.tenant.slug][Role.OWNER]
        return self.house.api.units.enter(owner.tenant, owner.principal, write=True)

    async def horizon(self) -> None:
        """Until all that was committed can be relayed."""
        while (await relaying.newcomers(self.platform, 1 << 62)).is_behind:  # noqa: ASYNC110  # others' work
            await asyncio.sleep(0.01)

    async def relay(self) -> None:
        """Deliveries are there; nobody sends them yet."""
        await self.horizon()
        while (await relaying.relay(self.app, self.tenant.id, self.clock.now)).events:
            pass

    async def settle(self) -> None:
        """Until nothing more of this tenant is due at this moment of the clock."""
        await self.relay()
        for tenant, endpoint in await self.webhooks.ledger.due(self.clock.now):
            if tenant == self.tenant.id:
                self.webhooks.sender.nudge(tenant, endpoint)
        await self.webhooks.sender.idle()

    async def run_out(self, most: int = 200) -> list[datetime]:
        """Turn the clock from one moment at which something is due to the next, until nothing waits; those moments."""
        moments: list[datetime] = []
        await self.settle()
        while (at := await self._next_due()) is not None and len(moments) < most:
            self.clock.now = at
            moments.append(at)
            await self.settle()
        return moments

    async def _next_due(self) -> datetime | None:
        (row,) = await self.rows(
            "SELECT min(d.due_at) AS at FROM webhook_deliveries d"
            " JOIN webhook_endpoints e ON e.id = d.endpoint_id AND e.state = 'ACTIVE'"
            " WHERE d.tenant_id = $1 AND d.state = 'PENDING' AND d.due_at > $2",
            self.clock.now,
        )
        found: datetime | None = row["at"]
        return found

    async def crowd(self, groups: int) -> None:
        """So many times fifty customers."""
        mutation = "mutation($i: [CustomerInput!]!) { createCustomers(input: $i) { created } }"
        for number in range(groups):
            made = [{"givenName": f"Ada {number} {each}"} for each in range(50)]
            await self.house.data(mutation, {"i": made}, tenant=self.tenant.slug)

    async def rows(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        return list(await self.superuser.fetch(statement, self.tenant.id, *arguments))


@asynccontextmanager
async def writer(house: House) -> AsyncIterator[None]:
    """Somebody else's transaction, which wrote and does not end: nothing behind it is relayed."""
    connection = await asyncpg.connect(house.superuser_url)
    try:
        async with connection.transaction():
            await connection.execute("SELECT pg_current_xact_id()")
            yield
    finally:
        await connection.close()


@asynccontextmanager
async def post_office(house: House, *allowed: str, seconds: float = 2, **options: Any) -> AsyncIterator[PostOffice]:
    """In a tenant that nobody else uses; `allowed` are the places of receivers."""
    tenant = await house.add_tenant(f"hooks-{new_id().hex[-12:]}")
    api, clock = house.api, Clock()
    app, platform = Database(api.settings.database_url, pool_size=6), Database(api.settings.platform_database_url)
    units = Units(app, api.keys, api.keyrings, clock, budgets=Budgets())
    egress = options.pop("egress", None) or Egress(
        allowed=frozenset(allowed), connect_seconds=1, total_seconds=seconds, most_bytes=1 << 16
    )
    options = {"chance": lambda: 0.0} | options
    webhooks = Webhooks(units, app, platform, api.recorder, egress, clock=clock, **options)
    superuser = await asyncpg.connect(house.superuser_url)
    try:
        yield PostOffice(house, tenant, superuser, webhooks, clock, app, platform)
    finally:
        await webhooks.sender.close(grace=0)
        for table in ("webhook_endpoints", "webhook_deliveries"):
            await superuser.execute(f"DELETE FROM {table} WHERE tenant_id = $1", tenant.id)
        await superuser.close()
        await app.close()
        await platform.close()
