"""A tenant with an audit chain of its own, for tests: entries, passes of linking, checkpoints, verifying."""

from base64 import b64decode
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
from sqlalchemy import select, update

from crypto import chain
from crypto.cache import KeyringCache
from tenants import inspections
from tenants.audit.chains import AuditChains
from tenants.audit.entries import CONTENT, AuditEntry, content_of
from tenants.audit.store import CheckpointStore
from tenants.audit.tables import AuditHead, AuditLink
from tenants.audit.verify import ChainVerifier, Verdict
from tenants.database import Database
from tenants.origins import Origin
from tenants.units import Units
from tenants.viewers import TenantId
from tests.house import House


@dataclass
class Clock:
    at: datetime = field(default_factory=lambda: datetime.now(UTC))

    def now(self) -> datetime:
        return self.at

    def move(self, **by: float) -> None:
        self.at += timedelta(**by)


@dataclass
class Chained:
    house: House
    tenant: TenantId
    folder: Path
    clock: Clock
    units: Units
    chains: AuditChains
    verifier: ChainVerifier

    async def enter(self, count: int) -> list[UUID]:
        """Write entries, each in a transaction of its own; their ids in the order of the chain to be."""
        made = []
        for number in range(count):
            async with self.units.enter(self.tenant, None, write=True, origin=Origin(f"r{number}", "test")) as unit:
                unit.audit("thing.done", subject_type="Customer", subjects=[uuid4()], fields=["Customer.note"])
                made.append(unit._entries[-1].id)
        return made

    async def link(self, most: int = 1000) -> int:
        """Passes until nothing is left; how many entries they linked."""
        total = 0
        while linked := (await self.chains.link(self.tenant, most)).count:
            total += linked
        return total

    async def verify(self, most: int | None = None) -> Verdict:
        async with inspections.snapshot(self.house.api.database, self.tenant) as read:
            return await self.verifier.verify(self.tenant, read, most)

    async def found(self) -> tuple[str, int] | None:
        broken = (await self.verify()).broken
        return None if broken is None else (broken.kind.value, broken.seq)

    async def key_of_today(self) -> bytes:
        """As somebody has it who took over a linking process."""
        async with self.units.enter(self.tenant, None, write=False) as unit:
            await unit.load_subjects([self.tenant])
            head = (await unit.scalars(select(AuditHead).where(AuditHead.tenant_id == self.tenant)))[0]
            return b64decode(unit.open_row(head, "key", "a test").key)

    async def relink(self, start: int) -> None:
        """Make the links from `start` on anew under today's key, and the head with them, as the superuser."""
        key, mac = await self.key_of_today(), chain.START
        database = Database(self.house.server.url("postgres", self.house.database, scheme="postgresql+asyncpg"))
        mine = (AuditLink.tenant_id == self.tenant) & (AuditEntry.id == AuditLink.entry_id)
        statement = select(AuditLink.seq, AuditLink.day, AuditLink.mac, *CONTENT).where(mine).order_by(AuditLink.seq)
        async with database.connection() as connection:
            for row in (await connection.execute(statement)).all():
                entry = chain.entry_bytes(content_of(row))
                mac = row.mac if row.seq < start else chain.link_mac(key, self.tenant, row.seq, row.day, mac, entry)
                place = (AuditLink.tenant_id == self.tenant) & (AuditLink.seq == row.seq)
                await connection.execute(update(AuditLink).where(place).values(mac=mac))
            await connection.execute(update(AuditHead).where(AuditHead.tenant_id == self.tenant).values(mac=mac))
        await database.close()


async def chained(house: House, folder: Path, store: str | None = None) -> Chained:
    made = await house.provisioning.provision(f"chain-{uuid4().hex[:12]}", "Chain")
    clock = Clock()
    units = Units(house.api.database, house.api.keys, KeyringCache(), now=clock.now)
    place = CheckpointStore(store or f"file://{folder}/second")
    chains = AuditChains(units, house.api.keys, place)
    return Chained(house, made.id, folder, clock, units, chains, ChainVerifier(house.api.keys, place))


async def act(house: House, statement: str, *arguments: object) -> None:
    await fetch(house, statement, *arguments)


async def fetch(house: House, statement: str, *arguments: object) -> list[Any]:
    """As the superuser, whom no row-level security holds back."""
    connection = await asyncpg.connect(house.superuser_url)
    try:
        return list(await connection.fetch(statement, *arguments))
    finally:
        await connection.close()
