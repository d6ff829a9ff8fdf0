"""A backup is made whole or not at all, counts once it was verified, and outlives what befalls its stores."""

import asyncio
import os
import random
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from crypto.errors import CofferError
from domain import backups as asked
from domain.backups import (
    BACK_UP,
    CHECK_BACKUPS,
    MAKE_BACKUP,
    REPAIR_BACKUP,
    RETIRE_BACKUPS,
    Depth,
    MakeBackup,
    RepairBackup,
)
from domain.errors import Refused
from jobs.backups import reading, repairing
from jobs.backups.codings import Coding
from jobs.backups.stores import Store
from tenants import backups
from tenants.backups import BackupKind
from tenants.ids import new_id
from tests.jobs.desk import Desk
from tests.jobs.vaults import Vaults
from tests.jobs.worker_process import dumped

SOAK = os.environ.get("COFFER_SOAK") == "1"
FLIPS, LOSSES, CANCELS, KILLS = (1000, 60, 100, 50) if SOAK else (30, 4, 5, 1)
CHANCE = random.Random(int(os.environ.get("COFFER_TEST_SEED", "5")))  # noqa: S311
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
async def vaults(desk: Desk, tmp_path: Path) -> AsyncIterator[Vaults]:
    async with Vaults.opened(desk, tmp_path, f"b-{new_id().hex[-12:]}") as opened:
        yield opened


async def test_a_backup_is_written_verified_and_told_of(vaults: Vaults) -> None:
    await vaults.add_customers(3)
    row = await vaults.back_up()

    assert (row["state"], row["number"], row["kind"]) == ("VERIFIED", 1, "SCHEDULED")
    assert row["verified_at"] >= row["written_at"] >= row["created_at"]
    assert (row["dek_versions"], row["missing"], row["rotten"]) == ([1], 0, 0)
    assert row["bytes"] == sum(path.stat().st_size for path in vaults.shards())
    assert await vaults.events() == ["backup.made"]


async def test_each_backup_follows_the_one_before(vaults: Vaults) -> None:
    first, second = await vaults.back_up(), await vaults.back_up()
    found = await vaults.found(second["id"])

    assert found.manifest.about.previous == first["identity"]
    assert (found.manifest.about.number, found.manifest.about.key_file) == (2, second["key_file"])
    assert second["key_file"] > first["key_file"] > 0


async def test_the_key_file_of_a_manifest_opens_it(vaults: Vaults) -> None:
    row = await vaults.back_up()
    file = await vaults.depot.key_files.read(vaults.tenant, at_least=row["key_file"])

    assert [each.id for each in file.statement.backups] == [row["id"]]


async def test_no_value_lies_anywhere_in_clear(vaults: Vaults) -> None:
    canaries = [new_id().hex for _ in range(4)]
    email = f"{canaries[1]}@example.org"
    await vaults.add_customers(2, familyName=canaries[0], emails=[email], note=canaries[2], governmentId=canaries[3])
    await vaults.back_up()
    contents = b"".join(path.read_bytes() for path in vaults.objects())

    assert contents
    assert [canary for canary in canaries if canary.encode() in contents or bytes.fromhex(canary) in contents] == []


async def test_every_flipped_byte_is_found(vaults: Vaults) -> None:
    await vaults.add_customers(3)
    row = await vaults.back_up()
    objects = [path for path in vaults.objects() if str(row["id"]) in str(path)]
    unseen = []
    for _ in range(FLIPS):
        path = CHANCE.choice(objects)
        whole = path.read_bytes()
        place, change = CHANCE.randrange(len(whole)), CHANCE.randrange(1, 256)
        path.write_bytes(whole[:place] + bytes([whole[place] ^ change]) + whole[place + 1 :])
        found = await vaults.verify(row["id"], Depth.SHARDS)
        path.write_bytes(whole)
        if not found["rotten"]:
            unseen.append((path.name, place))
    assert unseen == []


