"""Turning over a data key: cut off anywhere it ends, under live writes no row is unreadable and no update is lost."""

import asyncio
import os
import random
import time
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from crypto.keys import KeyState, Purpose
from domain import customers
from domain.customers.fields import Note
from domain.paging import Window
from jobs.brokers import MEMORY
from jobs.rotations import dek
from local.postgres import Postgres
from tenants.backups import BackupKind, BackupRow, BackupState
from tenants.errors import Conflict
from tenants.ids import new_id
from tenants.jobs import JobState
from tenants.keys import data_keys, new_keys, rotating
from tenants.keys.key_files import KeyFileRow
from tenants.keys.rotations import KeyPurpose
from tests.conftest import Vault
from tests.house import House
from tests.house import house as built
from tests.jobs.brokers import fresh_queue
from tests.jobs.data_keys import Cutting, Scene
from tests.jobs.desk import until
from tests.jobs.fleets import Fleet
from tests.soak import soak_only

SOAK = os.environ.get("COFFER_SOAK") == "1"
ROWS, KILLS = (200, 200) if SOAK else (8, 2)
SEED = int(os.environ.get("COFFER_TEST_SEED", "4"))
SMALL_PAGES = "from jobs.rotations import dek; dek.PAGE = 3; import cli; cli.main()"  # the test's rows are many of them
ENDED = {1: "RETIRED", 2: "ACTIVE"}


@pytest.fixture
async def superuser(jobs_house: House) -> AsyncIterator[asyncpg.Pool]:
    async with asyncpg.create_pool(jobs_house.superuser_url, min_size=1, max_size=4) as pool:
        yield pool


@pytest.fixture
async def scene(jobs_house: House, superuser: asyncpg.Pool) -> Scene:
    return await Scene.made(jobs_house, superuser)


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dek, "PAGE", 3)


async def test_after_a_rotation_all_is_sealed_by_the_new_key_and_the_old_one_serves_nobody(scene: Scene) -> None:
    ids = await scene.fill(ROWS)
    before = await scene.clear()
    rotation = await scene.rotate()
    assert (rotation.state, rotation.from_version, rotation.to_version) == ("RETIRED", 1, 2)
    assert rotation.ended_at is not None
    assert (await scene.versions(), await scene.keys()) == ({2}, ENDED)
    assert await scene.notes(ids) == ["0"] * ROWS
    assert await scene.clear() == before  # no version, no moment of change


async def test_a_rotation_tells_nobody_that_customers_changed(scene: Scene) -> None:
    await scene.fill(ROWS)
    counted = (
        "SELECT (SELECT count(*) FROM events WHERE tenant_id = $1 AND type LIKE 'customer.%'),"
        " (SELECT count(*) FROM audit_entries WHERE tenant_id = $1 AND subject_type = 'Customer')"
    )
    before = await scene.superuser.fetchrow(counted, scene.tenant)
    await scene.rotate()
    assert await scene.superuser.fetchrow(counted, scene.tenant) == before
    states = [each["state"] for each in await scene.told("key.rotation.moved")]
    assert states == ["COMMITTED", "FENCED", "RESEALING", "DRAINED", "PROVEN", "RETIRED"]


async def test_progress_counts_the_rows(scene: Scene, small_pages: None) -> None:
    await scene.fill(ROWS)
    _, job = await scene.begin()
    await scene.lead(job)
    row = await scene.superuser.fetchrow("SELECT done, total FROM jobs WHERE id = $1", job)
    assert row is not None
    assert row["done"] == row["total"] >= ROWS


async def test_the_proof_is_signed(scene: Scene) -> None:
    await scene.fill(ROWS)
    rotation = await scene.rotate()
    keys = await scene.house.api.keys.public_keys(rotating.SIGNED_BY)
    assert rotation.key_version is not None
    assert rotation.signature is not None
    public = Ed25519PublicKey.from_public_bytes(keys[rotation.key_version])
    public.verify(b64decode(rotation.signature), rotating.proof_message(scene.tenant, rotation.proof))
    assert rotation.proof["values"]["customers.profile"] == {"2": ROWS}
    assert (rotation.proof["fromVersion"], rotation.proof["toVersion"]) == (1, 2)


