"""`python -m bench.webhooks` stays able to run."""

import asyncio
import re
import sys
from pathlib import Path

from tests.soak import soak_only


@soak_only
async def test_the_bench_of_webhooks_runs_and_prints_every_rate(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "bench.webhooks", "--rows", "200", "--events", "500", "--folder", str(tmp_path))
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    assert process.returncode == 0
    assert len(re.findall(r"^deliveries, (?:1|50) endpoints +[0-9.]+/s$", said.decode(), re.MULTILINE)) == 2
    assert re.findall(r"^change to first attempt, idle .* p99$", said.decode(), re.MULTILINE)
