"""A page of rows is sealed anew by the key in force; nothing else of a row is touched, and nobody is waited for."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from domain import customers
from tenants.errors import ValueDamaged
from tenants.keys import resealing
from tenants.keys.resealing import Shelf
from tenants.owned import TenantOwned, places
from tests.house import House
from tests.jobs.data_keys import Scene

ROWS = 5


@pytest.fixture
async def superuser(house: House) -> AsyncIterator[asyncpg.Pool]:
    async with asyncpg.create_pool(house.superuser_url, min_size=1, max_size=4) as pool:
        yield pool


@pytest.fixture
async def scene(house: House, superuser: asyncpg.Pool) -> Scene:
    return await Scene.made(house, superuser)


def shelf(table: str) -> Shelf:
    return next(each for each in resealing.shelves() if each.table == table)


async def turn(scene: Scene, most: int, version: int = 2) -> list[int]:
    """Rows of each page of customers, until one finds nothing."""
    sizes: list[int] = []
    after = None
    while not sizes or sizes[-1]:
        async with scene.fresh_units().enter(scene.tenant, None, write=True) as unit:
            page = await resealing.reseal_page(unit, shelf("customers"), version, after, most)
        sizes.append(page.rows)
        after = page.last
    return sizes


async def test_every_sealed_column_has_its_place_on_a_shelf() -> None:
    declared = {
        (mapper.class_.__tablename__, column)
        for mapper in TenantOwned.registry.mappers
        for column in places(mapper.class_)
    }
    assert {(each.table, column) for each in resealing.shelves() for column in each.columns} == declared


async def test_the_serving_role_may_turn_the_pages_of_every_shelf(scene: Scene) -> None:
    async with scene.fresh_units().enter(scene.tenant, None, write=True) as unit:
        for each in resealing.shelves():
            await resealing.reseal_page(unit, each, 1, None, 10)
            nothing: dict[str, list[bytes]] = {f"c{n}": [] for n in range(len(each.columns))}
            await unit.run(each.write.bindparams(tenant=scene.tenant, ids=[], first=None, last=None, **nothing))


async def test_pages_go_through_all_rows_once(scene: Scene) -> None:
    ids = await scene.fill(ROWS)
    assert await turn(scene, 2) == [2, 2, 1, 0]
    assert await scene.notes(ids) == ["0"] * ROWS


async def test_what_is_new_is_left_as_it_is(scene: Scene) -> None:
    await scene.fill(ROWS)
    assert await turn(scene, 10, version=1) == [0]


async def test_a_row_with_empty_columns_keeps_them(scene: Scene) -> None:
    async with scene.units.enter(scene.tenant, None, write=True) as unit:
        made = await customers.create(unit, {"given_name": "Ada"})
    assert await turn(scene, 10) == [1, 0]
    row = await scene.superuser.fetchrow("SELECT guarded, note, external_id FROM customers WHERE id = $1", made.id)
    assert row is not None
    assert list(row) == [None, None, None]


async def test_rows_that_somebody_holds_are_left_and_counted(scene: Scene) -> None:
    ids = await scene.fill(ROWS)
    holder = await asyncpg.connect(scene.house.superuser_url)
    try:
        await holder.execute("BEGIN")
        await holder.execute("SELECT FROM customers WHERE id = $1 FOR UPDATE", ids[0])
        async with scene.fresh_units().enter(scene.tenant, None, write=True) as unit:
            page = await resealing.reseal_page(unit, shelf("customers"), 2, None, 10)
            assert page.rows == ROWS - 1
            assert await resealing.count_old(unit, 2) >= ROWS
    finally:
        await holder.close()


async def test_a_value_moved_to_another_row_is_named(scene: Scene) -> None:
    ids = await scene.fill(ROWS)
    moved = "UPDATE customers SET note = (SELECT note FROM customers WHERE id = $2) WHERE id = $1"
    await scene.superuser.execute(moved, ids[3], ids[0])
    with pytest.raises(ValueDamaged) as damaged:
        await turn(scene, 10)
    assert (damaged.value.place, damaged.value.row) == ("customers.note", str(ids[3]))


async def test_a_value_whose_subject_has_no_secret_is_named(scene: Scene) -> None:
    ids = await scene.fill(ROWS)
    await scene.superuser.execute("DELETE FROM subjects WHERE id = $1", ids[2])
    with pytest.raises(ValueDamaged) as damaged:
        await turn(scene, 10)
    assert (damaged.value.place, damaged.value.row) == ("customers.profile", str(ids[2]))


async def test_a_page_of_several_parts_keeps_each_value_in_its_row(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resealing, "_PART", 2)
    ids = await scene.fill(ROWS)
    async with scene.units.enter(scene.tenant, None, write=True) as unit:
        await customers.update(unit, ids[4], 1, {"note": "another"})
    assert await turn(scene, 10) == [ROWS, 0]
    assert await scene.notes(ids) == ["0"] * (ROWS - 1) + ["another"]
