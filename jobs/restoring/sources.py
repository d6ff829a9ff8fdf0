"""A backup that may be restored: found, proven against what the database knows of it, and with its keys at hand."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

from crypto.errors import KeyUnavailable
from crypto.keyring import Keyring
from domain.restored_pages import Source
from jobs.backups import finding, reading
from jobs.backups.errors import BackupUnknown, ManifestRefused
from jobs.backups.manifests import SIGNER, Expected, Manifest
from jobs.backups.stores import Store
from jobs.depots import Depot
from jobs.key_files.errors import KeyFileRefused
from jobs.key_files.reading import KeyFile
from jobs.restoring.dumps import Dump
from jobs.restoring.errors import SourceRefused
from jobs.restoring.secrets import Secrets
from tenants import backups, erasures
from tenants.backups import BackupRow, BackupState
from tenants.keys import key_files
from tenants.units import Units
from tenants.viewers import TenantId


@dataclass(frozen=True, slots=True)
class Proven:
    """`source` opens what is read of the backup; `stores` are those that may have a part of it."""

    manifest: Manifest
    key: bytes
    source: Source
    stores: list[Store]

    @property
    def rows(self) -> int:
        return sum(self.manifest.tables.values())

    @asynccontextmanager
    async def dump(self) -> AsyncIterator[Dump]:
        """From its first record on; may be read anew each time."""
        dump = Dump(reading.read(self.manifest, self.stores, self.key))
        try:
            await dump.begin()
            yield dump
        finally:
            await dump.close()


async def prove(depot: Depot, units: Units, tenant: TenantId, backup: UUID) -> Proven:
    """As the database knows it; anew where a repair or another key file took the place of what was read meanwhile.

    Raises `SourceRefused` with what is wrong, `BackupUnknown`, `KeyRefused`; and `StoreAway`, `KeyUnavailable`.
    """
    before: object = None
    while True:
        async with units.enter(tenant, None, write=False) as unit:
            row, erased = await backups.find(unit, backup), await erasures.erased(unit)
            counts = row and (row.identity, row.manifest_generation, await key_files.current(unit))
        if row is None or row.identity is None or row.state in (BackupState.WRITING, BackupState.EXPIRED):
            raise BackupUnknown
        try:
            return await _proven(depot, tenant, row, erased)
        except (ManifestRefused, KeyFileRefused) as error:
            if counts == before:
                raise SourceRefused(error) from error
        before = counts


async def _proven(depot: Depot, tenant: TenantId, row: BackupRow, erased: set[UUID]) -> Proven:
    stores = [*depot.stores, *depot.former(row.places)]
    found = await finding.find(stores, await _public_keys(depot), _expected(row))
    key_file = await depot.key_files.read(tenant, at_least=max(row.key_file, found.manifest.about.key_file))
    source = await _source(key_file, erased)
    return Proven(found.manifest, await key_file.backup_key(row.id), source, stores)


def _expected(row: BackupRow) -> Expected:
    return Expected(
        tenant=row.tenant_id,
        backup=row.id,
        number=row.number,
        generation=row.manifest_generation,
        identity=row.identity,
    )


async def _source(key_file: KeyFile, erased: set[UUID]) -> Source:
    """Whom either ledger names is erased: the key file's may be ahead of a database that was restored."""
    forgotten = frozenset(erased | {row.subject for row in key_file.ledger})
    ring = Keyring(key_file.tenant, 0, await key_file.open_data_keys())
    return Source(key_file.tenant, ring, (await Secrets.of(key_file)).find, forgotten)


async def _public_keys(depot: Depot) -> dict[int, bytes]:
    keys = await depot.keys.public_keys(SIGNER)
    if not keys:
        raise KeyUnavailable
    return keys
