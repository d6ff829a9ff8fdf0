"""A key file holds what was committed before, lies on every store or counts for nothing, and leaves no older one."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from uuid import UUID

import pytest

from crypto.keys import Purpose
from jobs.backups.errors import StoreAway, StoreFull
from jobs.backups.stores import Store
from jobs.key_files import finding, publishing
from jobs.key_files.errors import BackupKeyUnknown, KeyFileRefused, NotForBackups, Refusal
from jobs.key_files.files import KeyFiles
from jobs.key_files.reading import KeyFile
from tenants.errors import Conflict
from tenants.keys import key_files as rows
from tests.jobs.key_files.cabinets import Cabinet, only

MANY = 100_000 if os.environ.get("COFFER_SOAK") == "1" else 3_000


async def all_secrets(file: KeyFile) -> dict[UUID, bytes]:
    found: dict[UUID, bytes] = {}
    async for bucket in file.buckets():
        found |= bucket
    return found


async def test_what_is_published_is_read_back(cabinet: Cabinet) -> None:
    subjects = await cabinet.add_subjects(MANY)
    backup, key = await cabinet.add_backup(1)

    generation = await cabinet.publish()

    file = await cabinet.key_files.read(cabinet.tenant)
    assert (generation, file.generation, cabinet.names()) == (1, 1, only(1))
    assert await file.backup_key(backup) == key
    assert await all_secrets(file) == await cabinet.secrets()
    assert await file.secrets(subjects[:3]) == {each: (await cabinet.secrets())[each] for each in subjects[:3]}
    assert {key.purpose for key in file.data_keys} == set(Purpose)
    assert [key.version for key in await file.open_data_keys()] == [1]
    assert file.ledger == ()


async def test_no_store_lists_an_older_one_and_the_next_names_the_one_before(cabinet: Cabinet) -> None:
    await cabinet.publish()
    first = await cabinet.key_files.read(cabinet.tenant)

    assert await cabinet.publish() == 2

    second = await cabinet.key_files.read(cabinet.tenant)
    assert cabinet.names() == only(2)
    assert second.statement.previous == first.sha256
    assert await cabinet.rows() == {2: "CURRENT"}
    assert second.statement.file_key.wrapped != first.statement.file_key.wrapped


async def test_whoever_was_erased_is_in_the_ledger_and_has_no_secret(cabinet: Cabinet) -> None:
    erased, kept = await cabinet.add_subjects(2)
    await cabinet.publish()
    await cabinet.erase(erased)

    await cabinet.publish()

    file = await cabinet.key_files.read(cabinet.tenant)
    assert [(row.number, row.subject) for row in file.ledger] == [(1, erased)]
    assert set(await file.secrets([erased, kept])) == {kept}


async def test_an_expired_backup_has_no_key_in_it(cabinet: Cabinet) -> None:
    backup, _ = await cabinet.add_backup(1)
    await cabinet.publish()
    await cabinet.superuser.execute(
        "UPDATE backups SET state = 'EXPIRED', wrapped_key = '' WHERE tenant_id = $1", cabinet.tenant
    )

    await cabinet.publish()

    with pytest.raises(BackupKeyUnknown):
        await (await cabinet.key_files.read(cabinet.tenant)).backup_key(backup)


async def test_a_retired_data_key_is_in_it_for_as_long_as_a_backup_needs_it(cabinet: Cabinet) -> None:
    await cabinet.add_backup(1)
    await cabinet.superuser.execute(
        "INSERT INTO data_keys SELECT tenant_id, gen_random_uuid(), purpose, 9, wrapped, check_value, 'RETIRED', now()"
        " FROM data_keys WHERE tenant_id = $1 AND purpose = 'DEK'",
        cabinet.tenant,
    )
    await cabinet.publish()
    without = await cabinet.key_files.read(cabinet.tenant)
    await cabinet.add_backup(2, dek_versions=(1, 9))

    await cabinet.publish()

    assert without.statement.dek_versions == {1}
    assert (await cabinet.key_files.read(cabinet.tenant)).statement.dek_versions == {1, 9}
    async with cabinet.house.api.units.enter(cabinet.tenant, None, write=False) as unit:
        assert await rows.lists_data_key(unit, 9)
        assert not await rows.lists_data_key(unit, 2)


async def test_nothing_is_written_without_stores_or_without_the_role(cabinet: Cabinet) -> None:
    api = cabinet.house.api

    assert await KeyFiles(api.units, api.keys, cabinet.backup_keys, []).publish(cabinet.tenant) == 0
    with pytest.raises(NotForBackups):
        await KeyFiles(api.units, api.keys, None, cabinet.stores).publish(cabinet.tenant)

    assert await cabinet.rows() == {}


async def test_a_store_that_is_away_keeps_the_old_generation_current(cabinet: Cabinet) -> None:
    await cabinet.publish()
    cabinet.unmount(5)

    with pytest.raises(StoreAway):
        await cabinet.publish()

    assert await cabinet.rows() == {1: "CURRENT"}
    assert (await cabinet.key_files.read(cabinet.tenant)).generation == 1
    cabinet.mount(5)
    assert await cabinet.publish() == 2
    assert cabinet.names() == only(2)


class Struck(BaseException):
    """As if the process had ended there."""


def at(place: str) -> tuple[Any, str]:
    return {
        "claim": (rows, "claim"),
        "fresh key": (publishing, "fresh_key"),
        "hold": (rows, "hold"),
        "contents": (rows, "contents"),
        "write": (finding, "write"),
        "commit": (rows, "commit"),
        "keep only": (finding, "keep_only"),
        "delete": (Store, "delete"),
        "put": (Store, "writing"),
    }[place]


async def strike(monkeypatch: pytest.MonkeyPatch, place: str, when: int, act: Callable[[], Any]) -> bool:
    """Run `act` until it comes to that place for the `when`-th time; whether it did."""
    owner, name = at(place)
    real, calls = getattr(owner, name), iter(range(1 << 20))

    def struck(*args: Any, **options: Any) -> Any:
        if next(calls) == when:
            raise Struck
        return real(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, struck)
        try:
            await act()
        except Struck:
            return True
    return False


@pytest.mark.parametrize(
    ("place", "when"),
    [
        *[(place, 0) for place in ("claim", "fresh key", "hold", "contents", "write", "commit", "keep only", "put")],
        *[("put", 3), ("delete", 0), ("delete", 3), ("hold", 1)],
    ],
)
async def test_cut_off_anywhere_the_next_try_finishes(
    cabinet: Cabinet, monkeypatch: pytest.MonkeyPatch, place: str, when: int
) -> None:
    await cabinet.publish()
    (erased,) = await cabinet.add_subjects(1)
    await cabinet.erase(erased)

    assert await strike(monkeypatch, place, when, cabinet.publish)

    before = await cabinet.key_files.read(cabinet.tenant)  # whichever was committed, and no other
    assert (await cabinet.rows())[before.generation] == "CURRENT"
    generation = await cabinet.publish()
    assert cabinet.names() == only(generation)
    assert await cabinet.rows() == {generation: "CURRENT"}
    assert [row.subject for row in (await cabinet.key_files.read(cabinet.tenant)).ledger] == [erased]


async def test_what_was_written_and_not_committed_is_never_trusted(
    cabinet: Cabinet, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await strike(monkeypatch, "commit", 0, cabinet.publish)
    assert cabinet.names() == only(1)

    with pytest.raises(KeyFileRefused) as refused:
        await cabinet.key_files.read(cabinet.tenant)

    assert refused.value.why is Refusal.UNCOMMITTED
    assert await cabinet.publish() == 2
    assert cabinet.names() == only(2)


async def test_cancelled_at_any_moment_it_leaves_one_that_counts(cabinet: Cabinet) -> None:
    await cabinet.add_subjects(300)
    await cabinet.publish()
    for pause in range(0, 240, 15):
        task = asyncio.create_task(cabinet.publish())
        await asyncio.sleep(pause / 1000)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        assert await all_secrets(await cabinet.key_files.read(cabinet.tenant)) == await cabinet.secrets()

    generation = await cabinet.publish()

    assert cabinet.names() == only(generation)


async def test_of_many_at_once_each_finds_its_change_published(cabinet: Cabinet) -> None:
    subjects = await cabinet.add_subjects(5)

    async def erase(subject: UUID) -> tuple[int, bool]:
        await cabinet.erase(subject)
        generation = await cabinet.publish()
        file = await cabinet.key_files.read(cabinet.tenant)
        return generation, subject in {row.subject for row in file.ledger} and file.generation >= generation

    ended = await asyncio.gather(*(erase(subject) for subject in subjects))

    assert all(is_in for _, is_in in ended)
    newest = max(generation for generation, _ in ended)
    assert cabinet.names() == only(newest)
    assert await cabinet.rows() == {newest: "CURRENT"}


async def test_one_that_was_overtaken_writes_nothing(cabinet: Cabinet) -> None:
    async with cabinet.house.api.units.enter(cabinet.tenant, None, write=True) as unit:
        assert await rows.claim(unit) == 1
    assert await cabinet.publish() == 2

    async with cabinet.house.api.units.enter(cabinet.tenant, None, write=True) as unit:
        late = await rows.commit(unit, 1, bytes(32), kek_versions=[1], dek_versions=[1])

    assert not late
    assert await cabinet.rows() == {2: "CURRENT"}


async def test_who_waits_too_long_for_another_tries_again_later(cabinet: Cabinet) -> None:
    async with cabinet.house.api.units.enter(cabinet.tenant, None, write=False) as unit:
        assert await rows.hold(unit)
        with pytest.raises(Conflict):
            await cabinet.made_of(*cabinet.stores, patience=0.05).publish(cabinet.tenant)

    assert cabinet.names() == [set()] * 6
    assert await cabinet.publish() == 2


@pytest.fixture
def small_disk(cabinet: Cabinet) -> Iterator[None]:
    """The fourth store is a disk of its own, with space for one key file of some hundred subjects."""
    folder, mount, umount = cabinet.root / "3", shutil.which("mount"), shutil.which("umount")
    if mount is None or umount is None or os.geteuid() != 0:
        pytest.skip("only root may mount a disk")
    mounted = subprocess.run([mount, "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(folder)], check=False)
    if mounted.returncode != 0:
        pytest.skip("no disk can be mounted here")
    yield
    subprocess.run([umount, str(folder)], check=True)


@pytest.mark.usefixtures("small_disk")
async def test_a_full_store_leaves_nothing_under_a_final_name(cabinet: Cabinet) -> None:
    await cabinet.publish()
    await cabinet.add_subjects(2_000)

    with pytest.raises(StoreFull):
        await cabinet.publish()

    assert cabinet.names() == only(1)
    assert (await cabinet.key_files.read(cabinet.tenant)).generation == 1
    await cabinet.superuser.execute("DELETE FROM subjects WHERE tenant_id = $1 AND id <> $1", cabinet.tenant)
    assert await cabinet.publish() == 3
    assert cabinet.names() == only(3)
