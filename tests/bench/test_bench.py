"""The bench refuses a wrong answer by itself, so one short run proves that every case is answered as it should be."""

import re
import subprocess
import sys
from pathlib import Path

from tests.soak import soak_only

ROOT = Path(__file__).parents[2]


@soak_only
def test_every_case_of_the_bench_is_answered_with_its_rows(tmp_path: Path) -> None:
    small = ("--rows", "200", "--seconds", "0.2", "--folder", str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-m", "bench", *small], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    rates = [line[:3] for line in done.stdout.splitlines() if line.startswith("(")]
    assert rates == ["(a)", "(b)", "(c)", "(d)", "(g)", "(e)", "(f)", "(g)", "(a)", "(b)", "(c)", "(d)", "(g)"]
    assert re.findall(r"^\(g\) costs [0-9.]+ of \(a\)", done.stdout, re.MULTILINE)
    assert re.findall(r"^jobs through memory +[0-9.]+/s$", done.stdout, re.MULTILINE)