async def test_any_two_stores_lost_and_a_bit_flipped_in_another_are_made_whole(vaults: Vaults) -> None:
    await vaults.add_customers(3)
    row = await vaults.back_up()
    before = {path: path.read_bytes() for path in vaults.shards()}
    cases = [(lost, other) for lost in combinations(range(6), 2) for other in range(6) if other not in lost]
    for lost, other in CHANCE.sample(cases, LOSSES):
        for number in lost:
            vaults.lose(number)
        path = CHANCE.choice(vaults.shards(other))
        path.write_bytes(_flipped(path.read_bytes()))
        assert (await vaults.verify(row["id"]))["state"] == "VERIFIED"
        repaired = await vaults.repair(row["id"])

        assert (repaired["state"], repaired["missing"], repaired["rotten"]) == ("VERIFIED", 0, 0), (lost, other)
        assert {path: path.read_bytes() for path in vaults.shards()} == before


async def test_three_stores_lost_are_told_and_nothing_is_made_worse(vaults: Vaults) -> None:
    await vaults.add_customers(3)
    row = await vaults.back_up()
    for number in range(3):
        vaults.lose(number)
    before = {path: path.read_bytes() for path in vaults.objects()}
    verified = await vaults.verify(row["id"])
    repaired = await vaults.repair(row["id"])

    assert (verified["state"], verified["reason"]) == ("BROKEN", "BACKUP_BROKEN")
    assert (repaired["state"], repaired["reason"]) == ("BROKEN", "BACKUP_BROKEN")
    assert {path: path.read_bytes() for path in vaults.objects()} == before
    assert await vaults.events() == ["backup.made", "backup.failed"]


async def test_a_broken_backup_whose_stores_came_back_is_good_again(vaults: Vaults, tmp_path: Path) -> None:
    row = await vaults.back_up()
    shutil.copytree(vaults.root, tmp_path / "copy")
    for number in range(3):
        vaults.lose(number)
    assert (await vaults.verify(row["id"]))["state"] == "BROKEN"
    for number in range(3):
        shutil.copytree(tmp_path / "copy" / str(number), vaults.folder(number), dirs_exist_ok=True)

    assert (await vaults.verify(row["id"]))["state"] == "VERIFIED"


async def test_the_weekly_check_repairs_and_looks_at_all(vaults: Vaults) -> None:
    await vaults.add_customers(2)
    rows = [await vaults.back_up(), await vaults.back_up()]
    vaults.lose(4)
    job = await vaults.run(CHECK_BACKUPS)
    after = await vaults.rows()

    assert (job["state"], job["done"]) == ("DONE", 2)
    assert [(row["state"], row["missing"]) for row in after] == [("VERIFIED", 0)] * 2
    assert [new["checked_at"] > old["checked_at"] for new, old in zip(after, rows, strict=True)] == [True] * 2
    assert vaults.shards(4)


async def test_shards_move_to_where_the_settings_want_them(vaults: Vaults) -> None:
    row = await vaults.back_up()
    new = vaults.root / "new"
    new.mkdir()
    vaults.use(replace(vaults.depot, stores=[*vaults.depot.stores[1:], Store(f"file://{new}")]))
    moved = await vaults.repair(row["id"])

    assert (moved["state"], moved["manifest_generation"]) == ("VERIFIED", 2)
    assert not [path for path in vaults.objects() if path.is_relative_to(vaults.folder(0)) and "manifest" in path.name]
    assert [place for place in moved["places"] if place.endswith("/new")]
    assert not [path for path in vaults.shards(0) if str(row["id"]) in str(path)]


async def test_a_store_that_is_away_delays_a_backup_and_gets_nothing_half_done(vaults: Vaults) -> None:
    shutil.rmtree(vaults.folder(5))
    job = await vaults.run(BACK_UP)
    assert (job["state"], job["reason"]) == ("READY", "STORE_AWAY")
    assert vaults.shards() == []
    vaults.folder(5).mkdir()
    job = await vaults.again(job["id"])

    assert job["state"] == "DONE"
    assert [(row["number"], row["state"]) for row in await vaults.rows()] == [(1, "VERIFIED")]


async def test_a_full_store_delays_a_backup_and_holds_nothing_under_a_final_name(vaults: Vaults) -> None:
    if not _mounted(vaults.folder(3)):
        pytest.skip("only root may mount a small disk")
    try:
        (vaults.folder(3) / "filling").write_bytes(b"x" * 28_000)
        await vaults.add_customers(40, note="n" * 900)
        job = await vaults.run(BACK_UP)
        assert (job["state"], job["reason"]) == ("READY", "STORE_FULL")
        assert vaults.shards() == []
        (vaults.folder(3) / "filling").unlink()
    finally:
        _unmount(vaults.folder(3))
    assert (await vaults.again(job["id"]))["state"] == "DONE"