async def test_two_rotations_in_a_row(scene: Scene) -> None:
    ids = await scene.fill(ROWS)
    await scene.rotate()
    await scene.rotate()
    assert (await scene.versions(), await scene.keys()) == ({3}, {1: "RETIRED", 2: "RETIRED", 3: "ACTIVE"})
    assert await scene.notes(ids) == ["0"] * ROWS


async def test_a_key_that_a_restore_took_up_again_is_left_with_the_next(scene: Scene) -> None:
    ids = await scene.fill(2)
    old = await scene.superuser.fetchval("SELECT profile FROM customers WHERE id = $1", ids[0])
    await scene.rotate()
    again = "UPDATE data_keys SET state = 'DECRYPT_ONLY' WHERE tenant_id = $1 AND purpose = 'DEK' AND version = 1"
    await scene.superuser.execute(again, scene.tenant)
    await scene.superuser.execute("UPDATE customers SET profile = $2 WHERE id = $1", ids[0], old)
    await scene.superuser.execute("UPDATE tenants SET key_epoch = key_epoch + 1 WHERE id = $1", scene.tenant)
    await scene.rotate()
    assert (await scene.versions(), await scene.keys()) == ({3}, {1: "RETIRED", 2: "RETIRED", 3: "ACTIVE"})
    assert await scene.notes(ids) == ["0", "0"]


async def test_asking_twice_makes_one_rotation_and_one_key(scene: Scene) -> None:
    first, job = await scene.begin()
    again, same = await scene.begin()
    await scene.lead(job)
    assert (first, job) == (again, same)
    assert await scene.keys() == ENDED


async def test_after_a_rotation_a_search_finds_what_a_full_scan_finds(scene: Scene) -> None:
    ids = await scene.fill(ROWS)
    await scene.rotate()
    async with scene.fresh_units().enter(scene.tenant, None, write=False) as unit:
        for n, customer in enumerate(ids):
            page = await customers.find(unit, "emails", f"ada{n}@example.org", Window(10))
            assert [view.id for view in page.nodes] == [customer]


async def test_a_key_that_was_wrapped_before_the_tenants_key_turned_over_is_not_kept(scene: Scene) -> None:
    maker, opener = scene.house.provisioning._maker, scene.house.api.keys
    made = await new_keys.make(maker, opener, scene.tenant, Purpose.DEK, 2, KeyState.NEXT)
    units = scene.fresh_units()
    async with units.enter(scene.tenant, None, write=True) as unit:
        anew = "UPDATE data_keys SET wrapped = replace(wrapped, 'vault:v1:', 'vault:v2:') WHERE tenant_id = $1"
        await scene.superuser.execute(anew, scene.tenant)
        with pytest.raises(Conflict):
            await data_keys.check_in(unit, made)


# Cut off


@pytest.mark.parametrize("where", ["before", "within", "after"])
@pytest.mark.parametrize("first", [2, 3, 5])
async def test_cut_off_again_and_again_the_job_ends_and_all_rows_open_all_the_while(
    scene: Scene, small_pages: None, where: str, first: int
) -> None:
    ids = await scene.fill(ROWS)
    rotation, job = await scene.begin()
    state, leads = "READY", 0
    while state != JobState.DONE:
        cutting = scene.fresh_units()
        cutting.at, cutting.where = first + leads % 3, where  # so that some get further than those before
        state, leads = await scene.lead(job, cutting), leads + 1
        assert state in {JobState.READY, JobState.DONE}, await scene.reason(job)
        assert await scene.notes(ids) == ["0"] * ROWS
        assert leads < 60, "it makes no headway"
    assert leads > 1
    assert (await scene.versions(), await scene.keys()) == ({2}, ENDED)
    assert (await scene.rotation(rotation)).ended_at is not None


async def test_a_cancelled_job_is_followed_by_one_that_goes_on_where_it_stood(scene: Scene, small_pages: None) -> None:
    ids = await scene.fill(ROWS)
    rotation, job = await scene.begin()
    cutting = scene.fresh_units()
    cutting.at, cutting.where = 6, "after"  # in the midst of resealing
    await scene.lead(job, cutting)
    assert await scene.versions() == {1, 2}
    await scene.superuser.execute("UPDATE jobs SET state = 'CANCELLED', ended_at = now() WHERE id = $1", job)
    again, next_job = await scene.begin()
    assert (again, next_job != job) == (rotation, True)
    assert await scene.lead(next_job) == JobState.DONE
    assert (await scene.versions(), await scene.keys(), await scene.notes(ids)) == ({2}, ENDED, ["0"] * ROWS)


