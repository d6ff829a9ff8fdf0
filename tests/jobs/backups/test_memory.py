"""Memory is a few chunks, whatever the size of the backup."""

import asyncio
import sys
from pathlib import Path


async def test_300_mb_are_written_read_and_repaired_in_little_memory(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "tests.jobs.backups.large_process", str(tmp_path / "stores"))

    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    told, _ = await process.communicate()

    assert process.returncode == 0
    assert int(told) < 150  # a worker has more to hold, and 200 in all
