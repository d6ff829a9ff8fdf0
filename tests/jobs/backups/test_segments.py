"""Nothing is written any more when a segment is given up, and no failure is overlooked."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from jobs.backups import segments
from jobs.backups.errors import StoreFull
from jobs.backups.folders import Write
from jobs.backups.stores import Store


class Held(Store):
    """Writes nothing before it is let."""

    def __init__(self) -> None:
        super().__init__("file:///nowhere")
        self.begun, self.let = asyncio.Event(), asyncio.Event()
        self.is_closed = False

    @asynccontextmanager
    async def writing(self, name: str) -> AsyncIterator[Write]:
        try:
            yield self._write
        finally:
            self.is_closed = True

    async def _write(self, _: bytes) -> None:
        assert not self.is_closed
        self.begun.set()
        await self.let.wait()
        assert not self.is_closed


class Full(Held):
    async def _write(self, _: bytes) -> None:
        raise StoreFull


async def test_a_write_on_its_way_ends_before_a_segment_is_given_up() -> None:
    store, before = Held(), asyncio.all_tasks()
    with pytest.raises(KeyError):
        async with segments.writing({0: (store, "a")}) as segment:
            await segment.put([b"piece"], b"check")
            await store.begun.wait()
            raise KeyError

    assert store.is_closed
    assert asyncio.all_tasks() == before


async def test_one_store_that_fails_waits_for_the_writes_to_the_others() -> None:
    store = Held()

    async def written() -> None:
        async with segments.writing({0: (store, "a"), 1: (Full(), "b")}) as segment:
            await segment.put([b"one", b"other"], b"check")

    writing = asyncio.create_task(written())
    await store.begun.wait()
    done, _ = await asyncio.wait([writing], timeout=0.05)
    store.let.set()

    assert not done
    with pytest.raises(StoreFull):
        await writing