async def test_a_backup_that_is_cut_off_anywhere_begins_anew_and_leaves_one(vaults: Vaults) -> None:
    await vaults.add_customers(10)
    began = asyncio.get_running_loop().time()
    await vaults.back_up()
    whole = asyncio.get_running_loop().time() - began
    for number in range(2, 2 + CANCELS):
        job = await vaults.desk.enqueue(BACK_UP, tenant=vaults.tenant)
        cut = asyncio.create_task(vaults.again(job))
        await asyncio.sleep(CHANCE.uniform(0, whole))
        cut.cancel()
        with suppress(asyncio.CancelledError):
            await cut
        if (await vaults.desk.job(job))["state"] == "RUNNING":
            await vaults.desk.kill(job)
        if (await vaults.desk.job(job))["state"] != "DONE":
            assert (await vaults.again(job))["state"] == "DONE"

        assert [row["state"] for row in await vaults.rows()] == ["VERIFIED"] * number
    on_stores = {path.parent.name for path in vaults.objects() if path.parent.name != "keys"}
    assert on_stores == {str(row["id"]) for row in await vaults.rows()}
    assert not [path for path in vaults.objects() if path.name.endswith(".part")]


async def test_a_worker_that_is_killed_leaves_a_backup_that_is_whole_in_the_end(vaults: Vaults) -> None:
    await vaults.add_customers(10)
    settings = replace(vaults.desk.house.api.settings, backup_stores=tuple(s.url for s in vaults.depot.stores))
    for number in range(1, 1 + KILLS):
        job = await vaults.desk.enqueue(BACK_UP, tenant=vaults.tenant)
        for _ in range(2):
            async with _worker(dumped(settings)) as process:
                with suppress(AssertionError):
                    await vaults.desk.until_state("RUNNING", job, patience=5)
                await asyncio.sleep(CHANCE.uniform(0, 0.6))
                process.kill()
        async with _worker(dumped(settings)):
            await vaults.desk.until_state("DONE", job, patience=60)
        row = (await vaults.rows())[-1]
        assert (row["number"], row["state"]) == (number, "VERIFIED")
        assert (await vaults.verify(row["id"]))["rotten"] == 0


async def test_a_backup_that_is_cancelled_is_taken_up_by_the_next(vaults: Vaults) -> None:
    job = await vaults.desk.enqueue(BACK_UP, tenant=vaults.tenant)
    shutil.rmtree(vaults.folder(5))
    await vaults.again(job)
    vaults.folder(5).mkdir()
    await vaults.desk.set(job, "state = 'CANCELLED', ended_at = now()")
    other = await vaults.run(MAKE_BACKUP, MakeBackup(BackupKind.ASKED))

    assert other["state"] == "DONE"
    assert [(row["number"], row["kind"], row["state"]) for row in await vaults.rows()] == [(1, "ASKED", "VERIFIED")]


async def test_two_jobs_make_one_backup_after_the_other(vaults: Vaults) -> None:
    first = await vaults.desk.enqueue(BACK_UP, tenant=vaults.tenant)
    shutil.rmtree(vaults.folder(5))
    await vaults.again(first)  # its backup is begun, and waits for the store
    vaults.folder(5).mkdir()
    second = await vaults.run(MAKE_BACKUP, MakeBackup(BackupKind.ASKED))

    assert (second["state"], second["reason"]) == ("READY", "CONFLICT")
    assert (await vaults.again(first))["state"] == "DONE"
    assert (await vaults.again(second["id"]))["state"] == "DONE"
    assert [(row["number"], row["kind"]) for row in await vaults.rows()] == [(1, "SCHEDULED"), (2, "ASKED")]


