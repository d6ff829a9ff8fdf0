"""What `deploy/secrets.sh` makes, once for all tests of deploying."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("secrets")
    make(folder)
    return folder


def make(folder: Path) -> None:
    subprocess.run(["/bin/sh", str(ROOT / "deploy" / "secrets.sh"), str(folder)], check=True, capture_output=True)
