"""An old, foreign, edited or truncated key file is refused with the reason, and repaired from the good ones."""

import asyncio
import shutil
from base64 import b64encode
from collections.abc import Callable
from random import Random
from typing import Any
from uuid import UUID

import orjson
import pytest

from crypto.keys import wrapping_context
from jobs.backups.errors import StoreAway
from jobs.key_files.errors import KeyFileRefused, KeyFileUnknown, Refusal
from tenants.keys import key_files as rows
from tests.jobs.key_files.cabinets import Cabinet, keys_of, only


async def refusal(cabinet: Cabinet) -> Refusal:
    with pytest.raises(KeyFileRefused) as refused:
        await cabinet.key_files.read(cabinet.tenant)
    return refused.value.why


def in_all(cabinet: Cabinet, generation: int, change: Callable[[bytes], bytes]) -> None:
    for number in range(6):
        path = cabinet.path(number, generation)
        path.write_bytes(change(path.read_bytes()))


def edited(content: bytes) -> bytes:
    statement, rest = content.split(b"\n", 1)
    said = orjson.loads(statement)
    said["backups"] = [
        *said["backups"],
        {"backup": said["tenant"], "dataKeys": [1], "number": 99, "wrapped": "vault:v1:x"},
    ]
    return orjson.dumps(said, option=orjson.OPT_SORT_KEYS) + b"\n" + rest


def with_second_line(said: Any) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        first, _, rest = content.split(b"\n", 2)
        return first + b"\n" + orjson.dumps(said, option=orjson.OPT_SORT_KEYS) + b"\n" + rest

    return change


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda content: content[:-1], Refusal.TRUNCATED),
        (lambda content: content[:200], Refusal.TRUNCATED),
        (lambda content: b"", Refusal.TRUNCATED),
        (lambda content: content + b"\x00", Refusal.TRUNCATED),
        (lambda content: b"x\n" + content.split(b"\n", 1)[1], Refusal.TRUNCATED),
        (edited, Refusal.EDITED),
        (lambda content: content.replace(b'"generation":1', b'"generation":2'), Refusal.EDITED),
        (with_second_line({}), Refusal.UNSIGNED),
        (with_second_line({"keyVersion": 9, "signature": b64encode(bytes(64)).decode()}), Refusal.UNKNOWN_KEY),
        (with_second_line({"keyVersion": 1, "signature": b64encode(bytes(64)).decode()}), Refusal.EDITED),
    ],
)
async def test_another_file_is_refused_with_the_reason(
    cabinet: Cabinet, change: Callable[[bytes], bytes], why: Refusal
) -> None:
    await cabinet.publish()

    in_all(cabinet, 1, change)

    assert await refusal(cabinet) is why


async def test_one_of_the_tenants_own_that_was_never_committed_there_is_refused(cabinet: Cabinet) -> None:
    """Signed, of that tenant and generation, and yet another one than was committed."""
    await cabinet.publish()
    await cabinet.superuser.execute("UPDATE key_files SET sha256 = sha256('x') WHERE tenant_id = $1", cabinet.tenant)

    assert await refusal(cabinet) is Refusal.EDITED


async def test_another_tenants_file_is_refused(cabinet: Cabinet) -> None:
    other = await Cabinet.made(cabinet.house, cabinet.root.parent / "other")
    try:
        await cabinet.publish()
        await other.publish()
        foreign = other.path(0, 1).read_bytes()
    finally:
        await other.close()

    in_all(cabinet, 1, lambda _: foreign)

    assert await refusal(cabinet) is Refusal.FOREIGN


async def test_an_older_file_under_the_newer_ones_name_is_refused(cabinet: Cabinet) -> None:
    await cabinet.publish()
    old = cabinet.path(0, 1).read_bytes()
    await cabinet.publish()

    in_all(cabinet, 2, lambda _: old)

    assert await refusal(cabinet) is Refusal.OLD


async def test_older_than_a_backup_says_is_refused(cabinet: Cabinet) -> None:
    await cabinet.publish()

    assert (await cabinet.key_files.read(cabinet.tenant, at_least=1)).generation == 1
    with pytest.raises(KeyFileRefused) as refused:
        await cabinet.key_files.read(cabinet.tenant, at_least=2)
    assert refused.value.why is Refusal.OLD


