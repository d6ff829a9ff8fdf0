"""Shards are made anew as they were, without the backup's key, and the manifest tells where they are."""

from random import Random

import pytest

from jobs.backups import repairing
from jobs.backups.codings import Coding
from jobs.backups.errors import BackupBroken, ManifestRefused, Refusal
from jobs.backups.finding import find
from jobs.backups.manifests import Expected
from jobs.backups.shapes import Shape
from tests.jobs.backups.yards import BACKUP, PUBLIC_KEYS, TENANT, Yard, flip, sign, some_records


async def test_a_whole_backup_is_left_alone(yard: Yard) -> None:
    manifest = await yard.write(some_records())
    before = yard.files()

    repaired = await yard.repair()

    assert (repaired.manifest, repaired.rewritten) == (manifest, 0)
    assert yard.files() == before


async def test_lost_and_rotten_shards_become_what_they_were_byte_for_byte(yard: Yard) -> None:
    manifest = await yard.write(some_records())
    before = yard.files()
    yard.lose(1)
    flip(yard.path(4, 0), 5)
    flip(yard.path(3, 2), 7)

    repaired = await yard.repair()

    assert repaired.rewritten == manifest.layout.segments + 2
    assert yard.files() == before


async def test_a_shard_that_is_cut_or_too_long_becomes_what_it_was(yard: Yard) -> None:
    await yard.write(some_records())
    before = yard.files()
    yard.path(0, 0).write_bytes(yard.path(0, 0).read_bytes()[:300])
    yard.path(1, 1).write_bytes(yard.path(1, 1).read_bytes() + b"\0")

    await yard.repair()

    assert yard.files() == before


async def test_a_second_repair_finds_nothing_to_do(yard: Yard) -> None:
    await yard.write(some_records())
    yard.lose(0, 2)
    await yard.repair()
    before = yard.files()

    assert (await yard.repair()).rewritten == 0
    assert yard.files() == before


async def test_shards_of_a_lost_store_move_to_its_replacement(yard: Yard) -> None:
    manifest = await yard.write(some_records())
    yard.unmount(2)
    yard.stores[2] = yard.new_store("new")

    repaired = await yard.repair()

    found = await yard.find()
    assert found.manifest == repaired.manifest
    assert (found.manifest.generation, found.manifest.places[2]) == (2, yard.stores[2].url)
    assert found.manifest.identity == manifest.identity
    assert await yard.faults(found.manifest) == []
    assert await yard.read(found.manifest) == some_records()


async def test_without_a_replacement_they_move_to_the_stores_that_are_left(yard: Yard) -> None:
    await yard.write(some_records())
    yard.unmount(0, 3)
    yard.stores = [store for number, store in enumerate(yard.stores) if number not in (0, 3)]

    repaired = await yard.repair()

    assert sorted(map(repaired.manifest.places.count, set(repaired.manifest.places))) == [1, 1, 2, 2]
    assert await yard.faults(repaired.manifest) == []


async def test_a_backup_with_no_shard_to_spare_moves_from_a_store_that_leaves(yard: Yard) -> None:
    old, new = yard.stores[:1], yard.stores[1:2]
    yard.stores = old
    await yard.write(some_records(), shape=Shape(Coding.parse("single"), 1024, 4))
    found = await yard.find()

    repaired = await repairing.repair(found, new, sign, leaving=old)

    yard.stores = new
    assert await yard.read(repaired.manifest) == some_records()
    assert {name.partition("/")[0] for name in yard.files()} == {"1"}


async def test_shards_do_not_move_to_a_store_that_is_away(yard: Yard) -> None:
    await yard.write(some_records())
    yard.unmount(2)
    away = yard.stores[2] = yard.new_store("new")
    (yard.root / "new").rmdir()

    repaired = await yard.repair()

    assert (repaired.away, repaired.manifest.places[2]) == ([away.url], yard.stores[0].url)
    assert await yard.faults(repaired.manifest) == []


async def test_a_store_that_is_away_keeps_its_shards(yard: Yard) -> None:
    manifest = await yard.write(some_records())
    before = yard.files()
    yard.unmount(2)
    flip(yard.path(1, 0), 1)

    repaired = await yard.repair()

    yard.mount(2)
    assert (repaired.away, repaired.rewritten) == ([yard.stores[2].url], 1)
    assert repaired.manifest == manifest
    assert yard.files() == before


async def test_a_store_that_comes_back_is_refused_and_then_brought_up_to_date(yard: Yard) -> None:
    await yard.write(some_records())
    yard.unmount(2)
    others = [store for number, store in enumerate(yard.stores) if number != 2]
    repaired = await yard.repair(stores=others)
    yard.mount(2)

    known = Expected(tenant=TENANT, backup=BACKUP, generation=repaired.manifest.generation)
    with pytest.raises(ManifestRefused) as refused:
        await find([yard.stores[2]], PUBLIC_KEYS, known)
    found = await yard.find()
    await yard.repair()

    assert refused.value.why is Refusal.OLD
    assert found.manifest == repaired.manifest
    assert found.refused == {yard.stores[2].url: Refusal.OLD}
    assert [path.name for path in yard.manifests(2)] == ["manifest-000002.json"]
    assert not yard.path(2, 0).exists()
    assert (await yard.find()).refused == {}


async def test_an_older_generation_that_a_killed_repair_left_is_deleted(yard: Yard) -> None:
    await yard.write(some_records())
    (older,) = (path.read_bytes() for path in yard.manifests(0))
    await yard.repair(stores=yard.stores[:5])
    before = yard.files()
    yard.manifests(0)[0].with_name("manifest-000001.json").write_bytes(older)

    await yard.repair(stores=yard.stores[:5])

    assert yard.files() == before


@pytest.mark.parametrize("content", [b"", b"{}\n{}\n", None])
async def test_a_damaged_or_lost_manifest_is_put_right_from_another_store(yard: Yard, content: bytes | None) -> None:
    await yard.write(some_records())
    before = yard.files()
    (path,) = yard.manifests(3)
    path.unlink() if content is None else path.write_bytes(content)

    await yard.repair()

    assert yard.files() == before


async def test_where_too_much_is_lost_nothing_is_overwritten(yard: Yard) -> None:
    await yard.write(some_records())
    chance = Random(3)  # noqa: S311  # a test's chance, repeatable
    for shard in range(3):
        yard.path(shard, 0).write_bytes(chance.randbytes(yard.path(shard, 0).stat().st_size))
    before = yard.files()

    with pytest.raises(BackupBroken):
        await yard.repair()

    assert yard.files() == before


async def test_half_written_files_of_a_killed_process_are_swept(yard: Yard) -> None:
    await yard.write(some_records())
    before = yard.files()
    yard.path(0, 0).with_name(".00-000000.0123456789abcdef.part").write_bytes(b"half")

    await yard.repair()

    assert yard.files() == before


async def test_progress_comes_as_segments_are_looked_through(yard: Yard) -> None:
    manifest, told = await yard.write(some_records()), []

    async def progress(done: int, of: int) -> None:
        told.append((done, of))

    await repairing.repair(await yard.find(), yard.stores, sign, progress)

    assert told[-1] == (manifest.layout.chunks, manifest.layout.chunks)
