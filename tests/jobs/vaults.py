"""What a test of backups works at: a tenant of its own with customers, six stores, and the handlers that use them."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from uuid import UUID

import asyncpg

from crypto.transit import TransitKeys
from domain import backup_acts
from domain.backups import (
    BACK_UP,
    CHECK_BACKUPS,
    MAKE_BACKUP,
    REPAIR_BACKUP,
    RETIRE_BACKUPS,
    VERIFY_BACKUP,
    Depth,
    RepairBackup,
    VerifyBackup,
    set_settings,
)
from domain.retention import Retention
from jobs.backing_up import back_up_by
from jobs.backups.codings import Coding
from jobs.backups.finding import Found
from jobs.backups.shapes import Shape
from jobs.backups.stores import Store
from jobs.checking_backups import check_backups_by, repair_backup_by, retire_backups_by, verify_backup_by
from jobs.depots import Depot
from jobs.key_files.files import KeyFiles
from migrations.apply import newest
from settings import AppRole
from tenants.database import Database
from tenants.jobs import JobId, JobKind
from tenants.viewers import TenantId
from tests.house import House
from tests.jobs.desk import Desk

SMALL = Shape(Coding.parse("rs:4+2"), 16 << 10, 4)  # so that few rows have many stripes and segments


@dataclass
class Vaults:
    """`folder(n)` holds store n; a job is run to its end, or as far as it goes, by `run`."""

    desk: Desk
    root: Path
    tenant: TenantId
    depot: Depot
    slug: str
    jobs: list[UUID] = field(default_factory=list)

    @classmethod
    @asynccontextmanager
    async def opened(
        cls, desk: Desk, root: Path, slug: str, *, shape: Shape = SMALL, stores: int = 6
    ) -> AsyncIterator[Self]:
        settings = desk.house.api.settings
        tenant = await desk.house.add_tenant(slug)
        for number in range(stores):
            (root / str(number)).mkdir()
        placed = [Store(f"file://{root / str(number)}") for number in range(stores)]
        assert settings.backup_role is not None
        keys, maker = (_keys(desk.house, role) for role in (settings.api_role, settings.backup_role))
        dumps = Database(settings.database_url, pool_size=2)
        files = KeyFiles(desk.units, keys, maker, placed)
        depot = Depot(
            stores=placed, keys=keys, maker=maker, key_files=files, dumps=dumps, shape=shape, revision=newest()
        )
        try:
            yield cls(desk, root, tenant.id, depot, slug)
        finally:
            await asyncio.gather(dumps.close(), keys.close(), maker.close())

    def use(self, depot: Depot) -> None:
        self.depot = depot

    def folder(self, number: int) -> Path:
        return self.root / str(number)

    def lose(self, number: int) -> None:
        shutil.rmtree(self.folder(number))
        self.folder(number).mkdir()

    def objects(self) -> list[Path]:
        return sorted(path for path in self.root.rglob("*") if path.is_file())

    def shards(self, number: int | None = None) -> list[Path]:
        """Of all backups, on all stores or one."""
        return [
            path
            for path in self.objects()
            if path.name[:2].isdigit()
            and path.name[2] == "-"
            and (number is None or path.is_relative_to(self.folder(number)))
        ]

    async def add_customers(self, count: int, **fields: Any) -> list[dict[str, Any]]:
        made = (self.desk.house.create(tenant=self.slug, givenName=f"Given{n}", **fields) for n in range(count))
        return [await each for each in made]

    async def run(self, kind: JobKind[Any], arguments: Any = None) -> asyncpg.Record:
        """The job as it stands after one turn."""
        job = await self.desk.enqueue(kind, arguments, tenant=self.tenant)
        return await self.again(job)

    async def again(self, job: JobId) -> asyncpg.Record:
        await self.desk.set(job, "due_at = now()")
        self.desk.handlers |= {
            BACK_UP: back_up_by(self.depot),
            MAKE_BACKUP: back_up_by(self.depot),
            CHECK_BACKUPS: check_backups_by(self.depot),
            VERIFY_BACKUP: verify_backup_by(self.depot),
            REPAIR_BACKUP: repair_backup_by(self.depot),
            RETIRE_BACKUPS: retire_backups_by(self.depot),
        }
        await self.desk.handling().handle(self.tenant, job)
        return await self.desk.job(job)

    async def back_up(self) -> asyncpg.Record:
        """The row of a new backup that is verified."""
        job = await self.run(BACK_UP)
        assert job["state"] == "DONE", (job["state"], job["reason"])
        return (await self.rows())[-1]

    async def verify(self, backup: UUID, depth: Depth = Depth.CHUNKS) -> asyncpg.Record:
        job = await self.run(VERIFY_BACKUP, VerifyBackup(backup, depth))
        assert job["state"] == "DONE", (job["state"], job["reason"])
        return await self.row(backup)

    async def repair(self, backup: UUID) -> asyncpg.Record:
        job = await self.run(REPAIR_BACKUP, RepairBackup(backup))
        assert job["state"] == "DONE", (job["state"], job["reason"])
        return await self.row(backup)

    async def found(self, backup: UUID) -> Found:
        async with self.desk.units.enter(self.tenant, None, write=False) as unit:
            live = await backup_acts.find_live(unit, backup)
        assert live is not None
        return await self.depot.find(self.tenant, live)

    async def settle_retention(self, *, daily: int, weekly: int, monthly: int) -> None:
        async with self.desk.units.enter(self.tenant, None, write=True) as unit:
            await set_settings(unit, Retention(daily, weekly, monthly))

    async def row(self, backup: UUID) -> asyncpg.Record:
        return next(row for row in await self.rows() if row["id"] == backup)

    async def rows(self) -> list[asyncpg.Record]:
        query = "SELECT * FROM backups WHERE tenant_id = $1 ORDER BY number"
        return list(await self.desk.superuser.fetch(query, self.tenant))

    async def events(self) -> list[str]:
        query = "SELECT type FROM events WHERE tenant_id = $1 AND type LIKE 'backup.%' ORDER BY at, id"
        return [row["type"] for row in await self.desk.superuser.fetch(query, self.tenant)]


def _keys(house: House, role: AppRole) -> TransitKeys:
    return TransitKeys(house.api.settings.vault_address, role.role_id, role.secret_id)
