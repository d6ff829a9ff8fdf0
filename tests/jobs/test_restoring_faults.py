"""A restore that is cut off, lied to or robbed of its stores leaves the tenant as it was, and not frozen."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from random import Random
from uuid import UUID

import pytest

from domain import backups, restores
from domain.errors import Refused
from domain.restores import Restore
from jobs.backups.shapes import folder
from jobs.key_files import finding as key_files
from tenants.backups import freezes
from tenants.errors import TenantFrozen
from tenants.ids import new_id
from tenants.jobs import JobId
from tenants.unit import Unit
from tests.jobs.data_keys import Cutting
from tests.jobs.desk import Desk
from tests.jobs.restorations import Restorations
from tests.jobs.vaults import Vaults

SOAK = os.environ.get("COFFER_SOAK") == "1"
UNITS = 19  # at least as many as a restore enters
CUTS = [(at, where) for at in range(1, UNITS + 1) for where in ("before", "within", "after")]


@pytest.fixture
async def restorations(desk: Desk, tmp_path: Path) -> AsyncIterator[Restorations]:
    async with Vaults.opened(desk, tmp_path, f"r-{new_id().hex[-12:]}") as opened:
        yield Restorations(opened)


def cutting(restorations: Restorations, at: int | None, where: str = "within") -> Cutting:
    api = restorations.vaults.desk.house.api
    units = Cutting(api.database, api.keys, restorations.units._cache)
    units.at, units.where = at, where
    return units


@pytest.mark.parametrize("seed", range(6 if SOAK else 1))
async def test_cut_off_anywhere_it_is_as_before_or_done(restorations: Restorations, seed: int) -> None:
    await restorations.fill(12)
    wanted = await restorations.picture()
    backup = await restorations.vaults.back_up()
    await restorations.fill(3)
    before = await restorations.picture()
    for at, where in CUTS if SOAK else Random(seed).sample(CUTS, 8):  # noqa: S311
        job = await restorations.restore(backup["id"], units=cutting(restorations, at, where))
        assert await restorations.picture() in (before, wanted)
        await freezes.thaw_abandoned(restorations.vaults.desk.house.api.platform)  # as every worker does
        assert await restorations.frozen() is None
        if job["state"] == "DONE":
            break
        await restorations.vaults.desk.set(job["id"], "state = 'CANCELLED', ended_at = now()")

    assert (await restorations.restore(backup["id"]))["state"] == "DONE"
    assert await restorations.picture() == wanted


async def test_a_freeze_whose_worker_died_is_ended_by_others(restorations: Restorations) -> None:
    vaults, desk = restorations.vaults, restorations.vaults.desk
    await restorations.fill(2)
    backup = await vaults.back_up()
    job = await restorations.restore(backup["id"], units=cutting(restorations, 1, "before"))
    async with restorations.units.enter(vaults.tenant, None, write=True, fences=True, thaws=True) as unit:
        epoch = await freezes.freeze(unit)
    await desk.set(job["id"], "state = 'RUNNING', lease_until = now()")
    assert await freezes.thaw_abandoned(desk.house.api.platform) == []

    await desk.set(job["id"], "state = 'PARKED', lease_until = NULL, ended_at = now()")

    assert await freezes.thaw_abandoned(desk.house.api.platform) == [vaults.tenant]
    assert await restorations.frozen() is None
    async with restorations.units.enter(vaults.tenant, None, write=True, fences=True, thaws=True) as unit:
        await freezes.freeze(unit)
    async with restorations.units.enter(vaults.tenant, None, write=True, thaws=True) as unit:
        await freezes.thaw(unit, epoch)  # the dead worker's, should it come back
    assert await restorations.frozen() == "RESTORE"


async def test_live_writers_lose_nothing_that_was_acknowledged(restorations: Restorations) -> None:
    """What was acknowledged before the freeze is in the backup of before, and what comes while it stands is refused."""
    vaults = restorations.vaults
    await restorations.fill(40)
    backup = await vaults.back_up()
    acknowledged: list[UUID] = []
    refused: list[int] = []
    is_over = asyncio.Event()

    async def write() -> None:
        while not is_over.is_set():
            try:
                acknowledged.extend(await restorations.fill(1))
            except TenantFrozen:
                refused.append(1)
                await asyncio.sleep(0.01)

    writers = [asyncio.create_task(write()) for _ in range(3)]
    job = await restorations.restore(backup["id"])
    for _ in range(20):
        if job["state"] == "DONE":
            break
        job = await restorations.again(job["id"])
    is_over.set()
    await asyncio.gather(*writers)

    assert job["state"] == "DONE", job["reason"]
    assert refused and acknowledged
    after = set((await restorations.picture())["customers"])
    safety = await restorations.restore((await vaults.rows())[-1]["id"], without_safety=True)
    assert safety["state"] == "DONE"
    before = set((await restorations.picture())["customers"])
    assert {str(each) for each in acknowledged} <= before | after


async def test_two_stores_lost_and_flipped_bytes_cost_nothing(restorations: Restorations) -> None:
    await restorations.fill(30)
    wanted = await restorations.picture()
    backup = await restorations.vaults.back_up()
    for number in (1, 4):
        restorations.vaults.lose(number)
    for shard in restorations.vaults.shards(0)[:3]:
        _flip(shard, 40)
    await restorations.fill(2)

    job = await restorations.restore(backup["id"], without_safety=True)

    assert (job["state"], job["reason"]) == ("DONE", None)
    assert await restorations.picture() == wanted


async def test_three_stores_lost_is_told_and_changes_nothing(restorations: Restorations) -> None:
    await restorations.fill(30)
    backup = await restorations.vaults.back_up()
    await restorations.fill(2)
    before = await restorations.picture()
    for number in (1, 3, 4):
        restorations.vaults.lose(number)

    job = await restorations.restore(backup["id"], without_safety=True)

    assert (job["state"], job["reason"]) == ("PARKED", "BACKUP_BROKEN")
    assert await restorations.picture() == before
    assert await restorations.frozen() is None


async def test_stores_that_are_away_leave_the_tenant_thawed_and_the_job_waiting(restorations: Restorations) -> None:
    await restorations.fill(5)
    vaults = restorations.vaults
    backup = await vaults.back_up()
    for number in range(3):
        vaults.folder(number).rename(vaults.root / f"away-{number}")

    job = await restorations.restore(backup["id"], without_safety=True)
    assert (job["state"], job["reason"], await restorations.frozen()) == ("READY", "STORE_AWAY", None)

    for number in range(3):
        (vaults.root / f"away-{number}").rename(vaults.folder(number))
    assert (await restorations.again(job["id"]))["state"] == "DONE"


async def test_one_store_that_is_away_ends_a_restore_at_once_and_holds_up_no_backup(restorations: Restorations) -> None:
    await restorations.fill(3)
    vaults = restorations.vaults
    backup = await vaults.back_up()
    await restorations.fill(1)
    before, epoch = await restorations.picture(), await restorations.epoch()
    vaults.folder(0).rename(vaults.root / "away")

    job = await restorations.restore(backup["id"])

    assert (job["state"], job["reason"], await restorations.frozen()) == ("PARKED", "NO_SAFETY_BACKUP", None)
    assert (await restorations.picture(), await restorations.epoch()) == (before, epoch)  # it never was
    (vaults.root / "away").rename(vaults.folder(0))
    await vaults.desk.set(job["id"], "state = 'PAUSED', ended_at = NULL")
    assert (await vaults.back_up())["number"] == 2

    vaults.folder(0).rename(vaults.root / "away")
    done = await restorations.restore(backup["id"], without_safety=True)
    assert (done["state"], len((await restorations.picture())["customers"])) == ("DONE", 3)


async def test_another_backups_or_an_older_manifest_is_refused_with_the_reason(restorations: Restorations) -> None:
    await restorations.fill(3)
    vaults = restorations.vaults
    first, second = [await vaults.back_up() for _ in range(2)]
    before = await restorations.picture()

    for number in range(6):  # the older one in the newer one's place
        mine = vaults.folder(number) / folder(vaults.tenant, second["id"])
        shutil.rmtree(mine)
        shutil.copytree(vaults.folder(number) / folder(vaults.tenant, first["id"]), mine)
    assert (await _refusal(restorations, second["id"])) == "MANIFEST_FOREIGN"
    await restorations.superuser.execute("UPDATE backups SET number = 7 WHERE id = $1", first["id"])
    assert (await _refusal(restorations, first["id"])) == "MANIFEST_OLD"
    await restorations.superuser.execute(
        "UPDATE backups SET number = 1, identity = $2 WHERE id = $1", first["id"], second["identity"]
    )
    assert (await _refusal(restorations, first["id"])) == "MANIFEST_REORDERED"
    for number in range(6):
        (manifest,) = (vaults.folder(number) / folder(vaults.tenant, first["id"])).glob("manifest-*")
        manifest.write_bytes(manifest.read_bytes()[:200])
    assert (await _refusal(restorations, first["id"])) == "MANIFEST_TRUNCATED"
    assert await restorations.picture() == before


async def test_an_old_or_another_tenants_key_file_is_refused_with_the_reason(restorations: Restorations) -> None:
    await restorations.fill(3)
    vaults, depot = restorations.vaults, restorations.vaults.depot
    backup = await vaults.back_up()
    current = (await depot.key_files.read(vaults.tenant)).generation
    name = key_files.name(vaults.tenant, current)
    old = [(vaults.folder(number) / name).read_bytes() for number in range(6)]
    newer = await depot.key_files.publish(vaults.tenant)
    for number in range(6):
        (vaults.folder(number) / key_files.name(vaults.tenant, newer)).unlink()
        (vaults.folder(number) / name).write_bytes(old[number])

    assert await _refusal(restorations, backup["id"]) == "KEY_FILE_OLD"


async def test_what_was_deleted_since_it_was_looked_at_is_not_restored(
    restorations: Restorations, monkeypatch: pytest.MonkeyPatch
) -> None:
    vaults = restorations.vaults
    backup = await vaults.back_up()
    await vaults.back_up()
    look = restores._check

    async def deleting(unit: Unit, backup: UUID) -> None:
        await look(unit, backup)
        async with restorations.units.enter(vaults.tenant, None, write=True) as other:
            await backups.delete(other, backup)

    monkeypatch.setattr(restores, "_check", deleting)
    starts: list[Callable[[Unit], Awaitable[JobId]]] = [
        lambda unit: restores.start(unit, Restore(backup["id"])),
        lambda unit: restores.start_drill(unit, backup["id"]),
    ]
    for start in starts:
        await vaults.desk.superuser.execute("UPDATE backups SET state = 'VERIFIED' WHERE id = $1", backup["id"])
        with pytest.raises(Refused) as refused:
            async with restorations.units.enter(vaults.tenant, None, write=True) as unit:
                await start(unit)
        assert [error.code for error in refused.value.errors] == ["BACKUP_REFUSED"]


async def _refusal(restorations: Restorations, backup: UUID) -> str:
    job = await restorations.restore(backup, without_safety=True)
    assert job["state"] == "PARKED", (job["state"], job["reason"])
    assert await restorations.frozen() is None
    return str(job["reason"])


def _flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
