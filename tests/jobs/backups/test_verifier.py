"""`examples/verify_backup.py` reads our backups knowing nothing of us, and finds what we find."""

import ast
import asyncio
import sys
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from jobs.backups.codings import Coding
from jobs.backups.manifests import Manifest
from jobs.backups.shapes import Shape, folder
from tests.jobs.backups.yards import (
    BACKUP,
    FIRST,
    KEY,
    OTHER_TENANT,
    PUBLIC_KEYS,
    SECOND,
    SMALL,
    TENANT,
    Yard,
    flip,
    some_records,
)

SCRIPT = Path(__file__).parents[3] / "examples" / "verify_backup.py"
UNUSED = bytes(32).hex()  # versions 1 and 2; ours is 3


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "backup.key"
    path.write_text(KEY.hex() + "\n")
    return path


async def verifier(
    yard: Yard,
    *more: object,
    key: str = PUBLIC_KEYS[3].hex(),
    stores: Sequence[int] = range(6),
    backups: Sequence[UUID] = (BACKUP,),
) -> tuple[int, str, str]:
    """Its end, what it says, and what it complains of."""
    folders = [str(yard.root / str(store) / folder(TENANT, each)) for each in backups for store in stores]
    keys = [word for each in (UNUSED, UNUSED, key) for word in ("--public-key", each)]
    command = (sys.executable, "-I", str(SCRIPT), *folders, *keys, *map(str, more))
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    said, complained = await process.communicate()
    return process.returncode or 0, said.decode(), complained.decode()


async def written(yard: Yard, coding: str = "rs:4+2") -> Manifest:
    return await yard.write(some_records(), shape=Shape(Coding.parse(coding), 1024, 4))


@pytest.mark.parametrize("coding", ["single", "mirror:3", "rs:4+2", "rs:5+3"])
async def test_a_whole_backup_is_opened_and_counted(yard: Yard, key_file: Path, coding: str) -> None:
    manifest = await written(yard, coding)

    end, said, complained = await verifier(yard, "--key-file", key_file, "--tenant", TENANT)

    assert (end, complained) == (0, "")
    assert f"chunks that can be read: {manifest.layout.chunks} of {manifest.layout.chunks}\n" in said
    assert f"opened: {manifest.records} records, {manifest.record_bytes} bytes\n" in said


async def test_with_two_stores_lost_and_a_shard_rotten_elsewhere_it_names_what_is_damaged(
    yard: Yard, key_file: Path
) -> None:
    manifest = await written(yard)
    yard.lose(0, 3)

    end, said, _ = await verifier(yard, "--key-file", key_file)

    assert end == 1
    assert said.count("shard 0 segment ") == said.count("shard 3 segment ") == manifest.layout.segments
    assert f"opened: {manifest.records} records" in said


@pytest.mark.parametrize(("place", "named"), [(3, "shard 2 stripe 4: damaged"), (-1, "shard 2 segment 1: checks")])
async def test_a_changed_byte_is_named_without_any_key(yard: Yard, place: int, named: str) -> None:
    await written(yard)
    flip(yard.path(2, 1), place)

    end, said, _ = await verifier(yard)

    assert end == 1
    assert named in said


async def test_too_much_lost_is_told(yard: Yard, key_file: Path) -> None:
    manifest = await written(yard)
    for shard in (0, 1, 2):
        yard.path(shard, 0).unlink()

    end, said, _ = await verifier(yard, "--key-file", key_file)

    assert end == 2
    assert f"chunks that can be read: {manifest.layout.chunks - 4} of {manifest.layout.chunks}\n" in said


async def test_another_signer_tenant_or_key_is_refused(yard: Yard, tmp_path: Path) -> None:
    await written(yard)
    other = tmp_path / "other.key"
    other.write_text(UNUSED)

    for wanted, asked in (
        ("changed after it was signed", verifier(yard, key=bytes(reversed(PUBLIC_KEYS[3])).hex())),
        ("another tenant's", verifier(yard, "--tenant", OTHER_TENANT)),
        ("not the backup's key", verifier(yard, "--key-file", other)),
    ):
        end, said, complained = await asked
        assert (end, said) == (2, "")
        assert wanted in complained


async def test_a_changed_manifest_is_refused_and_another_stores_is_taken(yard: Yard) -> None:
    await written(yard)
    for store in range(6):
        flip(yard.manifests(store)[0], 200)
        end, _, complained = await verifier(yard)
        assert (end, "refused" in complained) == ((0, False) if store < 5 else (2, True))


async def two_of_which_store_2_has_each_in_the_others_folder(yard: Yard) -> tuple[Manifest, Manifest]:
    first = await written(yard)
    about = replace(FIRST, backup=SECOND, number=2, previous=first.identity)
    second = await yard.write(some_records(9, seed=2), about, SMALL)
    one, other = (yard.root / "2" / folder(TENANT, each) for each in (BACKUP, SECOND))
    one.rename(aside := yard.root / "aside")
    other.rename(one)
    aside.rename(other)
    return first, second


@pytest.mark.parametrize("stores", [(0, 1, 2, 3, 4, 5), (5, 4, 3, 2, 1, 0), (2, 0, 1, 3, 4, 5)])
async def test_what_one_store_has_in_anothers_folder_is_told_and_picks_no_other_backup(
    yard: Yard, key_file: Path, stores: Sequence[int]
) -> None:
    manifest, _ = await two_of_which_store_2_has_each_in_the_others_folder(yard)

    end, said, _ = await verifier(yard, "--key-file", key_file, stores=stores)

    assert end == 1
    assert said.startswith(f"backup {BACKUP} number 1 ")
    assert f"misplaced: {yard.root / '2' / folder(TENANT, BACKUP)} holds backup {SECOND}\n" in said
    assert said.count(f"chunks that can be read: {manifest.layout.chunks} of") == said.count("opened: 64 records") == 1


async def test_of_two_backups_the_newest_is_taken_or_the_one_that_is_named(yard: Yard, key_file: Path) -> None:
    _, second = await two_of_which_store_2_has_each_in_the_others_folder(yard)
    both = (BACKUP, SECOND)

    newest = await verifier(yard, "--key-file", key_file, backups=both)
    named = await verifier(yard, "--key-file", key_file, "--backup", BACKUP, "--tenant", TENANT, backups=both)
    _, _, complained = await verifier(yard, "--backup", UUID(int=99), backups=both)

    assert (newest[0], named[0]) == (1, 1)
    assert newest[1].startswith(f"backup {SECOND} number 2 ") and f"opened: {second.records} records" in newest[1]
    assert named[1].startswith(f"backup {BACKUP} number 1 ") and "opened: 64 records" in named[1]
    assert all(said.count("misplaced: ") == 2 and ": damaged" not in said for _, said, _ in (newest, named))
    assert "another backup" in complained


async def test_keys_may_be_in_base64_as_the_key_store_prints_them(yard: Yard, tmp_path: Path) -> None:
    await written(yard)
    path = tmp_path / "base64.key"
    path.write_text(b64encode(KEY).decode() + "\n")

    end, said, _ = await verifier(yard, "--key-file", path, key=b64encode(PUBLIC_KEYS[3]).decode())

    assert end == 0 and "opened: 64 records" in said


def test_it_imports_nothing_of_ours() -> None:
    tree = ast.parse(SCRIPT.read_text())
    names = {str(node.module).partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}

    assert names <= sys.stdlib_module_names | {"cryptography", "zstandard"}