async def test_without_any_there_is_none(cabinet: Cabinet) -> None:
    with pytest.raises(KeyFileUnknown):
        await cabinet.key_files.read(cabinet.tenant)
    cabinet.unmount(*range(6))
    with pytest.raises(StoreAway):
        await cabinet.key_files.read(cabinet.tenant)
    cabinet.mount(*range(6))


async def test_one_good_store_is_enough(cabinet: Cabinet) -> None:
    await cabinet.add_subjects(50)
    await cabinet.publish()
    cabinet.unmount(0, 1)
    for number in (2, 3, 4):
        cabinet.path(number, 1).write_bytes(b"")

    file = await cabinet.key_files.read(cabinet.tenant)

    found: dict[UUID, bytes] = {}
    async for bucket in file.buckets():
        found |= bucket
    assert found == await cabinet.secrets()
    cabinet.mount(0, 1)


async def test_a_store_that_comes_back_with_an_old_file_is_refused_then_repaired(cabinet: Cabinet) -> None:
    (erased,) = await cabinet.add_subjects(1)
    await cabinet.publish()
    shutil.copytree(cabinet.root / "4", cabinet.root / "past")
    await cabinet.erase(erased)
    await cabinet.publish()
    shutil.rmtree(cabinet.root / "4")
    (cabinet.root / "past").rename(cabinet.root / "4")

    found = await cabinet.key_files.find(cabinet.tenant)
    alone = cabinet.made_of(cabinet.stores[4])
    with pytest.raises(KeyFileRefused) as refused:
        await alone.read(cabinet.tenant)

    assert found.refused == {cabinet.stores[4].url: Refusal.OLD}
    assert await found.file.secrets([erased]) == {}
    assert refused.value.why is Refusal.OLD
    repaired = await cabinet.key_files.repair(cabinet.tenant)
    assert (repaired.generation, repaired.rewritten) == (2, [cabinet.stores[4].url])
    assert cabinet.names() == only(2)
    assert (await alone.read(cabinet.tenant)).generation == 2


async def test_lost_and_rotten_files_are_made_anew_from_a_good_one(cabinet: Cabinet) -> None:
    await cabinet.add_subjects(50)
    await cabinet.publish()
    good = cabinet.path(5, 1).read_bytes()
    cabinet.path(0, 1).unlink()
    for number in range(1, 5):
        content = bytearray(good)
        content[Random(number).randrange(len(good))] ^= 1  # noqa: S311  # a test's chance, repeatable
        cabinet.path(number, 1).write_bytes(content)

    repaired = await cabinet.key_files.repair(cabinet.tenant)

    assert repaired.rewritten == sorted(store.url for store in cabinet.stores[:5])
    assert [cabinet.path(number, 1).read_bytes() for number in range(6)] == [good] * 6
    assert await cabinet.key_files.repair(cabinet.tenant) == type(repaired)(1, {}, [])


async def test_a_flip_of_any_byte_is_found(cabinet: Cabinet) -> None:
    await cabinet.add_subjects(20)
    await cabinet.publish()
    path, chance = cabinet.path(0, 1), Random(7)  # noqa: S311  # as above
    good = path.read_bytes()
    key_files = cabinet.made_of(cabinet.stores[0])
    for place in sorted(chance.sample(range(len(good)), 60)):
        path.write_bytes(good[:place] + bytes([good[place] ^ 1 << chance.randrange(8)]) + good[place + 1 :])
        with pytest.raises(KeyFileRefused):
            async for _ in (await key_files.read(cabinet.tenant)).buckets():
                pass


async def test_where_no_store_has_it_a_repair_publishes_it_anew(cabinet: Cabinet) -> None:
    await cabinet.publish()
    for number in range(6):
        cabinet.path(number, 1).unlink()

    repaired = await cabinet.key_files.repair(cabinet.tenant)

    assert repaired.generation == 2
    assert cabinet.names() == only(2)


async def test_nothing_is_repaired_while_a_store_is_away(cabinet: Cabinet) -> None:
    await cabinet.publish()
    cabinet.path(0, 1).unlink()
    cabinet.unmount(5)

    with pytest.raises(StoreAway):
        await cabinet.key_files.repair(cabinet.tenant)

    cabinet.mount(5)
    assert (await cabinet.key_files.repair(cabinet.tenant)).rewritten == [cabinet.stores[0].url]


