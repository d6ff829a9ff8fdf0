"""Whatever is changed in a backup is found, and named; what is whole is not."""

import os
from dataclasses import replace
from random import Random

import pytest

from crypto.errors import CannotOpen
from jobs.backups import finding, verifying
from jobs.backups.checks import CHECK_BYTES
from jobs.backups.codings import Coding
from jobs.backups.errors import BackupBroken, StoreAway
from jobs.backups.manifests import Manifest
from jobs.backups.shapes import Shape, Span
from jobs.backups.stores import Store
from jobs.backups.verifying import Fault, Rot
from tests.jobs.backups.yards import BACKUP, KEY, TENANT, Yard, flip, second, some_records

FLIPS = 1000 if os.environ.get("COFFER_SOAK") == "1" else 60


def stripe_at(manifest: Manifest, span: Span, place: int) -> int:
    """Whose piece, or whose row of checks, stands there in a shard."""
    start = manifest.layout.checks_start(span)
    if place >= start:
        return span.first + (place - start) // (manifest.layout.shape.coding.shards * CHECK_BYTES)
    return span.first + place // manifest.layout.piece_bytes(0)


async def chunk_faults(yard: Yard, manifest: Manifest, key: bytes = KEY) -> list[Fault]:
    return [fault async for fault in verifying.verify_chunks(manifest, yard.stores, key)]


async def test_a_backup_as_it_was_written_has_no_faults(yard: Yard) -> None:
    manifest = await yard.write(some_records())

    assert manifest.layout.segments > 2
    assert await yard.faults(manifest) == []
    assert await chunk_faults(yard, manifest) == []


async def test_every_changed_byte_is_found_and_named_by_shard_and_stripe(yard: Yard) -> None:
    manifest, chance = await yard.write(some_records()), Random(5)  # noqa: S311  # a test's chance, repeatable
    for _ in range(FLIPS):
        shard, span = chance.randrange(6), manifest.layout.span(chance.randrange(manifest.layout.segments))
        place, path = chance.randrange(manifest.layout.object_bytes(span)), yard.path(shard, span.segment)
        change = chance.randrange(1, 256)
        flip(path, place, change)
        what = Rot.CHECKS if place >= manifest.layout.checks_start(span) else Rot.ROTTEN
        assert await yard.faults(manifest) == [Fault(what, span.segment, shard, stripe_at(manifest, span, place))]
        flip(path, place, change)
    assert await yard.faults(manifest) == []


async def test_every_byte_at_once_is_found(yard: Yard) -> None:
    manifest = await yard.write(some_records())
    path = yard.path(2, 1)
    path.write_bytes(bytes(255 - byte for byte in path.read_bytes()))

    faults = await yard.faults(manifest)

    span = manifest.layout.span(1)
    assert {(fault.what, fault.stripe) for fault in faults} == {
        (what, stripe) for what in (Rot.ROTTEN, Rot.CHECKS) for stripe in range(span.first, span.end)
    }
    assert {(fault.shard, fault.segment) for fault in faults} == {(2, 1)}


@pytest.mark.parametrize("cut", [1, 200, 1100])
async def test_a_shard_cut_off_is_found_from_where_it_ends(yard: Yard, cut: int) -> None:
    manifest = await yard.write(some_records())
    path, span = yard.path(4, 0), manifest.layout.span(0)
    left = path.stat().st_size - cut
    path.write_bytes(path.read_bytes()[:left])

    faults = await yard.faults(manifest)

    first = stripe_at(manifest, span, left)
    assert min(fault.stripe for fault in faults if fault.stripe is not None) == (first if cut < 1000 else 0)
    assert {fault.shard for fault in faults} == {4}
    assert {fault.what for fault in faults} <= {Rot.CHECKS, Rot.TRUNCATED}


async def test_a_shard_cut_to_nothing_and_one_that_grew_are_found(yard: Yard) -> None:
    manifest = await yard.write(some_records())
    yard.path(1, 0).write_bytes(b"")
    yard.path(2, 1).write_bytes(yard.path(2, 1).read_bytes() + b"\0")

    faults = await yard.faults(manifest)

    assert Fault(Rot.TOO_LONG, 1, 2) in faults
    assert [fault.stripe for fault in faults if fault.what is Rot.TRUNCATED] == [0, 1, 2, 3]


