"""What the jobs of backups work with: the stores, the keys, and the roles that may use them."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from crypto.errors import KeyUnavailable
from crypto.transit import TransitKeys
from domain.backup_acts import Live
from jobs.backups import finding
from jobs.backups.errors import BackupUnknown
from jobs.backups.finding import Found
from jobs.backups.manifests import SIGNER, Expected
from jobs.backups.shapes import Shape
from jobs.backups.stores import Store
from jobs.handling import Run
from jobs.key_files.contexts import backup_key_context
from jobs.key_files.files import KeyFiles
from tenants.database import Database
from tenants.viewers import TenantId

_PACE = 2.0  # seconds between two tellings of how far a step is


@dataclass(frozen=True, slots=True, kw_only=True)
class Depot:
    """`keys` may decrypt, `maker` may make keys of backups and sign; `dumps` reads, apart from what steps need.

    `revision` is the database's.
    """

    stores: Sequence[Store]
    keys: TransitKeys
    maker: TransitKeys
    key_files: KeyFiles
    dumps: Database
    shape: Shape
    revision: str

    async def make_key(self, tenant: UUID, backup: UUID) -> str:
        """As ``vault:vN:…``."""
        return await self.maker.make_data_key(tenant, backup_key_context(tenant, backup))

    async def open_key(self, tenant: UUID, backup: UUID, wrapped: str) -> bytes:
        """32 bytes. Raises `KeyUnavailable`, `KeyRefused`."""
        (key,) = await self.keys.unwrap(tenant, [(wrapped, backup_key_context(tenant, backup))])
        return key

    async def sign(self, message: bytes) -> tuple[int, bytes]:
        return await self.maker.sign(SIGNER, message)

    async def find(self, tenant: TenantId, backup: Live) -> Found:
        """Also on stores that are configured no longer. Raises `BackupUnknown`, `ManifestRefused`, `StoreAway`."""
        if backup.identity is None:
            raise BackupUnknown
        expected = Expected(tenant=tenant, backup=backup.id, generation=backup.generation, identity=backup.identity)
        public_keys = await self.keys.public_keys(SIGNER)
        if not public_keys:
            raise KeyUnavailable
        return await finding.find([*self.stores, *self.former(backup.places)], public_keys, expected)

    def former(self, places: Sequence[str]) -> list[Store]:
        """The stores among these URLs that are configured no longer."""
        now = {store.url for store in self.stores}
        return [Store(url) for url in dict.fromkeys(places) if url not in now]


class Pace:
    """Tells of a run how far its long step is, every few seconds; raises where the job is asked to end."""

    def __init__(self, run: Run[Any]) -> None:
        self._run = run
        self._told = time.monotonic()

    async def __call__(self, done: int, of: int | None = None) -> None:
        if time.monotonic() - self._told >= _PACE:
            self._told = time.monotonic()
            await self._run.show(done=done, total=of)
