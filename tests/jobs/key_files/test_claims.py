"""What lies on the stores and is not current is ours if its hash was noted, and else says that the database is old."""

import shutil

import pytest

from jobs.key_files.errors import KeyFileRefused, Refusal
from tests.jobs.key_files.cabinets import Cabinet, only
from tests.jobs.key_files.test_publishing import strike


async def hashes(cabinet: Cabinet) -> dict[int, bytes | None]:
    found = await cabinet.superuser.fetch(
        "SELECT generation, sha256 FROM key_files WHERE tenant_id = $1", cabinet.tenant
    )
    return {row["generation"]: row["sha256"] for row in found}


def replace_stores(cabinet: Cabinet) -> None:
    for number in range(6):
        shutil.rmtree(cabinet.root / str(number))
        (cabinet.root / str(number)).mkdir()


async def test_the_hash_is_noted_before_the_first_byte_is_written(
    cabinet: Cabinet, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await strike(monkeypatch, "put", 0, cabinet.publish)

    noted = await hashes(cabinet)
    assert cabinet.names() == [set()] * 6
    assert len(noted[1] or b"") == 32
    assert await cabinet.rows() == {1: "WRITING"}


@pytest.mark.parametrize(("place", "when"), [("commit", 0), ("put", 3), ("hold", 1)])
async def test_killed_after_all_stores_were_replaced_by_empty_ones_the_next_try_finishes(
    cabinet: Cabinet, monkeypatch: pytest.MonkeyPatch, place: str, when: int
) -> None:
    await cabinet.publish()
    replace_stores(cabinet)

    assert await strike(monkeypatch, place, when, cabinet.publish)

    assert await cabinet.publish() == 3
    assert cabinet.names() == only(3)
    assert (await cabinet.key_files.read(cabinet.tenant)).generation == 3
    assert await cabinet.rows() == {3: "CURRENT"}


async def test_one_that_was_killed_after_the_stores_were_replaced_is_repaired(
    cabinet: Cabinet, monkeypatch: pytest.MonkeyPatch
) -> None:
    await cabinet.publish()
    replace_stores(cabinet)
    assert await strike(monkeypatch, "commit", 0, cabinet.publish)

    repaired = await cabinet.key_files.repair(cabinet.tenant)

    assert (repaired.generation, cabinet.names()) == (3, only(3))


async def test_a_generation_that_was_claimed_here_and_written_by_another_database_is_ahead(
    cabinet: Cabinet, monkeypatch: pytest.MonkeyPatch
) -> None:
    await cabinet.publish()
    assert await strike(monkeypatch, "commit", 0, cabinet.publish)
    await cabinet.superuser.execute(
        "UPDATE key_files SET sha256 = sha256('x') WHERE tenant_id = $1 AND state = 'WRITING'", cabinet.tenant
    )

    for act in (cabinet.key_files.read, cabinet.key_files.publish, cabinet.key_files.repair):
        with pytest.raises(KeyFileRefused) as refused:
            await act(cabinet.tenant)
        assert refused.value.why is Refusal.AHEAD
