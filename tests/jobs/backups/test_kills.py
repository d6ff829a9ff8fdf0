"""A process is killed while it writes or repairs: what has its final name is whole, and the next try finishes."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from jobs.backups import finding
from jobs.backups.checks import CHECK_BYTES, is_whole
from jobs.backups.shapes import Layout
from jobs.backups.verifying import Rot
from tests.jobs.backups.yards import BACKUP, FIRST, TENANT, WIDE, Yard, long_records, some_records

KILLS = 100 if os.environ.get("COFFER_SOAK") == "1" else 5
SEED = int(os.environ.get("COFFER_TEST_SEED", "4"))


@pytest.fixture
def chance() -> Iterator[Random]:
    yield Random(SEED)  # noqa: S311  # a test's chance, repeatable


async def killed(root: Path, act: str, after: float) -> bool:
    """Whether it was killed, that many seconds after it began, rather than done before."""
    command = (sys.executable, "-m", "tests.jobs.backups.backup_process", str(root), act)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"begun\n"
    await asyncio.sleep(after)  # the random moment, which is the matter here
    if process.returncode is None:
        process.kill()
    return await process.wait() == -signal.SIGKILL


def broken_objects(yard: Yard, layout: Layout) -> list[str]:
    """Those under final names that are not whole by their own checks."""
    found = []
    for path in yard.root.rglob("[0-9][0-9]-[0-9]*"):
        shard, segment = (int(number) for number in path.name.split("-"))
        span, content = layout.span(segment), path.read_bytes()
        checks = content[layout.checks_start(span) :]
        for row, stripe in enumerate(range(span.first, span.end)):
            start = layout.piece_start(stripe)
            check = checks[(row * 6 + shard) * CHECK_BYTES :][:CHECK_BYTES]
            if not is_whole(content[start : start + layout.piece_bytes(stripe)], check):
                found.append(path.name)
        if len(content) != layout.object_bytes(span):
            found.append(path.name)
    return found


async def test_a_writer_that_is_killed_leaves_only_whole_objects_and_no_manifest(yard: Yard, chance: Random) -> None:
    records, begun = long_records(), time.monotonic()
    layout = (await yard.write(records, shape=WIDE)).layout
    lasting, kills = time.monotonic() - begun, 0
    while kills < KILLS:
        await finding.discard(yard.stores, TENANT, BACKUP)
        if await killed(yard.root, "write", chance.uniform(0, lasting)):
            kills += 1
            assert broken_objects(yard, layout) == []
            if any(yard.manifests(store) for store in range(6)):
                assert await yard.faults((await yard.find()).manifest) == []
    await finding.discard(yard.stores, TENANT, BACKUP)

    manifest = await yard.write(records, shape=WIDE)

    assert (await yard.faults(manifest), await yard.read(manifest)) == ([], records)
    assert [name for name in yard.files() if name.endswith(".part")] == []


async def test_a_repairer_that_is_killed_has_repaired_what_it_has_and_the_next_one_goes_on(
    yard: Yard, chance: Random
) -> None:
    manifest, kills = await yard.write(long_records(), shape=WIDE), 0
    before = yard.files()
    yard.lose(1, 4)
    begun = time.monotonic()
    await yard.repair()
    lasting = time.monotonic() - begun
    while kills < KILLS:
        yard.lose(1, 4)
        kills += await killed(yard.root, "repair", chance.uniform(0, lasting))
        faults = await yard.faults(manifest)
        assert {fault.what for fault in faults} <= {Rot.LOST}
        assert (await yard.find()).manifest.identity == manifest.identity
        rewritten = (await yard.repair()).rewritten
        assert rewritten == len(faults)
        assert yard.files() == before


async def test_a_second_run_of_a_killed_writer_needs_nobody_to_tidy_up(yard: Yard) -> None:
    part = yard.path(0, 3).with_name(".00-000003.0123456789abcdef.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(b"half")
    yard.path(0, 0).write_bytes(b"of another salt")
    yard.path(0, 99).write_bytes(b"left by a longer one")

    manifest = await yard.write(some_records())

    assert await yard.faults(manifest) == []
    names = {f"{shard:02}-{segment:06}" for shard in range(6) for segment in range(manifest.layout.segments)}
    assert {Path(name).name for name in yard.files()} == {*names, "manifest-000001.json"}
    assert manifest.about == FIRST
