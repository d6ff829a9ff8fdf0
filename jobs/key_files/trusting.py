"""Which of the files on the stores is the tenant's key file: proven by signature, and by what the database knows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from crypto.transit import TransitKeys
from jobs.backups.errors import StoreAway
from jobs.backups.stores import Store
from jobs.key_files import finding
from jobs.key_files.errors import KeyFileRefused, KeyFileUnknown, Refusal
from jobs.key_files.finding import Listed, Proven
from jobs.key_files.reading import KeyFile
from tenants.keys.key_files import Known

PublicKeys = Mapping[int, bytes]


@dataclass(frozen=True, slots=True)
class Found:
    """`refused` and `missing` tell, by store, what is wrong with the others; `away` do not answer."""

    file: KeyFile
    refused: Mapping[str, Refusal]
    missing: Sequence[str]
    away: Sequence[str]


def current(known: Sequence[Known]) -> Known | None:
    return next((each for each in known if each.is_current), None)


async def refuse_ahead(tenant: UUID, listed: Listed, known: Sequence[Known], public_keys: PublicKeys) -> None:
    """Raises `KeyFileRefused`, AHEAD, if a file proves that the database has forgotten what it once knew.

    `known` was read after the files were listed, so the hash of one that was written by us meanwhile is in it.
    """
    counts, hashes = current(known), {each.generation: each.sha256 for each in known}
    newest = 0 if counts is None else counts.generation
    for store, files in listed.files.items():
        for generation in (each for each in files if each > newest):
            proven = await _proven(store, tenant, generation, files[generation], public_keys)
            if isinstance(proven, Proven) and proven.sha256 != hashes.get(generation):
                raise KeyFileRefused(Refusal.AHEAD)


async def find(tenant: UUID, listed: Listed, counts: Known | None, public_keys: PublicKeys, keys: TransitKeys) -> Found:
    """The file that counts, on whichever stores have it. Raises `KeyFileRefused`, `KeyFileUnknown`, `StoreAway`."""
    good: dict[Store, Proven] = {}
    refused: dict[str, Refusal] = {}
    for store, files in listed.files.items():
        if counts is None or counts.generation not in files:
            if files:
                is_old = counts is not None and max(files) < counts.generation
                refused[store.url] = Refusal.OLD if is_old else Refusal.UNCOMMITTED
            continue
        proven = await _proven(store, tenant, counts.generation, files[counts.generation], public_keys)
        if isinstance(proven, Refusal):
            refused[store.url] = proven
        elif proven.sha256 != counts.sha256:
            refused[store.url] = Refusal.EDITED
        else:
            good[store] = proven
    if not good:
        raise _nothing(refused, listed)
    missing = [store.url for store, files in listed.files.items() if not files]
    file = KeyFile(next(iter(good.values())), list(good), keys)
    return Found(file, refused, missing, [store.url for store in listed.away])


async def newest(tenant: UUID, listed: Listed, public_keys: PublicKeys, keys: TransitKeys) -> KeyFile | None:
    """The highest generation that is proven, whatever the database says."""
    best: Proven | None = None
    for store, files in listed.files.items():
        for generation in sorted(files, reverse=True):
            if best is not None and generation <= best.statement.generation:
                break
            proven = await _proven(store, tenant, generation, files[generation], public_keys)
            if isinstance(proven, Proven):
                best = proven
                break
    return None if best is None else KeyFile(best, list(listed.files), keys)


def _nothing(refused: Mapping[str, Refusal], listed: Listed) -> Exception:
    if refused:
        return KeyFileRefused(next(iter(refused.values())))
    return StoreAway() if listed.away or not listed.files else KeyFileUnknown()


async def _proven(store: Store, tenant: UUID, generation: int, size: int, public_keys: PublicKeys) -> Proven | Refusal:
    try:
        return await finding.prove(store, tenant, generation, size, public_keys)
    except KeyFileRefused as error:
        return error.why
