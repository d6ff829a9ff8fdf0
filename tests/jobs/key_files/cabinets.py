"""One tenant with its key files on six folders, and what a test does to both."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from uuid import UUID

import asyncpg

from crypto.transit import TransitKeys
from jobs.backups.stores import Store
from jobs.key_files.contexts import backup_key_context
from jobs.key_files.files import KeyFiles
from settings import AppRole
from tenants import erasures
from tenants.erasures import ErasureCause
from tenants.ids import new_id
from tenants.tenants import Tenant
from tenants.unit import Unit
from tenants.viewers import TenantId
from tests.house import House


def keys_of(house: House, role: AppRole | None) -> TransitKeys:
    assert role is not None
    return TransitKeys(house.api.settings.vault_address, role.role_id, role.secret_id)


@dataclass
class Cabinet:
    house: House
    root: Path
    tenant: TenantId
    superuser: asyncpg.Connection
    backup_keys: TransitKeys
    stores: list[Store] = field(default_factory=list)

    @classmethod
    async def made(cls, house: House, root: Path) -> Self:
        made: Tenant = await house.provisioning.provision(f"keys-{new_id().hex[-12:]}", "Keys", region="US")
        connection = await asyncpg.connect(house.superuser_url)
        cabinet = cls(house, root, made.id, connection, keys_of(house, house.api.settings.backup_role))
        cabinet.stores = [cabinet.new_store(str(number)) for number in range(6)]
        return cabinet

    async def close(self) -> None:
        await self.backup_keys.close()
        await self.superuser.close()

    def new_store(self, name: str) -> Store:
        (self.root / name).mkdir(parents=True, exist_ok=True)
        return Store(f"file://{self.root / name}")

    @property
    def key_files(self) -> KeyFiles:
        return self.made_of(*self.stores)

    def made_of(self, *stores: Store, patience: float = 10) -> KeyFiles:
        api = self.house.api
        return KeyFiles(api.units, api.keys, self.backup_keys, stores, patience=patience)

    async def publish(self) -> int:
        return await self.key_files.publish(self.tenant)

    async def add_subjects(self, count: int) -> list[UUID]:
        """Of nobody: ids and secrets at random."""
        rows = await self.superuser.fetch(
            "INSERT INTO subjects (tenant_id, id, secret, created_at)"
            " SELECT $1, gen_random_uuid(), sha256(gen_random_uuid()::text::bytea), now() FROM generate_series(1, $2)"
            " RETURNING id",
            self.tenant,
            count,
        )
        return [UUID(bytes=row["id"].bytes) for row in rows]

    async def secrets(self) -> dict[UUID, bytes]:
        """As Postgres has them."""
        rows = await self.superuser.fetch("SELECT id, secret FROM subjects WHERE tenant_id = $1", self.tenant)
        return {UUID(bytes=row["id"].bytes): row["secret"] for row in rows}

    async def add_backup(self, number: int, *, dek_versions: tuple[int, ...] = (1,)) -> tuple[UUID, bytes]:
        """A backup of which only the row is there: its id and key."""
        backup = new_id()
        context = backup_key_context(self.tenant, backup)
        wrapped = await self.backup_keys.make_data_key(self.tenant, context)
        (key,) = await self.house.api.keys.unwrap(self.tenant, [(wrapped, context)])
        await self.superuser.execute(
            "INSERT INTO backups (tenant_id, id, number, kind, state, created_at, coding, dek_versions, wrapped_key)"
            " VALUES ($1, $2, $3, 'ASKED', 'VERIFIED', now(), 'rs:4+2', $4, $5)",
            self.tenant,
            backup,
            number,
            list(dek_versions),
            wrapped,
        )
        return backup, key

    async def erase(self, subject: UUID) -> None:
        async with self.house.api.units.enter(self.tenant, None, write=True) as unit:
            await erase(unit, subject)

    async def rows(self) -> dict[int, str]:
        rows = await self.superuser.fetch("SELECT generation, state FROM key_files WHERE tenant_id = $1", self.tenant)
        return {row["generation"]: row["state"] for row in rows}

    def path(self, store: int, generation: int) -> Path:
        return self.root / str(store) / str(self.tenant) / "keys" / f"{generation:08}.coffer"

    def names(self) -> list[set[str]]:
        """What lies in each store's folder of key files, half-written files as well."""
        folders = [self.root / store.url.rpartition("/")[2] / str(self.tenant) / "keys" for store in self.stores]
        return [{path.name for path in folder.iterdir()} if folder.exists() else set() for folder in folders]

    def unmount(self, *numbers: int) -> None:
        for number in numbers:
            (self.root / str(number)).rename(self.root / f"away-{number}")

    def mount(self, *numbers: int) -> None:
        for number in numbers:
            (self.root / f"away-{number}").rename(self.root / str(number))


async def erase(unit: Unit, subject: UUID) -> None:
    await erasures.forget(unit, [subject])
    await erasures.enter(unit, subject, ErasureCause.REQUEST, None, {})


def only(generation: int) -> list[set[str]]:
    return [{f"{generation:08}.coffer"}] * 6
