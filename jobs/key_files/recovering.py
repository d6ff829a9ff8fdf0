"""A tenant of an installation that came back from copies is brought forward by the newest key file on the stores."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from crypto.errors import KeyRefused
from crypto.keys import WrappedKey, unlock, wrapping_context
from crypto.transit import TransitKeys
from jobs.backups import finding
from jobs.backups.errors import BackupUnknown, ManifestRefused
from jobs.backups.manifests import SIGNER, Expected, Manifest
from jobs.key_files.errors import KeyFileRefused, KeyFileUnknown, Refusal
from jobs.key_files.files import KeyFiles
from jobs.key_files.reading import KeyFile
from tenants import erasures
from tenants.backups import BackupState, LiveBackup
from tenants.database import Database
from tenants.keys import recovered_keys, recovering
from tenants.keys.recovered_keys import Settled
from tenants.keys.recovering import Ended, Past
from tenants.units import Units
from tenants.viewers import TenantId


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """`found` is the generation that the stores had, None without any; `generation` the one they have now.

    `erased` are erasures that the database lacked; `lost` are backups of which no store has a manifest. `lost_keys`
    are keys as "DEK 1" that are gone: what they sealed, or indexed, is in `restore`, the newest backup there is.
    """

    found: int | None
    generation: int
    data_keys: int
    erased: int
    backups: Sequence[UUID]
    lost: Sequence[UUID]
    lost_keys: Sequence[str]
    restore: LiveBackup | None
    ended: Ended


class Recovering:
    """`app` is the serving role's database, `keys` may decrypt."""

    def __init__(self, units: Units, app: Database, keys: TransitKeys, files: KeyFiles) -> None:
        self._units = units
        self._app = app
        self._keys = keys
        self._files = files

    async def recover(self, tenant: TenantId, *, api_keys: bool = True, needs_file: bool = True) -> Recovered:
        """Nobody else may work for the tenant meanwhile. May be repeated; cut off anywhere, it must be.

        Without `api_keys` those that live in the copy live on. Raises `KeyFileUnknown` where the copy knows of a key
        file and no store has one, and `KeyFileRefused`, OLD, where it knows of a newer one than they have, if it
        `needs_file`: the tenant may have left, or the stores are lost. Raises `StoreAway` unless every store answers,
        `LedgerBroken`, `RecoveryRefused`, `KeyRefused`, and what entering and publishing raise.
        """
        file = await self._file(tenant, needs_file=needs_file)
        settled = await self._settled(tenant, file) if file is not None else Settled((), (), 0)
        data_keys = await recovered_keys.write(self._app, tenant, settled.keys)
        missing, lost = await self._missing(tenant, file) if file is not None else ({}, [])
        async with self._units.enter(tenant, None, write=True, fences=True, thaws=True) as unit:
            rows = list(missing.values())
            is_newer = file is not None and not await recovering.is_current(unit, _past(file, settled))
            erased = await recovering.bring_forward(unit, _past(file, settled), rows) if file is not None else 0
            if file is not None and is_newer:
                gone = await erasures.erased(unit)
                async for secrets in file.buckets():
                    await recovering.take_secrets(unit, secrets, gone)
            ended = await recovering.end_all(unit, api_keys=api_keys, lost_keys=len(settled.lost))
        generation = await self._files.publish(tenant)
        whole = [each for each in file.backups if each.id not in lost] if file is not None else []
        return Recovered(
            found=None if file is None else file.generation,
            generation=generation,
            data_keys=data_keys,
            erased=erased,
            backups=list(missing),
            lost=lost,
            lost_keys=sorted(f"{key.purpose} {key.version}" for key in settled.lost),
            restore=max(whole, key=lambda each: each.number, default=None),
            ended=ended,
        )

    async def _file(self, tenant: TenantId, *, needs_file: bool) -> KeyFile | None:
        """The newest, unless the database has committed another since; decided before anything is changed."""
        if not self._files.stores:
            return None
        file = await self._files.newest(tenant)
        known = await recovered_keys.committed(self._app, tenant)
        if file is None and known is not None and needs_file:
            raise KeyFileUnknown
        if file is None or known is None or (file.generation, file.sha256) == known or file.generation > known[0]:
            return file
        if needs_file:
            raise KeyFileRefused(Refusal.OLD)
        return None

    async def _settled(self, tenant: TenantId, file: KeyFile) -> Settled:
        mine = await recovered_keys.held(self._app, tenant)
        opened = {key.wrapped for key in {*mine, *file.data_keys} if key.wrapped and await self._opens(key)}
        return recovered_keys.settle(mine, file.data_keys, lambda key: key.wrapped in opened)

    async def _opens(self, key: WrappedKey) -> bool:
        """Each is asked for alone, as one that is refused would refuse all. Raises `KeyUnavailable`."""
        try:
            context = wrapping_context(key.tenant, key.id, key.purpose)
            (secret,) = await self._keys.unwrap(key.tenant, [(key.wrapped, context)])
            unlock(key, secret)
        except KeyRefused:
            return False
        return True

    async def _missing(self, tenant: TenantId, file: KeyFile) -> tuple[dict[UUID, dict[str, Any]], list[UUID]]:
        """Rows of backups that the database lacks, by id; and those of which there is no manifest to make one from."""
        async with self._units.enter(tenant, None, write=False) as unit:
            known = await recovering.known_backups(unit)
        public_keys = await self._keys.public_keys(SIGNER)
        rows, lost = {}, []
        for backup in (each for each in file.backups if each.id not in known):
            try:
                expected = Expected(tenant=tenant, backup=backup.id)
                found = await finding.find(self._files.stores, public_keys, expected)
            except (BackupUnknown, ManifestRefused):
                lost.append(backup.id)
                continue
            rows[backup.id] = _row(backup, found.manifest)
        return rows, lost


def _past(file: KeyFile, settled: Settled) -> Past:
    return Past(
        generation=file.generation,
        sha256=file.sha256,
        created=file.created,
        kek_versions=sorted(file.statement.kek_versions),
        dek_versions=sorted(file.statement.dek_versions),
        ledger=file.ledger,
        backups=file.backups,
        newest_wrapping=settled.newest_wrapping,
    )


def _row(backup: LiveBackup, manifest: Manifest) -> dict[str, Any]:
    """As the backup stood once it was written; whether it is good, a check must say."""
    about, layout = manifest.about, manifest.layout
    objects = sum(layout.object_bytes(layout.span(segment)) for segment in range(layout.segments))
    return {
        "id": backup.id,
        "number": backup.number,
        "kind": about.kind,
        "state": BackupState.WRITTEN,
        "created_at": about.created,
        "written_at": about.created,
        "identity": manifest.identity,
        "manifest_generation": manifest.generation,
        "key_file": about.key_file,
        "coding": str(layout.shape.coding),
        "places": list(manifest.places),
        "dek_versions": list(backup.dek_versions),
        "wrapped_key": backup.wrapped_key,
        "bytes": objects * layout.shape.coding.shards,
        "record_bytes": manifest.record_bytes,
        "records": manifest.records,
        "tables": dict(manifest.tables),
    }
