"""Lost and rotten shards are made anew from the good ones, without any key to what is in them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from jobs.backups import finding, segments
from jobs.backups.checks import is_whole
from jobs.backups.errors import BackupBroken, StoreAway
from jobs.backups.finding import Found
from jobs.backups.manifests import Manifest, Sign
from jobs.backups.segments import Objects
from jobs.backups.shapes import Span, folder, shard_name
from jobs.backups.shards import Shards, sizes
from jobs.backups.stores import Store
from jobs.backups.threads import in_thread
from jobs.backups.verifying import Progress, Rot, segment_faults, silent


@dataclass(frozen=True, slots=True)
class Repaired:
    """`rewritten` objects; `away` are the stores that did not answer, whose shards are as they were."""

    manifest: Manifest
    rewritten: int
    away: Sequence[str]


async def repair(
    found: Found, stores: Sequence[Store], sign: Sign, progress: Progress = silent, *, leaving: Sequence[Store] = ()
) -> Repaired:
    """`stores` shall hold the backup from now on: shards whose store is not among them move to the emptiest of them.

    Stores that are `leaving` are read as long as they answer, and have nothing of the backup at the end. A store that
    is away keeps its shards; leave it out to have them moved. What was repaired stays so if this is killed, and the
    next try goes on from there. Raises `BackupBroken` where too little is left; nothing is overwritten then that was
    there. Raises `StoreAway`, `StoreFull`.
    """
    about, sources = found.manifest.about, [*stores, *leaving]
    there = await sizes(found.manifest, sources)
    present = [store for store in stores if store.url in there]
    for store in present:
        await store.sweep(folder(about.tenant, about.backup))
    wanted = replace(found.manifest, places=_places(found.manifest, stores, present))
    targets = Shards(wanted, sources, there)
    rewritten = 0
    for segment in range(wanted.layout.segments):
        rewritten += await _repair_segment(targets, present, wanted.layout.span(segment), progress)
    manifest = await _publish(found, wanted, present, sign)
    await _delete_strays(manifest, present)
    await finding.discard([store for store in leaving if store.url in there], about.tenant, about.backup)
    return Repaired(manifest, rewritten, [store.url for store in stores if store not in present])


def _places(manifest: Manifest, stores: Sequence[Store], present: Sequence[Store]) -> tuple[str, ...]:
    """Of each shard, from now on; the same answer to the same question, so that a second try goes on."""
    if not present:
        raise StoreAway
    urls = {store.url for store in stores}
    places = [url if url in urls else "" for url in manifest.places]
    for shard, url in enumerate(places):
        places[shard] = url or min((store.url for store in present), key=places.count)
    return tuple(places)


async def _repair_segment(targets: Shards, present: Sequence[Store], span: Span, progress: Progress) -> int:
    """How many objects were written; an object with any fault is written whole."""
    faults = [fault async for fault in segment_faults(targets, span, progress)]
    if any(fault.shard is None for fault in faults):
        raise StoreAway if targets.away else BackupBroken
    bad = {fault.shard for fault in faults if fault.shard is not None and fault.what is not Rot.AWAY}
    objects = _objects(targets.manifest, present, sorted(bad), span)
    if objects:
        await _rewrite(targets, objects, span)
    return len(objects)


def _objects(manifest: Manifest, present: Sequence[Store], shards: Sequence[int], span: Span) -> Objects:
    by_url = {store.url: store for store in present}
    about = manifest.about
    return {
        shard: (by_url[manifest.places[shard]], shard_name(about.tenant, about.backup, shard, span.segment))
        for shard in shards
        if manifest.places[shard] in by_url
    }


async def _rewrite(source: Shards, objects: Objects, span: Span) -> None:
    """Under their old names only when whole, so the good pieces of a rotten shard serve until then."""
    coding, checks = source.layout.shape.coding, await source.checks(span)
    row = len(checks) // len(span)
    async with segments.writing(objects) as segment:
        for stripe in range(span.first, span.end):
            pieces = await in_thread(coding.encode, await source.sealed(stripe))
            if not all(is_whole(pieces[shard], source.check(checks, shard, stripe)) for shard in objects):
                raise BackupBroken  # what was written did not fit its data; only a new backup mends that
            start = (stripe - span.first) * row
            await segment.put(pieces, checks[start : start + row])


async def _publish(found: Found, wanted: Manifest, present: Sequence[Store], sign: Sign) -> Manifest:
    """A new generation if shards have moved, else the same one where it is missing."""
    if wanted.places == found.manifest.places:
        if found.refused or found.missing:
            await finding.publish(present, found.manifest, found.raw)
        else:
            await finding.retire(present, found.manifest)  # a killed try may have come as far as all its puts
        return found.manifest
    moved = found.manifest.moved(wanted.places)
    await finding.publish(present, moved, await moved.signed(sign))
    return moved


async def _delete_strays(manifest: Manifest, present: Sequence[Store]) -> None:
    """Shards where the manifest no longer has them: a store came back with what had been made anew elsewhere."""
    about = manifest.about
    for store in present:
        own = {shard for shard, url in enumerate(manifest.places) if url == store.url}
        for name in await store.sizes(folder(about.tenant, about.backup)):
            shard, _, segment = name.rpartition("/")[2].partition("-")
            if shard.isdigit() and segment.isdigit() and int(shard) not in own:
                await store.delete(name)