# Others at work


async def _updated(scene: Scene, units: Cutting, customer: UUID, number: int) -> None:
    """Tried until it is taken, as a client does."""
    while True:
        try:
            async with units.enter(scene.tenant, None, write=True) as unit:
                view = await customers.get(unit, customer)
                await customers.update(unit, customer, view.version, {"note": str(number)})
            return
        except Conflict:
            continue


@dataclass
class Live:
    """Writers and readers of one tenant, until told to stop."""

    scene: Scene
    ids: list[UUID]
    said: dict[UUID, str] = field(default_factory=dict)
    reads: int = 0
    stopped: bool = False

    async def write(self, mine: list[UUID]) -> None:
        units, number = self.scene.fresh_units(), 0
        while not self.stopped:
            number += 1
            await _updated(self.scene, units, mine[number % len(mine)], number)
            self.said[mine[number % len(mine)]] = str(number)

    async def read(self) -> None:
        units = self.scene.fresh_units()
        while not self.stopped:
            await self.scene.notes(self.ids, units)
            self.reads += 1


async def test_live_writers_and_readers_of_two_tenants_lose_nothing(
    jobs_house: House, superuser: asyncpg.Pool, small_pages: None
) -> None:
    scenes = [await Scene.made(jobs_house, superuser) for _ in range(2)]
    lives = [Live(scene, await scene.fill(ROWS)) for scene in scenes]
    async with asyncio.TaskGroup() as group:
        for live in lives:
            group.create_task(live.write(live.ids[::2]))
            group.create_task(live.write(live.ids[1::2]))
            group.create_task(live.read())
        for _ in range(2):
            jobs = [(await scene.begin())[1] for scene in scenes]
            for scene, job in zip(scenes, jobs, strict=True):
                while await scene.lead(job, scene.fresh_units()) != JobState.DONE:
                    assert await scene.state(job) == JobState.READY, await scene.reason(job)
        for live in lives:
            live.stopped = True
    for live in lives:
        assert await live.scene.versions() == {3}
        assert live.reads
        assert await live.scene.notes(live.ids) == [live.said.get(each, "0") for each in live.ids]


async def test_a_transaction_that_sealed_under_the_old_key_and_commits_late_is_resealed(scene: Scene) -> None:
    ids = await scene.fill(2)
    _, job = await scene.begin()
    async with scene.fresh_units().enter(scene.tenant, None, write=True) as late:
        view = await customers.get(late, ids[0])
        await customers.update(late, ids[0], view.version, {"note": "late"})
        leading = asyncio.create_task(scene.lead(job))

        async def is_kept() -> bool:
            return (await scene.keys()).get(2) == "NEXT"

        await until(is_kept)
        begun = time.monotonic()
        await scene.fill(1)  # whoever comes while the fence waits
        assert time.monotonic() - begun < 1.2
        assert await scene.keys() == {1: "ACTIVE", 2: "NEXT"}
        assert late.keyring.active_version(Purpose.DEK) == 1
    assert await leading == JobState.DONE
    assert await scene.versions() == {2}
    assert await scene.notes(ids) == ["late", "0"]


async def test_behind_a_transaction_that_holds_on_the_job_waits_and_nothing_is_half_done(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dek, "_FENCES", 1)
    await scene.fill(1)
    _, job = await scene.begin()
    async with scene.fresh_units().enter(scene.tenant, None, write=True):
        assert await scene.lead(job) == JobState.READY
    assert (await scene.reason(job), await scene.keys()) == ("CONFLICT", {1: "ACTIVE", 2: "NEXT"})
    assert await scene.lead(job) == JobState.DONE


