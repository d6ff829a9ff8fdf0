"""`coffer recover`, run as an operator runs it after Postgres came back from a copy."""

import shutil
from pathlib import Path

import pytest

from tenants.ids import new_id
from tests.cli.test_cli import coffer, environment
from tests.house import House

__all__ = ["environment"]  # the fixture


@pytest.fixture
async def slug(house: House) -> str:
    return (await house.provisioning.provision(f"recovered-{new_id().hex[-12:]}", "Recovered")).slug


@pytest.fixture
async def settled(house: House, environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """The environment of an operator whose stores are two folders of this test."""
    backup = house.vault.credentials.backup
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    return environment | {
        "COFFER_BACKUP_STORES": ",".join(f"file://{folder}" for folder in folders),
        "COFFER_VAULT_BACKUP_ROLE_ID": backup.role_id,
        "COFFER_VAULT_BACKUP_SECRET_ID": backup.secret_id,
    }


async def test_it_says_what_it_did_and_names_who_is_left(settled: dict[str, str], slug: str, tmp_path: Path) -> None:
    first = await coffer("recover", slug, environment=settled)
    again = await coffer("recover", slug, environment=settled)
    for name in ("one", "two"):
        shutil.rmtree(next((tmp_path / name).iterdir()))
    gone = await coffer("recover", slug, environment=settled)
    asked = await coffer("recover", slug, "--without-key-files", environment=settled)

    assert (first.returncode, first.stderr) == (0, "")
    assert "no key file found, key file 1 published; 0 erasures replayed" in first.stdout
    assert "key file 1 found, key file 2 published" in again.stdout
    assert (gone.returncode, gone.stdout) == (1, "")
    assert "No store has a key file of that tenant." in gone.stderr
    assert "1 left as they came back" in gone.stderr
    assert (asked.returncode, "no key file found, key file 3 published" in asked.stdout) == (0, True)


async def test_without_the_role_the_tenant_is_named(settled: dict[str, str], slug: str) -> None:
    without = {name: value for name, value in settled.items() if not name.startswith("COFFER_VAULT_BACKUP")}

    done = await coffer("recover", slug, environment=without)

    assert (done.returncode, f"{slug}: BACKUPS_OFF." in done.stderr) == (1, True)
