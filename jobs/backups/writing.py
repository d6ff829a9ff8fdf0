"""A backup is written: records in, shards and at last a manifest out. Memory is a few chunks, whatever comes in."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

from crypto.chunks import Sealing
from crypto.values import TAG_BYTES
from jobs.backups import finding, segments
from jobs.backups.checks import check
from jobs.backups.codings import DEFAULT, Coding
from jobs.backups.errors import BackupExists
from jobs.backups.manifests import About, Manifest, Sign
from jobs.backups.records import Counts, packed
from jobs.backups.segments import Objects
from jobs.backups.shapes import Layout, Shape, shard_name
from jobs.backups.stores import Store
from jobs.backups.threads import in_thread

SHAPE = Shape(Coding.parse(DEFAULT))


@dataclass(frozen=True, slots=True)
class _Stripe:
    pieces: Sequence[bytes]
    checks: bytes
    sealed_bytes: int


@dataclass(slots=True)
class _Written:
    chunks: int = 0
    sealed_bytes: int = 0


async def write(
    records: AsyncIterator[bytes],
    *,
    about: About,
    key: bytes,
    stores: Sequence[Store],
    sign: Sign,
    tables: Mapping[str, int] | None = None,
    shape: Shape = SHAPE,
) -> Manifest:
    """The manifest, which lies on every store: only then the backup exists.

    `key` is 32 bytes and this backup's own. `tables` is read when the records have ended, so it may be filled by what
    yields them: rows by table. Shards go to the stores in rotation; with fewer stores than shards several lie in one.

    What a broken try of the same backup left is deleted first; `BackupExists` if it had come as far as its manifest,
    and then `repair` brings that to every store. Raises `StoreAway`, `StoreFull`; `finding.discard` takes away what
    lies there then.
    """
    if not stores:
        raise ValueError("a backup needs a store")
    if await finding.is_finished(stores, about.tenant, about.backup):
        raise BackupExists
    await finding.discard(stores, about.tenant, about.backup)
    counts, written = Counts(), _Written()
    sealing = Sealing(key, about.backup, shape.chunk_bytes)
    homes = [stores[shard % len(stores)] for shard in range(shape.coding.shards)]
    stripes = _stripes(packed(records, counts), sealing, shape)
    checks = tuple([each async for each in _segments(stripes, about, homes, shape, written)])
    manifest = Manifest(
        about=about,
        opening=sealing.opening,
        checks=checks,
        layout=Layout(shape, written.chunks, written.sealed_bytes),
        records=counts.records,
        record_bytes=counts.record_bytes,
        tables=dict(tables or {}),
        places=tuple(store.url for store in homes),
    )
    await finding.publish(stores, manifest, await manifest.signed(sign))
    return manifest


async def _segments(
    stripes: AsyncIterator[_Stripe], about: About, homes: Sequence[Store], shape: Shape, written: _Written
) -> AsyncIterator[bytes]:
    """The check of each segment, when its objects are there."""
    stripe = await anext(stripes, None)
    while stripe is not None:
        number = written.chunks // shape.stripes
        async with segments.writing(_objects(about, homes, number)) as segment:
            while stripe is not None and written.chunks // shape.stripes == number:
                await segment.put(stripe.pieces, stripe.checks)
                written.chunks += 1
                written.sealed_bytes += stripe.sealed_bytes
                stripe = await anext(stripes, None)
        yield segment.check


def _objects(about: About, homes: Sequence[Store], segment: int) -> Objects:
    names = (shard_name(about.tenant, about.backup, shard, segment) for shard in range(len(homes)))
    return dict(enumerate(zip(homes, names, strict=True)))


async def _stripes(stream: AsyncIterator[bytes], sealing: Sealing, shape: Shape) -> AsyncIterator[_Stripe]:
    async for content, is_last in _cut(stream, shape.chunk_bytes - TAG_BYTES):
        yield await in_thread(_stripe, sealing, shape.coding, content, is_last)


async def _cut(stream: AsyncIterator[bytes], full: int) -> AsyncIterator[tuple[bytes, bool]]:
    """Parts of `full` bytes and a last one, which is not empty unless the stream is."""
    left = bytearray()
    async for part in stream:
        left += part
        while len(left) > full:
            yield bytes(left[:full]), False
            del left[:full]
    yield bytes(left), True


def _stripe(sealing: Sealing, coding: Coding, content: bytes, is_last: bool) -> _Stripe:
    sealed = sealing.seal(content, is_last=is_last)
    pieces = coding.encode(sealed)
    checks = [check(pieces[0])] * len(pieces) if coding.k == 1 else [check(piece) for piece in pieces]
    return _Stripe(pieces, b"".join(checks), len(sealed))
