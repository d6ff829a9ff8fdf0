"""What was written is read, exactly, while enough of it is left; else nothing is given that was not proven."""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from crypto.errors import CannotOpen
from jobs.backups import finding, reading, writing
from jobs.backups.codings import Coding
from jobs.backups.errors import BackupBroken, BackupExists, StoreAway
from jobs.backups.shapes import Shape
from tests.jobs.backups.yards import (
    FIRST,
    KEY,
    SECOND,
    SMALL,
    WIDE,
    Yard,
    flip,
    long_records,
    second,
    sign,
    some_records,
)

CODINGS = ["single", "mirror:3", "rs:4+2", "rs:2+1", "rs:5+3"]
SOAK = os.environ.get("COFFER_SOAK") == "1"
PAIRS = list(itertools.combinations(range(6), 2))


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("records", [[], [b""], [b"one"], some_records()], ids=["none", "empty", "one", "some"])
async def test_records_come_back_as_they_were_written(yard: Yard, coding: str, records: list[bytes]) -> None:
    manifest = await yard.write(records, shape=Shape(Coding.parse(coding), 1024, 4))

    assert await yard.read(manifest) == records
    assert (manifest.records, manifest.record_bytes) == (len(records), sum(map(len, records)))


async def test_the_same_records_and_key_give_other_bytes_each_time(yard: Yard) -> None:
    first = await yard.write(some_records())
    again = await yard.write(some_records(), second(first))

    assert set(first.checks).isdisjoint(again.checks)
    assert first.opening != again.opening


@pytest.mark.parametrize("lost", PAIRS if SOAK else PAIRS[::3])
async def test_with_two_stores_lost_and_a_bit_flipped_in_each_other_in_turn_all_is_read(
    yard: Yard, lost: tuple[int, int]
) -> None:
    records = some_records()
    manifest = await yard.write(records)
    yard.lose(*lost)
    for shard in set(range(6)) - set(lost):
        for place in (0, 300, manifest.layout.object_bytes(manifest.layout.span(0)) - 1):
            flip(yard.path(shard, 0), place)
            assert await yard.read(manifest) == records
            flip(yard.path(shard, 0), place)


async def test_a_bit_flipped_in_all_survivors_at_once_is_put_right(yard: Yard) -> None:
    manifest = await yard.write(some_records())
    yard.lose(0, 5)
    for shard in (1, 2, 3, 4):
        flip(yard.path(shard, 0), 17 * shard, 1 << shard)

    assert await yard.read(manifest) == some_records()


async def test_two_bytes_flipped_beyond_two_lost_stores_are_an_error_where_they_stand(yard: Yard) -> None:
    records, given = long_records(), []
    manifest = await yard.write(records, shape=WIDE)
    yard.lose(1, 2)
    for place in (10, 20):
        flip(yard.path(0, 4), place)
    with pytest.raises(BackupBroken):
        async for record in reading.read(manifest, yard.stores, KEY):
            given.append(record)  # noqa: PERF401  # also when it ends badly
    assert given == records[: len(given)]
    assert 30 < len(given) < 42


@pytest.mark.parametrize("lost", [(0, 1, 2), (3, 4, 5), (0, 2, 4)])
async def test_with_three_stores_lost_nothing_is_given(yard: Yard, lost: tuple[int, int, int]) -> None:
    manifest = await yard.write(some_records())
    yard.lose(*lost)

    with pytest.raises(BackupBroken):
        await anext(reading.read(manifest, yard.stores, KEY))


async def test_with_three_stores_away_it_says_that_they_are(yard: Yard) -> None:
    manifest = await yard.write(some_records())
    yard.unmount(0, 1, 2)
    with pytest.raises(StoreAway):
        await anext(reading.read(manifest, yard.stores, KEY))
    yard.mount(0)
    assert await yard.read(manifest) == some_records()


async def test_with_three_shards_of_a_later_segment_lost_nothing_is_given(yard: Yard) -> None:
    manifest = await yard.write(long_records(), shape=WIDE)
    for shard in (0, 1, 2):
        yard.path(shard, 7).unlink()

    with pytest.raises(BackupBroken):
        await anext(reading.read(manifest, yard.stores, KEY))


async def test_another_key_opens_nothing(yard: Yard) -> None:
    manifest = await yard.write(some_records())

    with pytest.raises(CannotOpen):
        await anext(reading.read(manifest, yard.stores, bytes(32)))


async def test_shards_of_another_backup_are_not_taken_for_this_ones(yard: Yard) -> None:
    first = await yard.write(some_records())
    other = await yard.write(some_records(), second(first))
    for shard in range(3):
        yard.path(shard, 0, other.about).replace(yard.path(shard, 0))

    with pytest.raises(BackupBroken):
        await anext(reading.read(first, yard.stores, KEY))


async def test_fewer_stores_than_shards_hold_several_each(yard: Yard) -> None:
    yard.stores = yard.stores[:2]

    manifest = await yard.write(some_records())

    assert manifest.places == tuple(yard.stores[shard % 2].url for shard in range(6))
    assert await yard.read(manifest) == some_records()


async def test_a_shard_is_found_in_whichever_store_it_was_brought_to(yard: Yard) -> None:
    manifest = await yard.write(some_records())
    for segment in range(manifest.layout.segments):
        yard.path(0, segment).replace(yard.path(1, segment).with_name(yard.path(0, segment).name))
    yard.unmount(2, 3)

    assert await yard.read(manifest) == some_records()


async def test_a_finished_backup_is_not_written_over(yard: Yard) -> None:
    manifest = await yard.write(some_records())
    before = yard.files()

    with pytest.raises(BackupExists):
        await yard.write([b"other"])

    assert yard.files() == before
    assert await yard.read(manifest) == some_records()


async def test_records_that_fail_leave_no_manifest_and_the_error_as_it_was(yard: Yard) -> None:
    def failing() -> list[bytes]:
        raise ConnectionResetError("the database went away")

    before = asyncio.all_tasks()
    with pytest.raises(ConnectionResetError):
        await yard.write((record for part in (long_records, failing) for record in part()), shape=WIDE)

    assert asyncio.all_tasks() == before  # nothing is being written any more
    assert [name for name in yard.files() if "manifest" in name or name.endswith(".part")] == []
    assert await yard.read(await yard.write([b"one"])) == [b"one"]


async def test_rows_by_table_are_counted_while_records_come(yard: Yard) -> None:
    tables: dict[str, int] = {}

    async def rows() -> AsyncIterator[bytes]:
        for number in range(5):
            tables["customers"] = number + 1
            yield b"row"

    manifest = await writing.write(
        rows(), about=FIRST, key=KEY, stores=yard.stores, sign=sign, tables=tables, shape=SMALL
    )

    assert (await yard.find()).manifest.tables == manifest.tables == {"customers": 5}


async def test_the_ids_that_lie_there_are_told_with_whether_they_are_finished(yard: Yard) -> None:
    manifest = await yard.write(some_records())
    await yard.write([b"one"], second(manifest))
    for store in range(6):
        for path in yard.manifests(store):
            path.unlink()
    await finding.discard(yard.stores, FIRST.tenant, UUID(int=99))
    await yard.stores[0].put(f"{FIRST.tenant}/lost+found/other", b"not ours")

    assert await finding.backups(yard.stores, FIRST.tenant) == {FIRST.backup: False, SECOND: True}
