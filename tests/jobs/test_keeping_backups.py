"""What was made out of turn stays for a while, what a repair can't mend is told as found, and anybody can look."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import requests

from domain.backups import (
    MAKE_BACKUP,
    REPAIR_BACKUP,
    RETIRE_BACKUPS,
    VERIFY_BACKUP,
    Depth,
    MakeBackup,
    RepairBackup,
    VerifyBackup,
)
from jobs.backups.manifests import SIGNER
from tenants.backups import BackupKind
from tenants.ids import new_id
from tests.jobs.desk import Desk
from tests.jobs.vaults import Vaults

SCRIPT = Path(__file__).parents[2] / "examples" / "verify_backup.py"


@pytest.fixture
async def vaults(desk: Desk, tmp_path: Path) -> AsyncIterator[Vaults]:
    async with Vaults.opened(desk, tmp_path, f"k-{new_id().hex[-12:]}") as opened:
        yield opened


@pytest.mark.parametrize("kind", [BackupKind.ASKED, BackupKind.BEFORE_RESTORE])
async def test_what_was_made_out_of_turn_stays_for_fourteen_days(vaults: Vaults, kind: BackupKind) -> None:
    await vaults.run(MAKE_BACKUP, MakeBackup(kind))
    await vaults.back_up()
    await vaults.settle_retention(daily=1, weekly=0, monthly=0)
    (made, _) = await vaults.rows()
    age = "UPDATE backups SET created_at = created_at - interval '6 days 23 hours' WHERE id = $1"
    states = []
    for _ in range(4):
        assert (await vaults.run(RETIRE_BACKUPS))["state"] == "DONE"
        states.append((await vaults.row(made["id"]))["state"])
        await vaults.desk.superuser.execute(age, made["id"])

    assert states == ["VERIFIED", "VERIFIED", "VERIFIED", "EXPIRED"]


async def test_what_was_asked_for_still_takes_the_place_of_its_day(vaults: Vaults) -> None:
    await vaults.run(MAKE_BACKUP, MakeBackup(BackupKind.ASKED))
    await vaults.run(RETIRE_BACKUPS)

    (row,) = await vaults.rows()
    assert row["kept_as"] == ["DAILY", "WEEKLY", "MONTHLY"]


async def test_a_repair_in_vain_tells_as_much_as_a_verification(vaults: Vaults) -> None:
    await vaults.add_customers(3)
    row = await vaults.back_up()
    for number in range(3):
        vaults.lose(number)

    looked = await vaults.run(VERIFY_BACKUP, VerifyBackup(row["id"], Depth.CHUNKS))
    mended = await vaults.run(REPAIR_BACKUP, RepairBackup(row["id"]))

    found = json.loads(looked["result"])
    assert found["state"] == "BROKEN" and found["missing"] > 0
    assert json.loads(mended["result"]) == found
    assert (await vaults.row(row["id"]))["missing"] == found["missing"]


async def test_what_the_verifier_asks_of_the_key_store_gives_the_key(vaults: Vaults, tmp_path: Path) -> None:
    await vaults.add_customers(3)
    row = await vaults.back_up()
    key = tmp_path / "backup.key"

    _, said = await _verifier(vaults, row["id"])
    path, context = said.partition("key: bao write -field=plaintext ")[2].split()[:2]
    opened = _ask(vaults, "PUT", path, context=context.removeprefix("context="), ciphertext=row["wrapped_key"])
    key.write_text(opened["plaintext"])

    end, said = await _verifier(vaults, row["id"], "--key-file", str(key))
    assert end == 0 and f"opened: {row['records']} records" in said


async def _verifier(vaults: Vaults, backup: UUID, *more: str) -> tuple[int | None, str]:
    folders = [str(vaults.folder(number) / str(vaults.tenant) / str(backup)) for number in range(6)]
    halves = _ask(vaults, "GET", f"transit/keys/{SIGNER}")["keys"]
    keys = [word for version in sorted(halves, key=int) for word in ("--public-key", halves[version]["public_key"])]
    command = (sys.executable, "-I", str(SCRIPT), *folders, *keys, *more)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    return process.returncode, said.decode()


def _ask(vaults: Vaults, method: str, path: str, **body: str) -> dict[str, Any]:
    bao = vaults.desk.house.vault.bao
    headers = {"X-Vault-Token": bao.root_token}
    answer = requests.request(method, f"{bao.address}/v1/{path}", json=body or None, headers=headers, timeout=5)
    answer.raise_for_status()
    data: dict[str, Any] = answer.json()["data"]
    return data