async def test_a_lost_shard_and_one_that_is_away_are_told_apart(yard: Yard) -> None:
    manifest = await yard.write(some_records())
    yard.path(0, 1).unlink()
    yard.unmount(5)

    faults = await yard.faults(manifest)

    away = [Fault(Rot.AWAY, segment, 5) for segment in range(manifest.layout.segments)]
    assert sorted(map(repr, faults)) == sorted(map(repr, [Fault(Rot.LOST, 1, 0), *away]))


class Leaving(Store):
    """It lists what it has and then does not answer any more."""

    async def get(self, name: str, start: int, length: int) -> bytes | None:
        raise StoreAway


async def test_a_store_that_goes_away_meanwhile_is_not_called_rotten(yard: Yard) -> None:
    manifest = await yard.write(some_records())
    yard.stores[1] = Leaving(yard.stores[1].url)

    assert {(fault.what, fault.shard) for fault in await yard.faults(manifest)} == {(Rot.AWAY, 1)}
    assert await yard.read(manifest) == some_records()


async def test_pieces_that_changed_places_are_found(yard: Yard) -> None:
    manifest = await yard.write(some_records())
    path, size = yard.path(0, 0), manifest.layout.piece_bytes(0)
    content = path.read_bytes()
    path.write_bytes(content[size : 2 * size] + content[:size] + content[2 * size :])

    assert await yard.faults(manifest) == [Fault(Rot.MOVED, 0, 0, 0), Fault(Rot.MOVED, 0, 0, 1)]


async def test_segments_that_changed_places_are_found(yard: Yard) -> None:
    manifest = await yard.write(some_records())
    one, other = yard.path(3, 0), yard.path(3, 1)
    first, second_one = one.read_bytes(), other.read_bytes()
    one.write_bytes(second_one)
    other.write_bytes(first)

    found = {(fault.segment, fault.shard, fault.stripe) for fault in await yard.faults(manifest)}

    assert found == {(stripe // 4, 3, stripe) for stripe in range(8)}


async def test_another_backups_shard_is_found(yard: Yard) -> None:
    manifest = await yard.write(some_records())
    other = await yard.write(some_records(), second(manifest))
    yard.path(3, 0, other.about).replace(yard.path(3, 0))

    found = {(fault.what, fault.shard, fault.stripe) for fault in await yard.faults(manifest)}

    assert found == {(what, 3, stripe) for what in (Rot.ROTTEN, Rot.CHECKS) for stripe in range(4)}


class Miscounting(Coding):
    """Whose parity is wrong in one shard, as a bug or bad memory would have it."""

    __slots__ = ()

    def encode(self, chunk: bytes) -> list[bytes]:
        pieces = super().encode(chunk)
        return [*pieces[:5], bytes(len(pieces[5]))]


async def test_parity_that_was_written_wrong_is_found_and_never_multiplied(yard: Yard) -> None:
    await yard.write(some_records(), shape=Shape(Miscounting(4, 2), 1024, 4))
    manifest = (await yard.find()).manifest
    stripes = range(manifest.layout.chunks)

    assert await yard.faults(manifest) == [Fault(Rot.PARITY, stripe // 4, 5, stripe) for stripe in stripes]
    with pytest.raises(BackupBroken):
        await yard.repair()
    assert await yard.read(manifest) == some_records()


async def test_a_chunk_of_which_too_little_is_left_is_named(yard: Yard) -> None:
    manifest = await yard.write(some_records())
    for shard in range(3):
        for place in (3, 99):
            flip(yard.path(shard, 1), place)

    assert await chunk_faults(yard, manifest) == [Fault(Rot.LOST, 1, stripe=4)]


async def test_chunks_that_are_whole_but_do_not_open_are_named(yard: Yard) -> None:
    opening = (await yard.write(some_records())).opening
    await finding.discard(yard.stores, TENANT, BACKUP)
    mixed = replace(await yard.write(some_records()), opening=opening)

    assert {fault.what for fault in await chunk_faults(yard, mixed)} == {Rot.SEALED}
    assert await yard.faults(mixed) == []
    with pytest.raises(CannotOpen):
        await yard.read(mixed)


async def test_chunks_are_not_verified_with_another_key(yard: Yard) -> None:
    manifest = await yard.write(some_records())

    with pytest.raises(CannotOpen):
        await chunk_faults(yard, manifest, bytes(32))


async def test_progress_counts_the_stripes(yard: Yard) -> None:
    manifest, told = await yard.write(some_records()), []

    async def progress(done: int, of: int) -> None:
        told.append((done, of))

    assert [fault async for fault in verifying.verify_shards(manifest, yard.stores, progress)] == []

    assert told == [(done + 1, manifest.layout.chunks) for done in range(manifest.layout.chunks)]
