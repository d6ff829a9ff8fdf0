"""What the image is built from: every package of ours, and nothing that development leaves about."""

import tomllib
from pathlib import Path

from setuptools import find_packages

ROOT = Path(__file__).parents[2]
_FOUND = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
INSTALLED = set(find_packages(str(ROOT), include=_FOUND["include"]))
PACKAGES = {name.partition(".")[0] for name in INSTALLED}
KEPT = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().split() if line.startswith("!")}


def test_every_package_is_in_the_image() -> None:
    assert set() == PACKAGES - KEPT


def test_every_folder_with_code_of_ours_is_installed_or_stays_at_home() -> None:
    folders = {path.parent.relative_to(ROOT) for path in ROOT.glob("[a-z]*/**/__init__.py")}
    at_home = {"bench", "build", "tests"}
    assert {".".join(folder.parts) for folder in folders if folder.parts[0] not in at_home} == INSTALLED


def test_nothing_that_development_keeps_comes_along() -> None:
    assert {"requirements.lock", "pyproject.toml", "README.md", "*.py"} == KEPT - PACKAGES
