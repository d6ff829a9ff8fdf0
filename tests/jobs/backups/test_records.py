"""Records keep their bounds through any cut of the stream, and neither way holds more than a block."""

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.backups.errors import BackupBroken
from jobs.backups.records import RECORD_BYTES, Counts, Unpacking, packed
from tests.jobs.backups.yards import each_of


async def stream_of(records: list[bytes]) -> tuple[bytes, Counts]:
    counts = Counts()
    return b"".join([block async for block in packed(each_of(records), counts)]), counts


async def unpacked(stream: bytes, step: int) -> tuple[list[bytes], Unpacking]:
    unpacking, found = Unpacking(), []
    for start in range(0, len(stream), step):
        found += [record async for record in unpacking.records(stream[start : start + step])]
    return found, unpacking


def block(content: bytes) -> bytes:
    frame = zstandard.ZstdCompressor().compress(content)
    return len(frame).to_bytes(4, "big") + frame


@settings(deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=50), st.integers(1, 300))
async def test_records_come_back_however_the_stream_is_cut(records: list[bytes], step: int) -> None:
    stream, counts = await stream_of(records)

    found, unpacking = await unpacked(stream, step)

    assert found == records
    assert counts == unpacking.counts == Counts(len(records), sum(map(len, records)))
    assert unpacking.is_between_blocks


async def test_a_block_is_closed_when_a_mib_is_full_and_never_cuts_a_record() -> None:
    blocks = [each async for each in packed(each_of([bytes(700_000)] * 5), Counts())]

    sizes = [zstandard.frame_content_size(each[4:]) for each in blocks]
    assert sizes == [2 * 700_004, 2 * 700_004, 700_004]


async def test_the_longest_record_comes_back_and_a_longer_one_is_refused() -> None:
    stream, _ = await stream_of([bytes(RECORD_BYTES)])
    assert (await unpacked(stream, 1 << 20))[0] == [bytes(RECORD_BYTES)]
    with pytest.raises(ValueError, match="16 MiB"):
        await stream_of([bytes(RECORD_BYTES + 1)])


@pytest.mark.parametrize(
    "stream",
    [
        b"\x00\x00\x00\x04none",
        b"\xff\xff\xff\xff",
        block(b""),
        block(b"\x00\x00\x00"),
        block(b"\x00\x00\x00\x05four"),
        block(bytes(40 << 20)),
    ],
    ids=["no zstd", "too long", "empty", "no length", "cut record", "bomb"],
)
async def test_what_no_writer_wrote_is_refused(stream: bytes) -> None:
    with pytest.raises(BackupBroken):
        await unpacked(stream, len(stream))


async def test_a_stream_that_ends_within_a_block_is_noticed() -> None:
    stream, _ = await stream_of([b"one"])

    found, unpacking = await unpacked(stream[:-1], 5)

    assert (found, unpacking.is_between_blocks) == ([], False)
