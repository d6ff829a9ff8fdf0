"""A tenant whose data key turns over in a test, the job that does it, and what must hold of its rows."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from crypto.cache import KeyringCache
from domain import customers
from domain.customers.fields import DOCUMENTS
from jobs.handling import Handling
from jobs.rotations.dek import rotate_dek_by
from tenants.jobs import JobId, JobState
from tenants.jobs.ledger import Ledger
from tenants.keys import rotating
from tenants.keys.rotating import ROTATE
from tenants.keys.rotations import Cause, KeyPurpose, Rotation
from tenants.unit import Unit
from tenants.units import Units
from tenants.viewers import TenantId
from tests.house import House

DEK = KeyPurpose.DEK
WHY = "to look whether it opens"
# A row of customers but its sealed columns, as text.
CLEAR = "(to_jsonb(c) - 'profile' - 'guarded' - 'note' - 'external_id')::text"


class Cutting(Units):
    """Units of a worker that is cut off in the unit of number `at`: before it, within it, or right after its commit."""

    at: int | None = None
    where = "within"
    entered = 0
    work: "asyncio.Task[bool] | None" = None

    @asynccontextmanager
    async def enter(self, *arguments: Any, **options: Any) -> AsyncIterator[Unit]:
        self.entered += 1
        where = self.where if self.entered == self.at else ""
        await self._cut(where == "before")
        async with super().enter(*arguments, **options) as unit:
            yield unit
            await self._cut(where == "within")
        await self._cut(where == "after")

    async def _cut(self, is_here: bool) -> None:
        if is_here:
            assert self.work is not None
            self.work.cancel()
            await asyncio.Event().wait()


@dataclass
class Scene:
    house: House
    superuser: asyncpg.Pool
    ledger: Ledger
    tenant: TenantId

    @classmethod
    async def made(cls, house: House, superuser: asyncpg.Pool) -> "Scene":
        """With a tenant of its own."""
        tenant = await house.provisioning.provision(f"dek-{uuid4().hex[:12]}", "Turned")
        return cls(house, superuser, Ledger(house.api.database, house.api.platform, "scene"), tenant.id)

    @property
    def units(self) -> Units:
        return self.house.api.units

    def fresh_units(self) -> Cutting:
        """Of a process that has no key open yet."""
        return Cutting(self.house.api.database, self.house.api.keys, KeyringCache())

    async def fill(self, count: int) -> list[UUID]:
        people = [
            {
                "given_name": f"Ada{n}",
                "family_name": "Lovelace",
                "emails": [f"ada{n}@example.org"],
                "government_id": f"12-{n:05}",
                "note": "0",
                "external_id": uuid4().hex,
            }
            for n in range(count)
        ]
        async with self.units.enter(self.tenant, None, write=True) as unit:
            return [made.id for made in await customers.create_many(unit, people)]  # type: ignore[union-attr]  # none is refused

    async def begin(self) -> tuple[UUID, JobId]:
        """The rotation and its job."""
        async with self.units.enter(self.tenant, None, write=True) as unit:
            rotation = await rotating.begin(unit, DEK, Cause.ASKED)
            job = (await rotating.find(unit, rotation)).job_id
            assert job is not None
            return rotation, JobId(job)

    async def lead(self, job: UUID, units: Units | None = None) -> str:
        """The job's state after one try of a worker, which may be cut off."""
        await self.superuser.execute("UPDATE jobs SET due_at = now() WHERE id = $1", job)
        handler = rotate_dek_by(self.house.api.keys, self.house.provisioning._maker)
        handling = Handling(units or self.units, self.ledger, {ROTATE[DEK]: handler})
        leading = asyncio.create_task(handling.handle(self.tenant, JobId(job)))
        if isinstance(units, Cutting):
            units.work = leading
        await asyncio.wait([leading])
        assert leading.cancelled() or leading.result()
        return await self.state(job)

    async def state(self, job: UUID) -> str:
        return str(await self.superuser.fetchval("SELECT state FROM jobs WHERE id = $1", job))

    async def reason(self, job: UUID) -> str | None:
        found: str | None = await self.superuser.fetchval("SELECT reason FROM jobs WHERE id = $1", job)
        return found

    async def rotate(self) -> Rotation:
        rotation, job = await self.begin()
        assert await self.lead(job) == JobState.DONE, await self.reason(job)
        return await self.rotation(rotation)

    async def rotation(self, rotation: UUID) -> Rotation:
        async with self.units.enter(self.tenant, None, write=False) as unit:
            return await rotating.find(unit, rotation)

    async def keys(self) -> dict[int, str]:
        """States of the data keys by version."""
        rows = await self.superuser.fetch(
            "SELECT version, state FROM data_keys WHERE tenant_id = $1 AND purpose = 'DEK'", self.tenant
        )
        return {row["version"]: row["state"] for row in rows}

    async def versions(self) -> set[int]:
        """By which data keys the customers' columns are sealed."""
        found: set[int] = set()
        for column in DOCUMENTS:
            rows = await self.superuser.fetch(
                f"SELECT DISTINCT substring({column} FROM 3 FOR 4) AS v FROM customers"  # names of ours
                f" WHERE tenant_id = $1 AND {column} IS NOT NULL",
                self.tenant,
            )
            found |= {int.from_bytes(row["v"], "big") for row in rows}
        return found

    async def clear(self) -> list[str]:
        rows = await self.superuser.fetch(
            f"SELECT {CLEAR} AS row FROM customers c WHERE tenant_id = $1 ORDER BY id",
            self.tenant,
        )
        return [row["row"] for row in rows]

    async def told(self, action: str) -> list[Mapping[str, Any]]:
        """The details of the tenant's audit entries of that action."""
        rows = await self.superuser.fetch(
            "SELECT details::text FROM audit_entries WHERE tenant_id = $1 AND action = $2 ORDER BY at, id",
            self.tenant,
            action,
        )
        return [json.loads(row["details"]) for row in rows]

    async def notes(self, ids: list[UUID], units: Units | None = None) -> list[str | None]:
        """After all four documents of each were opened; raises where one does not open."""
        async with (units or self.fresh_units()).enter(self.tenant, None, write=False) as unit:
            notes = []
            for view in await customers.get_many(unit, ids):
                assert view is not None
                assert all(view.document(column, WHY) is not None for column in DOCUMENTS)
                notes.append(view.document("note", WHY).note)  # type: ignore[union-attr]  # just asserted
            return notes
