"""What can't be restored is refused before anything is frozen, backed up or changed, and says why."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from domain import customers, holds, tags
from jobs import backing_up
from jobs.restoring import restoring
from jobs.restoring.comparing import check
from jobs.restoring.moving import move
from jobs.restoring.replacing import replace_data
from tenants.errors import DatabaseUnavailable, Unrestorable
from tenants.ids import global_id, new_id
from tests.jobs.desk import Desk
from tests.jobs.restorations import Restorations, result
from tests.jobs.vaults import Vaults

CANCEL = "mutation($i: ID!) { cancelJob(id: $i) { job { state } userErrors { code } } }"
_MADE = 2  # the epoch of a tenant that was never frozen


@pytest.fixture
async def restorations(desk: Desk, tmp_path: Path) -> AsyncIterator[Restorations]:
    async with Vaults.opened(desk, tmp_path, f"r-{new_id().hex[-12:]}") as opened:
        yield Restorations(opened)


async def test_an_external_id_that_a_held_customer_has_now_refuses_the_restore(restorations: Restorations) -> None:
    held, other = await _named(restorations, "H", "O")
    backup = await restorations.vaults.back_up()
    await restorations.change([other], external_id="O2")
    await restorations.change([held], external_id="O")
    hold = await restorations.hold(held)
    before = await restorations.picture()

    for dry_run in (True, False):
        job = await restorations.restore(backup["id"], dry_run=dry_run)
        assert (job["state"], job["reason"]) == ("PARKED", f"HELD_CLASH:{global_id('Customer', held)}")
    assert await restorations.picture() == before
    await _assert_untouched(restorations)

    async with restorations.units.enter(restorations.vaults.tenant, None, write=True) as unit:
        await holds.lift(unit, hold)
    assert (await restorations.restore(backup["id"]))["state"] == "DONE"


async def test_a_tag_that_a_held_customer_bears_keeps_its_name_to_itself(restorations: Restorations) -> None:
    held, _ = await _named(restorations, "H", "O")
    old = await _tag(restorations, "vip")
    backup = await restorations.vaults.back_up()
    await restorations.superuser.execute("DELETE FROM tags WHERE id = $1", old)
    await restorations.change([held], tag_ids=[await _tag(restorations, "vip")])
    await restorations.hold(held)

    for dry_run in (True, False):
        job = await restorations.restore(backup["id"], dry_run=dry_run)
        assert (job["state"], job["reason"]) == ("PARKED", f"HELD_CLASH:{global_id('Customer', held)}")
    await _assert_untouched(restorations)

    await restorations.change([held], tag_ids=[])
    assert (await restorations.restore(backup["id"]))["state"] == "DONE"


async def test_what_a_held_customer_has_itself_in_the_backup_is_no_clash(restorations: Restorations) -> None:
    held, _ = await _named(restorations, "H", "O")
    await restorations.change([held], tag_ids=[await _tag(restorations, "vip")])
    backup = await restorations.vaults.back_up()
    await restorations.hold(held)

    assert (await restorations.restore(backup["id"]))["state"] == "DONE"


async def test_a_hold_that_came_after_the_check_refuses_too(
    restorations: Restorations, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, other = await _named(restorations, "H", "O")
    backup = await restorations.vaults.back_up()
    await restorations.change([other], external_id="O2")
    await restorations.change([held], external_id="O")

    async def holding(*given: Any) -> None:
        await check(*given)
        await restorations.hold(held)

    monkeypatch.setattr(restoring, "check", holding)
    before = await restorations.picture()

    job = await restorations.restore(backup["id"])

    assert (job["state"], job["reason"]) == ("PARKED", f"HELD_CLASH:{global_id('Customer', held)}")
    assert (await restorations.picture(), await restorations.frozen()) == (before, None)


async def test_duplicates_inside_a_backup_are_found_by_drill_dry_run_and_restore(restorations: Restorations) -> None:
    backup = await _with_duplicates(restorations)

    drilled = await restorations.drill(backup["id"])
    jobs = [await restorations.restore(backup["id"], dry_run=each) for each in (True, False)]

    for job in (drilled, *jobs):
        assert (job["state"], job["reason"], job["attempt"]) == ("PARKED", "BACKUP_HAS_DUPLICATES", 1)
    assert (await restorations.vaults.row(backup["id"]))["drill_outcome"] == "BACKUP_HAS_DUPLICATES"
    await _assert_untouched(restorations)


async def test_rows_that_postgres_refuses_park_the_job_at_once(
    restorations: Restorations, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = await _with_duplicates(restorations)

    async def unseen(*_given: Any) -> None:
        """As if what is refused had come between."""

    monkeypatch.setattr(restoring, "check", unseen)

    job = await restorations.restore(backup["id"])

    assert (job["state"], job["reason"], job["attempt"]) == ("PARKED", "UNRESTORABLE", 1)
    assert await restorations.frozen() is None


async def test_a_move_of_duplicates_says_so(restorations: Restorations) -> None:
    vaults = restorations.vaults
    backup = await _with_duplicates(restorations)
    new = await vaults.desk.house.provisioning.provision(f"n-{new_id().hex[-12:]}", "New")

    with pytest.raises(Unrestorable) as refused:
        await move(vaults.depot, restorations.units, vaults.tenant, backup["id"], new.id)

    assert "customer_tokens" in refused.value.message and refused.value.__cause__ is None


async def test_a_restore_that_is_tried_again_keeps_one_backup_of_before(
    restorations: Restorations, monkeypatch: pytest.MonkeyPatch
) -> None:
    await restorations.fill(2)
    vaults = restorations.vaults
    backup = await vaults.back_up()
    await restorations.fill(1)

    async def cut_off(*_given: Any) -> None:
        raise DatabaseUnavailable

    monkeypatch.setattr(restoring, "replace_data", cut_off)
    job = await restorations.restore(backup["id"])
    for _ in range(2):
        assert job["state"] == "READY"
        late = await restorations.fill(1)
        job = await restorations.again(job["id"])
    monkeypatch.setattr(restoring, "replace_data", replace_data)
    done = await restorations.again(job["id"])

    made = [row for row in await vaults.rows() if row["kind"] == "BEFORE_RESTORE"]
    assert [row["state"] for row in made] == ["EXPIRED", "EXPIRED", "EXPIRED", "VERIFIED"]
    assert (done["state"], result(done)["safety"]) == ("DONE", str(made[-1]["id"]))
    assert str(late[0]) not in (await restorations.picture())["customers"]
    assert (await restorations.restore(made[-1]["id"], without_safety=True))["state"] == "DONE"
    assert str(late[0]) in (await restorations.picture())["customers"]


async def test_it_is_cancelled_while_the_tenant_is_frozen(
    restorations: Restorations, monkeypatch: pytest.MonkeyPatch
) -> None:
    vaults = restorations.vaults
    await restorations.fill(2)
    backup = await vaults.back_up()
    await restorations.fill(1)
    before = await restorations.picture()
    make, answers = backing_up.make, list[Any]()

    async def cancelling(*given: Any) -> None:
        assert await restorations.frozen() == "RESTORE"
        running = await restorations.superuser.fetchval("SELECT id FROM jobs WHERE state = 'RUNNING'")
        asked = {"i": global_id("Job", running)}
        answers.append(await vaults.desk.house.data(CANCEL, asked, tenant=vaults.slug))
        await make(*given)

    monkeypatch.setattr(backing_up, "make", cancelling)

    job = await restorations.restore(backup["id"])

    assert answers == [{"cancelJob": {"job": {"state": "RUNNING"}, "userErrors": []}}]
    assert (job["state"], await restorations.frozen()) == ("CANCELLED", None)
    assert await restorations.picture() == before


async def _named(restorations: Restorations, *external_ids: str) -> list[UUID]:
    people: list[dict[str, Any]] = [{"given_name": each, "external_id": each} for each in external_ids]
    async with restorations.units.enter(restorations.vaults.tenant, None, write=True) as unit:
        return [made.id for made in await customers.create_many(unit, people)]  # type: ignore[union-attr]  # none is refused


async def _tag(restorations: Restorations, name: str) -> UUID:
    async with restorations.units.enter(restorations.vaults.tenant, None, write=True) as unit:
        return (await tags.create(unit, name)).id


async def _with_duplicates(restorations: Restorations) -> asyncpg.Record:
    """A backup in which two customers have one external id, as a defect would have left them."""
    (first,) = await _named(restorations, "D")
    of_first = "DELETE FROM customer_tokens WHERE customer_id = $1 AND index = 'external_id'"
    await restorations.superuser.execute(of_first, first)
    await _named(restorations, "D")
    return await restorations.vaults.back_up()


async def _assert_untouched(restorations: Restorations) -> None:
    """Never frozen, and no backup of before was made."""
    assert (await restorations.frozen(), await restorations.epoch()) == (None, _MADE)
    assert {row["kind"] for row in await restorations.vaults.rows()} == {"SCHEDULED"}