async def test_a_writer_that_waited_for_the_fence_seals_by_the_new_key(scene: Scene) -> None:
    await scene.fill(1)
    units = scene.fresh_units()
    async with units.enter(scene.tenant, None, write=True) as unit:
        assert unit.keyring.active_version(Purpose.DEK) == 1
    rotation, job = await scene.begin()
    cutting = scene.fresh_units()
    cutting.at, cutting.where = 2, "after"
    await scene.lead(job, cutting)

    async def write() -> int:
        async with units.enter(scene.tenant, None, write=True) as unit:
            return unit.keyring.active_version(Purpose.DEK)

    async with scene.units.enter(scene.tenant, None, write=True, fences=True) as fence:
        waiting = asyncio.create_task(write())
        waits = "SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"

        async def is_waiting() -> bool:
            return bool(await scene.superuser.fetchval(waits))

        await until(is_waiting)
        await data_keys.put_in_force(fence, 1, 2)
        await rotating.move(fence, rotation, "FENCED")
    assert await waiting == 2


async def test_a_reader_goes_on_by_the_keys_of_its_snapshot(scene: Scene) -> None:
    ids = await scene.fill(ROWS)
    async with scene.fresh_units().enter(scene.tenant, None, write=False) as reader:
        await scene.rotate()
        for view in await customers.get_many(reader, ids):
            assert view is not None
            note = view.document("note", "to look")
            assert isinstance(note, Note)
            assert note.note == "0"


async def test_a_row_that_somebody_holds_is_met_again(scene: Scene, small_pages: None) -> None:
    ids = await scene.fill(ROWS)
    _, job = await scene.begin()
    async with AsyncExitStack() as held:
        connection = await asyncpg.connect(scene.house.superuser_url)
        held.push_async_callback(connection.close)
        await connection.execute("BEGIN")
        await connection.execute("SELECT FROM customers WHERE id = $1 FOR UPDATE", ids[1])
        leading = asyncio.create_task(scene.lead(job))

        async def is_all_else_done() -> bool:
            left = "SELECT count(*) FROM customers WHERE tenant_id = $1 AND get_byte(profile, 5) = 1"
            return bool(await scene.superuser.fetchval(left, scene.tenant) == 1)

        await until(is_all_else_done)
        await connection.execute("COMMIT")
    assert await leading == JobState.DONE
    assert await scene.versions() == {2}


async def test_while_a_row_is_held_for_long_the_job_comes_back_later(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dek, "_IDLE_PASSES", 1)
    ids = await scene.fill(2)
    _, job = await scene.begin()
    connection = await asyncpg.connect(scene.house.superuser_url)
    try:
        await connection.execute("BEGIN")
        await connection.execute("SELECT FROM customers WHERE id = $1 FOR UPDATE", ids[1])
        assert await scene.lead(job) == JobState.READY
    finally:
        await connection.close()
    assert await scene.reason(job) == "ROTATION_WAITS"
    assert await scene.lead(job) == JobState.DONE


# What stops it


async def test_a_value_that_does_not_open_parks_the_job_and_is_named(scene: Scene, small_pages: None) -> None:
    ids = await scene.fill(ROWS)
    flipped = "UPDATE customers SET note = set_byte(note, 40, get_byte(note, 40) # 1) WHERE id = $1"
    await scene.superuser.execute(flipped, ids[5])
    rotation, job = await scene.begin()
    assert await scene.lead(job) == JobState.PARKED
    assert (await scene.reason(job), (await scene.rotation(rotation)).state) == ("VALUE_DAMAGED", "RESEALING")
    (told,) = await scene.told("key.rotation.stopped")
    assert (told["place"], told["row"]) == ("customers.note", str(ids[5]))
    await scene.superuser.execute(flipped, ids[5])
    _, again = await scene.begin()
    assert await scene.lead(again) == JobState.DONE
    assert await scene.notes(ids) == ["0"] * ROWS


async def test_a_value_without_its_subject_parks_the_job(scene: Scene) -> None:
    ids = await scene.fill(2)
    await scene.superuser.execute("DELETE FROM subjects WHERE id = $1", ids[0])
    _, job = await scene.begin()
    assert await scene.lead(job) == JobState.PARKED
    assert (await scene.told("key.rotation.stopped"))[0]["row"] == str(ids[0])


# The end of a key


async def test_a_retired_key_that_nothing_needs_is_destroyed(scene: Scene) -> None:
    rotation = await scene.rotate()
    async with scene.units.enter(scene.tenant, None, write=True) as unit:
        assert await data_keys.destroy_unneeded(unit) == 1
    assert await scene.keys() == {1: "DESTROYED", 2: "ACTIVE"}
    wrapped = "SELECT wrapped FROM data_keys WHERE tenant_id = $1 AND purpose = 'DEK' AND version = 1"
    assert await scene.superuser.fetchval(wrapped, scene.tenant) == ""
    assert (await scene.rotation(rotation.id)).state == "DESTROYED"
    async with scene.units.enter(scene.tenant, None, write=True) as unit:
        assert await data_keys.destroy_unneeded(unit) == 0