async def test_a_database_that_is_a_copy_of_the_past_is_told_apart(cabinet: Cabinet) -> None:
    await cabinet.publish()
    past = await cabinet.superuser.fetch("SELECT * FROM key_files WHERE tenant_id = $1", cabinet.tenant)
    for _ in range(2):
        await cabinet.publish()
    kept = cabinet.path(0, 3).read_bytes()
    await cabinet.superuser.execute("DELETE FROM key_files WHERE tenant_id = $1", cabinet.tenant)
    await cabinet.superuser.copy_records_to_table("key_files", records=[tuple(row) for row in past])

    for act in (cabinet.key_files.read, cabinet.key_files.publish, cabinet.key_files.repair):
        with pytest.raises(KeyFileRefused) as refused:
            await act(cabinet.tenant)
        assert refused.value.why is Refusal.AHEAD

    assert await cabinet.rows() == {1: "CURRENT"}
    assert [cabinet.path(number, 3).read_bytes() for number in range(6)] == [kept] * 6
    newest = await cabinet.key_files.newest(cabinet.tenant)
    assert newest is not None
    assert newest.generation == 3


async def test_a_copy_of_the_past_is_told_apart_even_if_the_next_was_being_written_in_it(cabinet: Cabinet) -> None:
    await cabinet.publish()
    past = await cabinet.superuser.fetch("SELECT * FROM key_files WHERE tenant_id = $1", cabinet.tenant)
    await cabinet.publish()
    await cabinet.superuser.execute("DELETE FROM key_files WHERE tenant_id = $1", cabinet.tenant)
    await cabinet.superuser.copy_records_to_table("key_files", records=[tuple(row) for row in past])
    async with cabinet.house.api.units.enter(cabinet.tenant, None, write=True) as unit:
        assert await rows.claim(unit) == 2

    assert await refusal(cabinet) is Refusal.AHEAD


async def test_whoever_reads_while_others_publish_finds_one_that_counts(cabinet: Cabinet) -> None:
    await cabinet.publish()
    is_over = False

    async def read() -> list[int]:
        found = []
        while not is_over:
            found.append((await cabinet.key_files.read(cabinet.tenant)).generation)
        return found

    reading = asyncio.create_task(read())
    for _ in range(4):
        await cabinet.publish()
    is_over = True

    found = await reading
    assert found == sorted(found)


async def test_all_that_is_wrapped_is_wrapped_anew(cabinet: Cabinet) -> None:
    rotator = keys_of(cabinet.house, cabinet.house.api.settings.rotator_role)
    backup, key = await cabinet.add_backup(1)
    await cabinet.publish()
    assert await cabinet.key_files.oldest_kek_version(cabinet.tenant) == 1
    await rotator.rotate(cabinet.tenant)
    async with cabinet.house.api.units.enter(cabinet.tenant, None, write=False) as unit:
        wrapped = (await rows.contents(unit)).data_keys
    pairs = [(each.wrapped, wrapping_context(cabinet.tenant, each.id, each.purpose)) for each in wrapped]
    for each, text in zip(wrapped, await rotator.rewrap(cabinet.tenant, pairs), strict=True):
        await cabinet.superuser.execute("UPDATE data_keys SET wrapped = $1 WHERE id = $2", text, each.id)

    await cabinet.key_files.rewrap(cabinet.tenant, rotator)

    file = await cabinet.key_files.read(cabinet.tenant)
    assert file.statement.kek_versions == {2}
    assert await cabinet.key_files.oldest_kek_version(cabinet.tenant) == 2
    assert await file.backup_key(backup) == key
    stored = await cabinet.superuser.fetchval("SELECT wrapped_key FROM backups WHERE id = $1", backup)
    assert stored.startswith("vault:v2:")
    await rotator.close()


async def test_a_store_that_comes_back_holds_up_the_floor_until_it_is_repaired(cabinet: Cabinet) -> None:
    await cabinet.publish()
    old = cabinet.path(2, 1).read_bytes()
    await cabinet.publish()
    cabinet.path(2, 1).write_bytes(old)

    assert await cabinet.key_files.oldest_kek_version(cabinet.tenant) == 1

    assert cabinet.names() == only(2)
    cabinet.unmount(2)
    with pytest.raises(StoreAway):
        await cabinet.key_files.oldest_kek_version(cabinet.tenant)
    cabinet.mount(2)
