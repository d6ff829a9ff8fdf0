"""Which backups the stores hold: manifests found, read and put, and whole backups taken away."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from jobs.backups.errors import BackupUnknown, ManifestRefused, Refusal, StoreAway
from jobs.backups.manifests import Expected, Manifest, read
from jobs.backups.shapes import folder, manifest_name
from jobs.backups.stores import Store

_MANIFEST = re.compile(r"(?P<tenant>[0-9a-f-]{36})/(?P<backup>[0-9a-f-]{36})/manifest-(?P<generation>\d{6,})\.json")
_FOLDER = re.compile(r"[0-9a-f-]{36}/(?P<backup>[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})/.+")
_MOST = 64 << 20  # bytes of a manifest, which has 75 per GiB


@dataclass(frozen=True, slots=True)
class Found:
    """The newest manifest and its file; `refused` by store, whose newest is older or worse; `away` as URLs."""

    manifest: Manifest
    raw: bytes
    refused: Mapping[str, Refusal]
    missing: Sequence[str]
    away: Sequence[str]


async def find(stores: Sequence[Store], public_keys: Mapping[int, bytes], expected: Expected) -> Found:
    """The newest proven manifest of `expected.backup` on any store, however few of them have it.

    Raises `ManifestRefused` where only others are there, `BackupUnknown` where none is, `StoreAway` where no store
    answers.
    """
    if expected.backup is None:
        raise ValueError("which backup is to be found?")
    within = folder(expected.tenant, expected.backup)
    proven: dict[str, tuple[Manifest, bytes]] = {}
    refused: dict[str, Refusal] = {}
    missing, away = [], []
    for store in stores:
        try:
            newest = await _newest(store, within, public_keys, expected)
        except ManifestRefused as error:
            refused[store.url] = error.why
        except BackupUnknown:
            missing.append(store.url)
        except StoreAway:
            away.append(store.url)
        else:
            proven[store.url] = newest
    if not proven:
        raise _nothing(refused, away, stores)
    manifest, raw = max(proven.values(), key=lambda each: (each[0].generation, each[1]))
    refused |= {url: Refusal.OLD for url, (_, other) in proven.items() if other != raw}
    return Found(manifest, raw, refused, missing, away)


def _nothing(refused: Mapping[str, Refusal], away: Sequence[str], stores: Sequence[Store]) -> Exception:
    if refused:
        return ManifestRefused(next(iter(refused.values())))
    return StoreAway() if away or not stores else BackupUnknown()


async def _newest(
    store: Store, within: str, public_keys: Mapping[int, bytes], expected: Expected
) -> tuple[Manifest, bytes]:
    """The newest proven one in that folder of the store, and its file; with one file in memory, whatever the store has.

    Raises `ManifestRefused`, what is wrong with the newest, where only others are there; `BackupUnknown`, `StoreAway`.
    """
    sizes = await store.sizes(within)
    refused: ManifestRefused | None = None
    for name in sorted((name for name in sizes if _MANIFEST.fullmatch(name)), reverse=True):
        raw = await store.get(name, 0, min(sizes[name], _MOST)) or b""
        try:
            return read(raw, public_keys, expected), raw
        except ManifestRefused as error:
            refused = refused or error
    raise refused or BackupUnknown()


async def publish(stores: Sequence[Store], manifest: Manifest, raw: bytes) -> None:
    """Put it on every store, and only then delete its older generations. Raises `StoreAway`, `StoreFull`."""
    about = manifest.about
    for store in stores:
        await store.put(manifest_name(about.tenant, about.backup, manifest.generation), raw)
    await retire(stores, manifest)


async def retire(stores: Sequence[Store], manifest: Manifest) -> None:
    """Delete the generations before this one, which is on every store."""
    about = manifest.about
    name = manifest_name(about.tenant, about.backup, manifest.generation)
    for store in stores:
        for other in await store.sizes(folder(about.tenant, about.backup)):
            if _MANIFEST.fullmatch(other) and other < name:
                await store.delete(other)


async def is_finished(stores: Sequence[Store], tenant: UUID, backup: UUID) -> bool:
    """Whether any store has a manifest of it; raises `StoreAway` if one does not answer."""
    for store in stores:
        if any(_MANIFEST.fullmatch(name) for name in await store.sizes(folder(tenant, backup))):
            return True
    return False


async def backups(stores: Sequence[Store], tenant: UUID) -> dict[UUID, bool]:
    """The ids of all that lies there for the tenant, and whether each is finished: has a manifest somewhere."""
    found: dict[UUID, bool] = {}
    for store in stores:
        for name in await store.sizes(str(tenant)):
            place = _FOLDER.fullmatch(name)
            if place is not None:
                backup = UUID(place["backup"])
                found[backup] = found.get(backup, False) or _MANIFEST.fullmatch(name) is not None
    return found


async def discard(stores: Sequence[Store], tenant: UUID, backup: UUID) -> None:
    """Delete all there is of a backup; its manifests first, so that none ever speaks of shards that are gone."""
    for store in stores:
        for name in await store.sizes(folder(tenant, backup)):
            if _MANIFEST.fullmatch(name):
                await store.delete(name)
    for store in stores:
        for name in await store.sizes(folder(tenant, backup)):
            await store.delete(name)
        await store.sweep(folder(tenant, backup))
