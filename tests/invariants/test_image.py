"""What the image is built from: every package of ours, and nothing that development leaves about."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = {
    name.partition(".")[0]
    for name in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
}
KEPT = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().split() if line.startswith("!")}


def test_every_package_is_in_the_image() -> None:
    assert set() == PACKAGES - KEPT


def test_every_folder_with_code_of_ours_is_a_package_or_stays_at_home() -> None:
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert folders - PACKAGES == {"bench", "tests"}


def test_nothing_that_development_keeps_comes_along() -> None:
    assert {"requirements.lock", "pyproject.toml", "README.md", "*.py"} == KEPT - PACKAGES
