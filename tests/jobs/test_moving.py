"""A new tenant made of a backup has all the data under keys of its own, and lets nobody in that the old one did."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from domain import backups, customers, holds, restored_pages
from domain.paging import Window
from jobs.restoring.errors import HoldsWouldGo
from jobs.restoring.moving import move
from tenants import members
from tenants.errors import Conflict, Unrestorable
from tenants.ids import new_id
from tenants.tenants import Tenant
from tests.jobs.desk import Desk
from tests.jobs.restorations import Restorations
from tests.jobs.vaults import Vaults


@pytest.fixture
async def restorations(desk: Desk, tmp_path: Path) -> AsyncIterator[Restorations]:
    async with Vaults.opened(desk, tmp_path, f"m-{new_id().hex[-12:]}") as opened:
        yield Restorations(opened)


async def moved(restorations: Restorations) -> tuple[Tenant, Restorations]:
    """The new tenant, and what looks at it."""
    vaults = restorations.vaults
    backup = (await vaults.back_up())["id"]
    slug = f"n-{new_id().hex[-12:]}"
    new = await vaults.desk.house.provisioning.provision(slug, "New")
    await move(vaults.depot, restorations.units, vaults.tenant, backup, new.id)
    return new, Restorations(Vaults(vaults.desk, vaults.root, new.id, vaults.depot, slug))


async def test_all_data_are_there_under_other_keys(restorations: Restorations) -> None:
    await restorations.fill(9)
    before = await restorations.picture()

    new, there = await moved(restorations)

    after = await there.picture()
    old_clear, clear = ([_without_tenant(row) for row in seen.pop("clear")] for seen in (before, after))
    assert (after, clear) == (before, old_clear)
    shared = """SELECT count(*) FROM subjects o JOIN subjects n ON n.secret = o.secret
        WHERE o.tenant_id = $1 AND n.tenant_id = $2"""
    assert await there.superuser.fetchval(shared, restorations.vaults.tenant, new.id) == 0
    async with there.units.enter(new.id, None, write=False) as unit:
        page = await customers.find(unit, "email", "ada3@example.org", Window(10))
        assert len(page.nodes) == 1


async def test_people_come_as_invited_and_nothing_lets_them_in(restorations: Restorations) -> None:
    await restorations.fill(1)

    new, there = await moved(restorations)

    query = "SELECT status, password_hash FROM members WHERE tenant_id = $1 AND kind = 'PERSON'"
    rows = await there.superuser.fetch(query, new.id)
    assert rows and {tuple(row) for row in rows} == {("INVITED", None)}
    for table in ("api_keys", "member_sessions", "refresh_tokens", "second_factors", "member_links", "one_time_tokens"):
        assert await there.superuser.fetchval(f"SELECT count(*) FROM {table} WHERE tenant_id = $1", new.id) == 0
    async with there.units.enter(new.id, None, write=False) as unit:
        email = f"owner@{restorations.vaults.slug}.example.org"
        assert await members.find_by_email(unit, email, status="INVITED") is not None
    assert not await there.superuser.fetchval(
        "SELECT count(*) FROM schedules WHERE tenant_id = $1 AND next_at IS NOT NULL", new.id
    )


async def test_a_tenant_that_has_somebody_is_not_overwritten(restorations: Restorations) -> None:
    vaults = restorations.vaults
    await restorations.fill(1)
    backup = (await vaults.back_up())["id"]
    other = await vaults.desk.house.add_tenant(f"o-{new_id().hex[-12:]}")

    with pytest.raises(Unrestorable):
        await move(vaults.depot, restorations.units, vaults.tenant, backup, other.id)


async def test_a_move_leaves_no_legal_hold_behind(restorations: Restorations) -> None:
    vaults = restorations.vaults
    held, _ = await restorations.fill(2)
    async with restorations.units.enter(vaults.tenant, None, write=True) as unit:
        hold = await holds.place(unit, held, "a lawsuit", None)
    with pytest.raises(HoldsWouldGo):
        await moved(restorations)

    async with restorations.units.enter(vaults.tenant, None, write=True) as unit:
        await holds.lift(unit, hold.row.id)
    _, there = await moved(restorations)
    assert len((await there.picture())["customers"]) == 2


async def test_nobody_deletes_a_backup_that_is_being_moved(
    restorations: Restorations, monkeypatch: pytest.MonkeyPatch
) -> None:
    vaults = restorations.vaults
    tried: list[int] = []
    await restorations.fill(1)
    await vaults.back_up()
    load = restored_pages.write

    async def deleting(*given: Any) -> Any:
        if not tried:
            tried.append(1)
            newest = (await vaults.rows())[-1]["id"]
            with pytest.raises((Conflict, TimeoutError)):
                async with asyncio.timeout(0.5), restorations.units.enter(vaults.tenant, None, write=True) as unit:
                    await backups.delete(unit, newest)
        return await load(*given)

    monkeypatch.setattr(restored_pages, "write", deleting)
    await moved(restorations)
    assert tried and [row["state"] for row in await vaults.rows()] == ["VERIFIED"] * 2


def _without_tenant(row: str) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(row)
    del made["tenant_id"]
    return made