async def test_what_no_waiting_mends_is_parked_and_told(vaults: Vaults) -> None:
    shutil.rmtree(vaults.folder(5))
    job = await vaults.run(BACK_UP)
    vaults.folder(5).mkdir()
    (row,) = await vaults.rows()
    other = await vaults.depot.make_key(vaults.tenant, new_id())  # of another backup, so it opens nothing here
    await vaults.desk.superuser.execute("UPDATE backups SET wrapped_key = $2 WHERE id = $1", row["id"], other)
    parked = await vaults.again(job["id"])

    assert (parked["state"], parked["reason"]) == ("PARKED", "KEY_REFUSED")
    assert (await vaults.row(row["id"]))["reason"] == "KEY_REFUSED"
    assert await vaults.events() == ["backup.failed"]


async def test_retention_deletes_the_bytes_then_the_key_and_keeps_what_it_must(vaults: Vaults) -> None:
    rows = [await vaults.back_up() for _ in range(4)]
    held, used, old, newest = (row["id"] for row in rows)
    await vaults.settle_retention(daily=1, weekly=0, monthly=0)
    await vaults.desk.superuser.execute("UPDATE backups SET held = true WHERE id = $1", held)
    reader = await vaults.desk.enqueue(RETIRE_BACKUPS, tenant=vaults.tenant)
    async with vaults.desk.units.enter(vaults.tenant, None, write=True) as unit:
        assert await backups.use(unit, used, reader)
    assert (await vaults.run(RETIRE_BACKUPS))["state"] == "DONE"

    assert [row["state"] for row in await vaults.rows()] == ["VERIFIED", "VERIFIED", "EXPIRED", "VERIFIED"]
    assert {row["id"] for row in await vaults.rows() if row["wrapped_key"]} == {held, used, newest}
    assert not [path for path in vaults.objects() if str(old) in str(path)]
    assert (await vaults.row(newest))["kept_as"] == ["DAILY"]
    assert await vaults.desk.superuser.fetchval(
        "SELECT count(*) FROM jobs WHERE tenant_id = $1 AND kind = 'publish_key_file'", vaults.tenant
    )


async def test_a_backup_stays_listed_with_its_key_until_every_store_has_let_it_go(vaults: Vaults) -> None:
    old, _ = [await vaults.back_up() for _ in range(2)]
    await vaults.settle_retention(daily=1, weekly=0, monthly=0)
    shutil.move(vaults.folder(2), vaults.root / "away")
    job = await vaults.run(RETIRE_BACKUPS)
    assert (job["state"], job["reason"]) == ("READY", "STORE_AWAY")
    assert (await vaults.row(old["id"]))["wrapped_key"]
    shutil.move(vaults.root / "away", vaults.folder(2))

    assert (await vaults.again(job["id"]))["state"] == "DONE"
    assert not (await vaults.row(old["id"]))["wrapped_key"]


async def test_of_safety_backups_alone_the_newest_stays(vaults: Vaults) -> None:
    for _ in range(3):
        await vaults.run(MAKE_BACKUP, MakeBackup(BackupKind.BEFORE_RESTORE))
    old = "UPDATE backups SET created_at = created_at - interval '20 days' WHERE tenant_id = $1 AND number >= $2"
    for number in (3, 2, 1):  # so that they lie there the newest first
        await vaults.desk.superuser.execute(old, vaults.tenant, number)
    assert (await vaults.run(RETIRE_BACKUPS))["state"] == "DONE"

    assert [row["state"] for row in await vaults.rows()] == ["EXPIRED", "EXPIRED", "VERIFIED"]


async def test_of_two_who_delete_the_last_two_one_is_refused(vaults: Vaults) -> None:
    rows = [await vaults.back_up() for _ in range(2)]
    refused: list[str] = []

    async def delete(backup: UUID) -> None:
        with suppress(Refused):
            async with vaults.desk.units.enter(vaults.tenant, None, write=True) as unit:
                try:
                    await asked.delete(unit, backup)
                except Refused as error:
                    refused.append(error.errors[0].code)
                    raise
                await unit.flush()
                await asyncio.sleep(0.2)

    await asyncio.gather(*(delete(row["id"]) for row in rows))

    assert sorted(row["state"] for row in await vaults.rows()) == ["EXPIRED", "VERIFIED"]
    assert refused == ["BACKUP_REFUSED"]


