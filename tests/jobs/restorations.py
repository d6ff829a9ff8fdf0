"""A tenant that is backed up and restored in a test, and its data as they are to whoever may read all of them."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import asyncpg
from sqlalchemy import select

from domain import customers, holds, tags
from domain.customers.fields import DOCUMENTS, FIELDS
from domain.customers.rows import Customer, CustomerToken
from domain.customers.tokens import tokens_of
from domain.restores import DRILL, DRILL_BACKUP, RESTORE, DrillBackup, Restore
from jobs.handling import Handling
from jobs.restoring.drilling import drill_by
from jobs.restoring.restoring import restore_by
from jobs.rotations.bik import rotate_bik_by
from jobs.rotations.dek import rotate_dek_by
from tenants.jobs import JobId, JobKind, JobState
from tenants.keys import rotating
from tenants.keys.rotating import ROTATE
from tenants.keys.rotations import Cause, KeyPurpose
from tenants.unit import Unit
from tenants.units import Units
from tests.jobs.data_keys import Cutting
from tests.jobs.vaults import Vaults

WHY = "to look whether it is as it was"
_CLEAR = "(to_jsonb(c) - 'profile' - 'guarded' - 'note' - 'external_id')::text"


@dataclass
class Restorations:
    vaults: Vaults

    @property
    def units(self) -> Units:
        return self.vaults.desk.units

    @property
    def superuser(self) -> asyncpg.Connection:
        return self.vaults.desk.superuser

    async def fill(self, count: int, *, notes: str = "0") -> list[UUID]:
        """Customers with all four documents; every other one has a tag."""
        people: list[dict[str, Any]] = [
            {
                "given_name": f"Ada{n}",
                "family_name": "Lovelace",
                "emails": [f"ada{n}@example.org", f"{uuid4().hex}@example.org"],
                "government_id": f"12-{n:05}",
                "note": notes,
                "external_id": uuid4().hex,
            }
            for n in range(count)
        ]
        async with self.units.enter(self.vaults.tenant, None, write=True) as unit:
            tag = await tags.create(unit, f"Tag {uuid4()}")
            for n, each in enumerate(people):
                each |= {"tag_ids": [tag.id]} if n % 2 else {}
            return [made.id for made in await customers.create_many(unit, people)]  # type: ignore[union-attr]  # none is refused

    async def picture(self, *, versions: bool = True) -> dict[str, Any]:
        """All data in plain, row for row, and whether the index has exactly the tokens of the values."""
        clear = _CLEAR if versions else f"({_CLEAR}::jsonb - 'version')::text"
        tenant = self.vaults.tenant
        async with self.units.enter(tenant, None, write=False) as unit:
            rows = await unit.scalars(select(Customer).where(Customer.tenant_id == tenant))
            await unit.load_subjects([row.id for row in rows])
            people = {row.id: self._documents(unit, row) for row in rows}
            wanted = {
                (token["index"], token["token"], token["customer_id"], token["bik_version"])
                for customer, documents in people.items()
                for token in tokens_of(unit, customer, FIELDS, documents)
            }
            there = await unit.rows(select(*_token_columns()).where(CustomerToken.tenant_id == tenant))
        assert {(row.index, bytes(row.token), row.customer_id, row.bik_version) for row in there} == wanted
        return {
            "customers": {str(customer): documents for customer, documents in people.items()},
            "clear": await self._texts(f"SELECT {clear} FROM customers c WHERE tenant_id = $1 ORDER BY id"),
            "tags": await self._texts("SELECT id::text || created_at FROM tags WHERE tenant_id = $1 ORDER BY id"),
            "tagged": await self._texts(
                "SELECT customer_id || ' ' || tag_id FROM customer_tags WHERE tenant_id = $1 ORDER BY 1"
            ),
        }

    @staticmethod
    def _documents(unit: Unit, row: Customer) -> dict[str, Any]:
        return {name: unit.open_row(row, name, WHY) or DOCUMENTS[name]() for name in DOCUMENTS}

    async def _texts(self, query: str) -> list[str]:
        return [row[0] for row in await self.superuser.fetch(query, self.vaults.tenant)]

    async def version(self, customer: UUID) -> int | None:
        found: int | None = await self.superuser.fetchval("SELECT version FROM customers WHERE id = $1", customer)
        return found

    async def change(self, ids: list[UUID], **sent: Any) -> None:
        for customer in ids:
            version = await self.version(customer)
            assert version is not None
            async with self.units.enter(self.vaults.tenant, None, write=True) as unit:
                await customers.update(unit, customer, version, sent)

    async def hold(self, customer: UUID) -> UUID:
        async with self.units.enter(self.vaults.tenant, None, write=True) as unit:
            return (await holds.place(unit, customer, "a lawsuit", None)).row.id

    async def restore(self, backup: UUID, *, units: Units | None = None, **options: Any) -> asyncpg.Record:
        """The job as it stands after one turn of a worker, which may be cut off."""
        wanted = Restore(backup, **({"dry_run": False} | options))
        return await self.again(await self.vaults.desk.enqueue(RESTORE, wanted, tenant=self.vaults.tenant), units)

    async def drill(self, backup: UUID | None = None) -> asyncpg.Record:
        kind, arguments = (DRILL, None) if backup is None else (DRILL_BACKUP, DrillBackup(backup))
        return await self.again(await self.vaults.desk.enqueue(kind, arguments, tenant=self.vaults.tenant))

    async def again(self, job: UUID, units: Units | None = None) -> asyncpg.Record:
        desk, depot = self.vaults.desk, self.vaults.depot
        entered = units or self.units
        handlers: dict[JobKind[Any], Any] = {
            RESTORE: restore_by(depot, entered),
            DRILL: drill_by(depot, entered),
            DRILL_BACKUP: drill_by(depot, entered),
        }
        await desk.set(job, "due_at = now()")
        handling = Handling(entered, desk.ledger, handlers)
        leading = asyncio.create_task(handling.handle(self.vaults.tenant, JobId(job)))
        if isinstance(units, Cutting):
            units.work = leading
        await asyncio.wait([leading])
        return await desk.job(job)

    async def rotate(self, purpose: KeyPurpose) -> None:
        house = self.vaults.desk.house
        async with self.units.enter(self.vaults.tenant, None, write=True) as unit:
            rotation = await rotating.begin(unit, purpose, Cause.ASKED)
            job = (await rotating.find(unit, rotation)).job_id
        keys, maker = house.api.keys, house.provisioning._maker
        handlers = {
            ROTATE[KeyPurpose.DEK]: rotate_dek_by(keys, maker),
            ROTATE[KeyPurpose.BIK]: rotate_bik_by(keys, maker),
        }
        handling = Handling(self.units, self.vaults.desk.ledger, handlers)
        assert job is not None
        for _ in range(100):
            await self.vaults.desk.set(job, "due_at = now()")
            await handling.handle(self.vaults.tenant, job)  # type: ignore[arg-type]  # a job's id
            ended = await self.vaults.desk.job(job)
            if ended["state"] != JobState.READY:
                break
        assert ended["state"] == JobState.DONE, ended["reason"]

    async def frozen(self) -> str | None:
        found: str | None = await self.superuser.fetchval(
            "SELECT frozen FROM tenants WHERE id = $1", self.vaults.tenant
        )
        return found

    async def epoch(self) -> int:
        """Each freeze moves it on."""
        query = "SELECT key_epoch FROM tenants WHERE id = $1"
        return int(await self.superuser.fetchval(query, self.vaults.tenant))


def result(job: asyncpg.Record) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(job["result"])
    return found


def _token_columns() -> tuple[Any, ...]:
    return CustomerToken.index, CustomerToken.token, CustomerToken.customer_id, CustomerToken.bik_version
