"""The objects of one segment while they are written: piece after piece, their checks at the end, then all at once."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field

from jobs.backups.checks import check
from jobs.backups.folders import Write
from jobs.backups.stores import Store

Objects = Mapping[int, tuple[Store, str]]  # by shard: where it goes, under which name


@dataclass(slots=True)
class Segment:
    """Takes stripes; the one before is written while the next is made."""

    _writes: Mapping[int, Write]
    _checks: bytearray = field(default_factory=bytearray)
    _writing: asyncio.Task[None] | None = None

    @property
    def check(self) -> bytes:
        """Of the checks of all stripes so far."""
        return check(bytes(self._checks))

    async def put(self, pieces: Sequence[bytes], checks: bytes) -> None:
        """`pieces` by shard, the checks of all of them; only this segment's objects are written."""
        await self.settle()
        self._checks += checks
        self._writing = asyncio.create_task(self._put({shard: pieces[shard] for shard in self._writes}))

    async def settle(self) -> None:
        if self._writing is not None:
            writing, self._writing = self._writing, None
            await writing

    async def end(self) -> None:
        await self.settle()
        await self._put(dict.fromkeys(self._writes, bytes(self._checks)))

    async def stop(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            with suppress(BaseException):  # why it stops is known already
                await self._writing

    async def _put(self, contents: Mapping[int, bytes]) -> None:
        writes = (self._writes[shard](content) for shard, content in contents.items())
        # all of them, so that no write goes on behind an object that is given up
        for failed in await asyncio.gather(*writes, return_exceptions=True):
            if isinstance(failed, BaseException):
                raise failed


@asynccontextmanager
async def writing(objects: Objects) -> AsyncIterator[Segment]:
    """Every object stands under its name when the block ends well. Raises `StoreAway`, `StoreFull`."""
    async with AsyncExitStack() as stack:
        opened = {
            shard: await stack.enter_async_context(store.writing(name)) for shard, (store, name) in objects.items()
        }
        segment = Segment(opened)
        try:
            yield segment
            await segment.end()
        finally:
            await segment.stop()
