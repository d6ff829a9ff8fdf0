"""`python -m bench.backups` stays able to run."""

import asyncio
import sys
from pathlib import Path


async def test_the_bench_of_backups_runs_and_prints_every_rate(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "bench.backups", "--mb", "5", "--rows", "500", "--folder", str(tmp_path))

    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()

    assert process.returncode == 0
    names = {line[:22].strip() for line in said.decode().splitlines()}
    assert {
        "seal",
        "code",
        "write",
        "read",
        "verify shards",
        "verify chunks",
        "read with shards lost",
        "pg_dump -Fc",
        "backup",
    } <= names