async def test_a_retired_key_that_a_backup_needs_stays(scene: Scene) -> None:
    await scene.rotate()
    async with scene.units.enter(scene.tenant, None, write=True) as unit:
        unit.add(
            BackupRow(
                tenant_id=scene.tenant,
                id=new_id(),
                number=1,
                kind=BackupKind.ASKED,
                state=BackupState.VERIFIED,
                created_at=unit.now,
                coding="single",
                places=[],
                dek_versions=[1],
                wrapped_key="vault:v1:none",
            )
        )
    async with scene.units.enter(scene.tenant, None, write=True) as unit:
        assert await data_keys.destroy_unneeded(unit) == 0
    assert await scene.keys() == ENDED


async def test_a_retired_key_that_only_the_key_file_lists_waits_for_a_new_one(scene: Scene) -> None:
    await scene.rotate()
    async with scene.units.enter(scene.tenant, None, write=True) as unit:
        lists = {"kek_versions": [1], "dek_versions": [1, 2], "sha256": bytes(32), "created_at": unit.now}
        unit.add(KeyFileRow(tenant_id=scene.tenant, generation=1, state="CURRENT", **lists))
    async with scene.units.enter(scene.tenant, None, write=True) as unit:
        assert await data_keys.destroy_unneeded(unit) == 0
    publishing = "SELECT count(*) FROM jobs WHERE tenant_id = $1 AND kind = 'publish_key_file'"
    assert await scene.superuser.fetchval(publishing, scene.tenant) == 1
    assert await scene.keys() == ENDED


# SIGKILL


@pytest.fixture
async def apart(postgres_server: Postgres, vault: Vault) -> AsyncIterator[House]:
    async with built(postgres_server, vault, f"coffer_dek_{uuid4().hex[:12]}", slugs=("acme",)) as made:
        yield made


@soak_only
async def test_killed_workers_lose_no_row_and_no_update(apart: House, tmp_path: Path) -> None:
    chance = random.Random(SEED)  # noqa: S311  # a test's chance, repeatable
    superuser = await asyncpg.create_pool(apart.superuser_url, min_size=1, max_size=4)
    scene = await Scene.made(apart, superuser)
    live, met = Live(scene, await scene.fill(ROWS * 50)), 0
    with fresh_queue(MEMORY) as queue:
        async with Fleet.running(apart, tmp_path, MEMORY, queue, servers=1, workers=0) as fleet:
            (victim,) = fleet.servers
            victim.code = SMALL_PAGES
            await fleet.all_up()
            writing = asyncio.create_task(live.write(live.ids))
            for _ in range(KILLS):
                rotation, _ = await scene.begin()
                await _until_resealing(scene, rotation)
                await asyncio.sleep(chance.uniform(0, 0.5))  # the random moment, which is the matter here
                await victim.kill()
                met += (await scene.rotation(rotation)).state == "RESEALING"
                await victim.start()
            rotation, job = await scene.begin()
            await _until_done(scene, rotation, job)
            live.stopped = True
            await writing
    assert met, "no kill met a rotation"
    assert await scene.notes(live.ids) == [live.said.get(each, "0") for each in live.ids]
    assert len(await scene.versions()) == 1
    await superuser.close()


async def _until_resealing(scene: Scene, rotation: UUID) -> None:
    async def is_resealing() -> bool:
        row = await scene.rotation(rotation)
        return row.state == "RESEALING" or row.ended_at is not None

    await until(is_resealing, 120)


async def _until_done(scene: Scene, rotation: UUID, job: UUID) -> None:
    """One that saw three of its workers killed is let go on, as an operator would."""

    async def has_ended() -> bool:
        if await scene.state(job) == JobState.PARKED:
            assert await scene.reason(job) == "WORKER_DIED"
            await scene.begin()
        return (await scene.rotation(rotation)).ended_at is not None

    await until(has_ended, 120)
    assert (await scene.rotation(rotation)).purpose == KeyPurpose.DEK
