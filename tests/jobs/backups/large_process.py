"""A process that writes 300 MB, reads and repairs them with two stores lost: prints the most memory it took, in MB."""

import asyncio
import hashlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from jobs.backups import reading, verifying, writing
from jobs.backups.writing import SHAPE
from tests.jobs.backups.yards import FIRST, KEY, Yard, sign

RECORDS, RECORD_BYTES = 3_000, 100_000


async def records(digest: "hashlib._Hash") -> AsyncIterator[bytes]:
    for _ in range(RECORDS):
        record = os.urandom(RECORD_BYTES)
        digest.update(record)
        yield record


async def main(root: Path) -> None:
    yard, written, read = Yard(root), hashlib.sha256(), hashlib.sha256()
    manifest = await writing.write(records(written), about=FIRST, key=KEY, stores=yard.stores, sign=sign, shape=SHAPE)
    yard.lose(0, 1)
    async for record in reading.read(manifest, yard.stores, KEY):
        read.update(record)
    repaired = await yard.repair()
    faults = [fault async for fault in verifying.verify_chunks(manifest, yard.stores, KEY)]
    assert (written.digest(), repaired.rewritten, faults) == (read.digest(), 2 * manifest.layout.segments, [])
    print(most_memory())


def most_memory() -> int:
    """The kernel's high-water mark; getrusage would tell of the process that started us as well."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) // 1024


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
