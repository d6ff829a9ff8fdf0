"""`python -m bench.rotations` stays able to run."""

import asyncio
import re
import sys
from pathlib import Path

from tests.soak import soak_only


@soak_only
async def test_the_bench_of_rotations_runs_and_prints_its_rate(tmp_path: Path) -> None:
    command = (
        sys.executable,
        "-m",
        "bench.rotations",
        "--tenants",
        "3",
        "--hands",
        "2",
        "--grace",
        "1",
        "--folder",
        str(tmp_path),
    )

    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()

    assert process.returncode == 0
    assert re.search(rb"^3 KEKs turned over in [0-9.]+ s, [0-9.]+/s, with 1 s of grace$", said, re.M)
    used = re.search(rb"^ms of processor time per tenant: (.+)$", said, re.M)
    assert used is not None
    spent = dict(each.split() for each in used[1].split(b", "))
    assert set(spent) == {b"worker", b"postgres", b"bao"}
    assert all(float(each) > 0 for each in spent.values())
