"""Whether a backup is what its manifest says: its shards without keys, its chunks with them."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from enum import StrEnum

from crypto.chunks import Opening
from crypto.errors import CannotOpen
from jobs.backups.checks import CHECK_BYTES, check, is_whole
from jobs.backups.errors import BackupBroken, StoreAway
from jobs.backups.manifests import Manifest
from jobs.backups.reading import ahead
from jobs.backups.shapes import Span
from jobs.backups.shards import Shards
from jobs.backups.stores import Store
from jobs.backups.threads import in_thread

Progress = Callable[[int, int], Awaitable[None]]  # stripes done, and of how many


class Rot(StrEnum):
    LOST = "LOST"  # the object, or the chunk: too few of its pieces are left
    AWAY = "AWAY"  # the store does not answer, so nothing is known of the object
    TRUNCATED = "TRUNCATED"
    TOO_LONG = "TOO_LONG"
    ROTTEN = "ROTTEN"
    MOVED = "MOVED"  # a piece of this segment, but not this one
    CHECKS = "CHECKS"  # the shard's copy of the checks
    PARITY = "PARITY"  # as it was written, but not what its data make
    SEALED = "SEALED"  # whole, but the key does not open it


@dataclass(frozen=True, slots=True)
class Fault:
    """`shard` is None for a chunk, `stripe` for an object; stripes are counted through the backup."""

    what: Rot
    segment: int
    shard: int | None = None
    stripe: int | None = None


async def silent(done: int, of: int) -> None:
    """For who wants no progress."""


async def verify_shards(
    manifest: Manifest, stores: Sequence[Store], progress: Progress = silent
) -> AsyncGenerator[Fault]:
    """Without keys: every byte of every shard, and that parity fits data. Nothing yielded means nothing found."""
    shards = await Shards.located(manifest, stores)
    for segment in range(manifest.layout.segments):
        async for fault in segment_faults(shards, manifest.layout.span(segment), progress):
            yield fault


async def verify_chunks(
    manifest: Manifest, stores: Sequence[Store], key: bytes, progress: Progress = silent
) -> AsyncGenerator[Fault]:
    """With the key: every chunk opens. Raises `CannotOpen` for a key that is not the backup's."""
    opening = Opening(key, manifest.about.backup, manifest.opening)
    shards, layout = await Shards.located(manifest, stores), manifest.layout

    async def tried(stripe: int) -> Rot | None:
        try:
            sealed = await shards.sealed(stripe)
            await in_thread(opening.open, stripe, sealed, is_last=layout.is_last(stripe))
        except BackupBroken:
            return Rot.LOST
        except StoreAway:
            return Rot.AWAY
        except CannotOpen:
            return Rot.SEALED
        return None

    stripe = 0
    async with aclosing(ahead(tried, range(layout.chunks))) as rots:
        async for rot in rots:
            if rot is not None:
                yield Fault(rot, layout.span_of(stripe).segment, stripe=stripe)
            stripe += 1
            await progress(stripe, layout.chunks)


async def segment_faults(shards: Shards, span: Span, progress: Progress = silent) -> AsyncGenerator[Fault]:
    """Those of one segment's objects, each in the place that the manifest gives it."""
    present = []
    for shard in range(shards.layout.shape.coding.shards):
        absent = _absence(shards, shard, span)
        if absent is None:
            present.append(shard)
        else:
            yield Fault(absent, span.segment, shard)
        if (shards.size(shard, span.segment) or 0) > shards.layout.object_bytes(span):
            yield Fault(Rot.TOO_LONG, span.segment, shard)
    try:
        checks = await shards.checks(span)
    except (BackupBroken, StoreAway) as error:
        yield Fault(Rot.LOST if isinstance(error, BackupBroken) else Rot.AWAY, span.segment)
        return
    for shard in present:
        for stripe in _differing_rows(await shards.own_checks(shard, span), checks, shards, span):
            what = Rot.AWAY if shards.manifest.places[shard] in shards.away else Rot.CHECKS
            yield Fault(what, span.segment, shard, stripe)

    async def found(stripe: int) -> list[Fault]:
        pieces = await asyncio.gather(*(shards.piece(shard, stripe) for shard in present))
        return await in_thread(_stripe_faults, shards, checks, stripe, dict(zip(present, pieces, strict=True)))

    stripe = span.first
    async with aclosing(ahead(found, range(span.first, span.end), depth=1)) as found_faults:
        async for faults in found_faults:
            for fault in faults:
                yield fault
            stripe += 1
            await progress(stripe, shards.layout.chunks)


def _absence(shards: Shards, shard: int, span: Span) -> Rot | None:
    if shards.size(shard, span.segment) is not None:
        return None
    return Rot.AWAY if shards.manifest.places[shard] in shards.away else Rot.LOST


def _differing_rows(found: bytes, checks: bytes, shards: Shards, span: Span) -> list[int]:
    row = shards.layout.shape.coding.shards * CHECK_BYTES
    starts = range(0, len(checks), row)
    return [span.first + start // row for start in starts if found[start : start + row] != checks[start : start + row]]


def _stripe_faults(shards: Shards, checks: bytes, stripe: int, pieces: Mapping[int, bytes]) -> list[Fault]:
    segment = shards.layout.span_of(stripe).segment
    faults = [
        Fault(rot, segment, shard, stripe)
        for shard, piece in pieces.items()
        if (rot := _piece_rot(shards, checks, shard, stripe, piece)) is not None
    ]
    coding = shards.layout.shape.coding
    if not faults and len(pieces) == coding.shards:
        remade = coding.encode(coding.decode(pieces, shards.layout.chunk_bytes(stripe)))
        faults += [Fault(Rot.PARITY, segment, shard, stripe) for shard in pieces if remade[shard] != pieces[shard]]
    return faults


def _piece_rot(shards: Shards, checks: bytes, shard: int, stripe: int, piece: bytes) -> Rot | None:
    if is_whole(piece, shards.check(checks, shard, stripe)):
        return None
    if shards.manifest.places[shard] in shards.away:  # since it was listed
        return Rot.AWAY
    if len(piece) < shards.layout.piece_bytes(stripe):
        return Rot.TRUNCATED
    return Rot.MOVED if checks.find(check(piece)) >= 0 else Rot.ROTTEN