async def test_a_backup_whose_key_is_refused_holds_up_no_other_check(vaults: Vaults) -> None:
    rows = [await vaults.back_up() for _ in range(3)]
    other = "UPDATE backups SET wrapped_key = $1 WHERE id = $2"
    await vaults.desk.superuser.execute(other, rows[1]["wrapped_key"], rows[0]["id"])

    job = await vaults.run(CHECK_BACKUPS)

    assert (job["state"], job["done"]) == ("DONE", 3)
    after = await vaults.rows()
    assert [(row["state"], row["reason"]) for row in after] == [
        ("BROKEN", "KEY_REFUSED"),
        ("VERIFIED", None),
        ("VERIFIED", None),
    ]


async def test_a_backup_that_is_being_repaired_is_deleted_by_nobody(
    vaults: Vaults, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, _ = [await vaults.back_up() for _ in range(2)]
    vaults.lose(1)
    refused = []
    mend = repairing.repair

    async def slow(*given: Any, **named: Any) -> Any:
        async with vaults.desk.units.enter(vaults.tenant, None, write=True) as unit:
            try:
                await asked.delete(unit, old["id"])
            except Refused as error:
                refused.append(error.errors[0].code)
        return await mend(*given, **named)

    monkeypatch.setattr(repairing, "repair", slow)
    assert (await vaults.repair(old["id"]))["state"] == "VERIFIED"
    assert refused == ["BACKUP_REFUSED"]


async def test_what_a_repair_made_of_a_backup_that_went_meanwhile_goes_too(
    vaults: Vaults, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, _ = [await vaults.back_up() for _ in range(2)]
    vaults.lose(1)
    mend = repairing.repair

    async def slow(*given: Any, **named: Any) -> Any:
        await vaults.desk.superuser.execute("UPDATE backups SET used_by = '{}' WHERE id = $1", old["id"])
        async with vaults.desk.units.enter(vaults.tenant, None, write=True) as unit:
            await asked.delete(unit, old["id"])
        await vaults.run(RETIRE_BACKUPS)
        return await mend(*given, **named)

    monkeypatch.setattr(repairing, "repair", slow)
    with suppress(CofferError):
        await vaults.run(REPAIR_BACKUP, RepairBackup(old["id"]))
    assert (await vaults.row(old["id"]))["state"] == "EXPIRED"
    assert not [path for path in vaults.objects() if str(old["id"]) in str(path)]


async def test_a_backup_that_another_coding_takes_up_says_so(vaults: Vaults) -> None:
    shutil.rmtree(vaults.folder(5))
    job = await vaults.run(BACK_UP)
    vaults.folder(5).mkdir()
    shape = replace(vaults.depot.shape, coding=Coding.parse("rs:3+3"))
    vaults.use(replace(vaults.depot, shape=shape))

    assert (await vaults.again(job["id"]))["state"] == "DONE"
    assert [(row["coding"], row["state"]) for row in await vaults.rows()] == [("rs:3+3", "VERIFIED")]


async def test_what_is_read_back_is_what_there_was(vaults: Vaults) -> None:
    made = await vaults.add_customers(5)
    row = await vaults.back_up()
    found = await vaults.found(row["id"])
    key = await vaults.depot.open_key(vaults.tenant, row["id"], row["wrapped_key"])
    records = [record async for record in reading.read(found.manifest, vaults.depot.stores, key)]

    assert found.manifest.tables["customers"] == len(made)
    assert [record.partition(b"\n")[0] for record in (records[0], records[-1])] == [b"coffer.rows.v1", b"coffer.end.v1"]


def _mounted(folder: Path) -> bool:
    mount = shutil.which("mount") or "mount"
    return not subprocess.run([mount, "-t", "tmpfs", "-o", "size=32k", "tmpfs", folder], check=False).returncode


def _unmount(folder: Path) -> None:
    subprocess.run([shutil.which("umount") or "umount", "-l", folder], check=True)


def _flipped(content: bytes) -> bytes:
    place = CHANCE.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << CHANCE.randrange(8)]) + content[place + 1 :]


class _worker:  # noqa: N801  # reads as a function
    def __init__(self, settings: str) -> None:
        self._settings = settings

    async def __aenter__(self) -> asyncio.subprocess.Process:
        command = (sys.executable, "-m", "tests.jobs.worker_process", self._settings)
        self._process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.DEVNULL)
        return self._process

    async def __aexit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
