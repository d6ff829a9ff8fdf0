"""The pieces of a backup where they lie: located, fetched, proven by their checks, and made a chunk again."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Self

from crypto.errors import CofferError
from jobs.backups.checks import CHECK_BYTES, is_whole, mended
from jobs.backups.errors import BackupBroken, StoreAway
from jobs.backups.manifests import Manifest
from jobs.backups.shapes import Span, folder, shard_name
from jobs.backups.stores import Store
from jobs.backups.threads import in_thread

Sizes = Mapping[str, Mapping[str, int]]  # by store's URL, by name


class Shards:
    """A store that stops answering is as good as lost from then on; nobody waits for it twice."""

    def __init__(self, manifest: Manifest, stores: Sequence[Store], sizes: Sizes) -> None:
        self.manifest = manifest
        self.layout = manifest.layout
        self._stores = {store.url: store for store in stores}
        self._sizes = dict(sizes)
        self._proven: dict[int, bytes] = {}

    @classmethod
    async def located(cls, manifest: Manifest, stores: Sequence[Store]) -> Self:
        """One listing per store."""
        return cls(manifest, stores, await sizes(manifest, stores))

    @property
    def away(self) -> list[str]:
        return [url for url in self._stores if url not in self._sizes]

    def size(self, shard: int, segment: int) -> int | None:
        """Of the object in the place where the manifest says it is; None where it is not."""
        return self._sizes.get(self.manifest.places[shard], {}).get(self._name(shard, segment))

    def require(self) -> None:
        """Raises `BackupBroken` or `StoreAway` if of any segment too few objects are there."""
        for segment in range(self.layout.segments):
            there = [shard for shard in range(self._shards) if self._store_of(shard, segment)]
            if len(there) < self.layout.shape.coding.k:
                raise self._too_few()

    async def checks(self, span: Span) -> bytes:
        """Those of a segment, proven by the manifest; from any shard, mended if need be. Raises as `sealed`."""
        if span.segment not in self._proven:
            # of the last two segments: stripes are fetched ahead
            self._proven = dict([*self._proven.items()][-1:]) | {span.segment: await self._proven_checks(span)}
        return self._proven[span.segment]

    async def sealed(self, stripe: int) -> bytes:
        """The sealed chunk, exact.

        Raises `BackupBroken` if too few pieces are whole and none can be mended; `StoreAway` if a store that does not
        answer may have them.
        """
        coding, length = self.layout.shape.coding, self.layout.chunk_bytes(stripe)
        checks = await self.checks(self.layout.span_of(stripe))
        whole: dict[int, bytes] = {}
        rotten: dict[int, bytes] = {}
        shards = self._by_nearness(stripe)
        for some in (shards[: coding.k], shards[coding.k :]):
            for shard, piece in (await self._fetched(some, stripe)).items():
                is_good = await in_thread(is_whole, piece, self.check(checks, shard, stripe))
                (whole if is_good else rotten)[shard] = piece
            if len(whole) >= coding.k:
                return await in_thread(coding.decode, whole, length)
        for shard, piece in rotten.items():
            put_right = await in_thread(mended, piece, self.check(checks, shard, stripe))
            if put_right is not None:
                whole[shard] = put_right
        if len(whole) < coding.k:
            raise self._too_few()
        return await in_thread(coding.decode, whole, length)

    def check(self, checks: bytes, shard: int, stripe: int) -> bytes:
        row = stripe % self.layout.shape.stripes * self._shards + shard
        return checks[row * CHECK_BYTES : (row + 1) * CHECK_BYTES]

    async def piece(self, shard: int, stripe: int) -> bytes:
        """As it lies there, short or empty where the object ends before."""
        start, length = self.layout.piece_start(stripe), self.layout.piece_bytes(stripe)
        return await self._get(shard, self.layout.span_of(stripe).segment, start, length)

    async def own_checks(self, shard: int, span: Span) -> bytes:
        """As they lie in that shard's object."""
        return await self._get(shard, span.segment, self.layout.checks_start(span), self.layout.checks_bytes(span))

    @property
    def _shards(self) -> int:
        return self.layout.shape.coding.shards

    async def _proven_checks(self, span: Span) -> bytes:
        checked = self.manifest.checks[span.segment]
        rotten = []
        for shard in range(self._shards):
            found = await self.own_checks(shard, span)
            if is_whole(found, checked):
                return found
            rotten.append(found)
        for found in (each for each in rotten if len(each) == self.layout.checks_bytes(span)):
            put_right = await in_thread(mended, found, checked)
            if put_right is not None:
                return put_right
        raise self._too_few()

    def _too_few(self) -> CofferError:
        return StoreAway() if self.away else BackupBroken()

    def _by_nearness(self, stripe: int) -> list[int]:
        """Those that are there, data before parity."""
        segment = self.layout.span_of(stripe).segment
        return [shard for shard in range(self._shards) if self._store_of(shard, segment)]

    async def _fetched(self, shards: Iterable[int], stripe: int) -> dict[int, bytes]:
        wanted = list(shards)
        pieces = await asyncio.gather(*(self.piece(shard, stripe) for shard in wanted))
        length = self.layout.piece_bytes(stripe)
        return {shard: piece for shard, piece in zip(wanted, pieces, strict=True) if len(piece) == length}

    async def _get(self, shard: int, segment: int, start: int, length: int) -> bytes:
        store = self._store_of(shard, segment)
        if store is None:
            return b""
        try:
            return await store.get(self._name(shard, segment), start, length) or b""
        except StoreAway:
            self._sizes.pop(store.url, None)
            return b""

    def _store_of(self, shard: int, segment: int) -> Store | None:
        """Where the manifest says, else wherever it was brought."""
        name = self._name(shard, segment)
        for url in (self.manifest.places[shard], *self._stores):
            if name in self._sizes.get(url, {}):
                return self._stores[url]
        return None

    def _name(self, shard: int, segment: int) -> str:
        about = self.manifest.about
        return shard_name(about.tenant, about.backup, shard, segment)


async def sizes(manifest: Manifest, stores: Sequence[Store]) -> dict[str, dict[str, int]]:
    """Of all objects of a backup, by store and name; a store that is away is not in it."""
    about = manifest.about
    listed = (store.sizes(folder(about.tenant, about.backup)) for store in stores)
    answers = await asyncio.gather(*listed, return_exceptions=True)
    found = {}
    for store, answer in zip(stores, answers, strict=True):
        if isinstance(answer, dict):
            found[store.url] = answer
        elif not isinstance(answer, StoreAway):
            raise answer
    return found
