"""Records as one stream of bytes, compressed a block at a time, so that neither way ever holds more than one block.

A block is ``length u32 BE | zstd frame`` (RFC 8878) with the frame's length and its content's size in its header. The
content is whole records, each ``length u32 BE | record``: as many as fill a MiB, and one more that may go beyond. A
record has at most 16 MiB. What a record means is its writer's and reader's matter.
"""

import struct
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import zstandard

from jobs.backups.errors import BackupBroken
from jobs.backups.threads import in_thread

RECORD_BYTES = 16 << 20
_BLOCK_BYTES = 1 << 20
_MOST = _BLOCK_BYTES + 4 + RECORD_BYTES
_LENGTH = struct.Struct(">I")


@dataclass(slots=True)
class Counts:
    records: int = 0
    record_bytes: int = 0


async def packed(records: AsyncIterator[bytes], counts: Counts) -> AsyncIterator[bytes]:
    """The stream, a block at a time; `counts` has counted what went in. Raises `ValueError` for a record too long."""
    compressor = zstandard.ZstdCompressor()
    content = bytearray()
    async for record in records:
        if len(record) > RECORD_BYTES:
            raise ValueError("a record has at most 16 MiB")
        content += _LENGTH.pack(len(record))
        content += record
        counts.records += 1
        counts.record_bytes += len(record)
        if len(content) >= _BLOCK_BYTES:
            yield await in_thread(_block, compressor, content)
            content = bytearray()
    if content:
        yield _block(compressor, content)


def _block(compressor: zstandard.ZstdCompressor, content: bytearray) -> bytes:
    frame = compressor.compress(content)
    return _LENGTH.pack(len(frame)) + frame


class Unpacking:
    """The way back: takes the stream in parts of any length, gives the records that are whole."""

    def __init__(self) -> None:
        self.counts = Counts()
        self._left = bytearray()
        self._decompressor = zstandard.ZstdDecompressor()

    @property
    def is_between_blocks(self) -> bool:
        return not self._left

    async def records(self, part: bytes) -> AsyncIterator[bytes]:
        """Raises `BackupBroken` for what no `packed` wrote."""
        self._left += part
        while (frame := self._next_frame()) is not None:
            content = await in_thread(self._content, frame)
            for record in _split(content):
                self.counts.records += 1
                self.counts.record_bytes += len(record)
                yield record

    def _next_frame(self) -> bytes | None:
        if len(self._left) < _LENGTH.size:
            return None
        end = _LENGTH.size + _LENGTH.unpack_from(self._left)[0]
        if end > 2 * _MOST:  # no frame of ours grows like that
            raise BackupBroken
        if len(self._left) < end:
            return None
        frame = bytes(self._left[_LENGTH.size : end])
        del self._left[:end]
        return frame

    def _content(self, frame: bytes) -> bytes:
        try:
            if not 0 < zstandard.frame_content_size(frame) <= _MOST:
                raise BackupBroken
            return self._decompressor.decompress(frame, allow_extra_data=False)
        except zstandard.ZstdError:
            raise BackupBroken from None


def _split(content: bytes) -> Iterator[bytes]:
    start = 0
    try:
        while start < len(content):
            end = start + _LENGTH.size + _LENGTH.unpack_from(content, start)[0]
            if end > len(content):
                raise BackupBroken
            yield content[start + _LENGTH.size : end]
            start = end
    except struct.error:
        raise BackupBroken from None
