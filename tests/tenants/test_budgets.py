"""What counts against a budget: the audit log's own entries, each once, whoever wrote and whoever looks."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from uuid import UUID, uuid4

import pytest

from tenants.audit.entries import DISCLOSED, REVEALED, Entry
from tenants.budgets import EXCEEDED, Budgets, tell
from tenants.unit import Unit
from tests.house import House
from tests.tenants.chained import fetch

HOUR = datetime(2031, 5, 6, 7, tzinfo=UTC)  # which no other test's clock reaches
LATER = HOUR + timedelta(minutes=30)


@pytest.fixture
async def unit(house: House) -> AsyncIterator[Unit]:
    """Of a member whom nobody showed anything: budgets go by its id alone."""
    tenant = house.tenants["acme"].id
    async with house.api.units.enter(tenant, None, write=True) as made:
        made.viewer = replace(made.viewer, principal=uuid4())  # type: ignore[arg-type]  # any id will do
        made.tenant = replace(made.tenant, disclosure_budget=100)
        made.now = LATER
        yield made


def shown(unit: Unit, plain: int, at: datetime = LATER, action: str = DISCLOSED) -> Entry:
    details: dict[str, int | str] = {"records": plain, "plain": plain, "masked": 7}
    return Entry(tenant=unit.tenant.id, at=at, actor=unit.viewer.principal, action=action, details=details)


async def is_spent(budgets: Budgets, unit: Unit, budget: int, now: datetime = LATER) -> bool:
    return await budgets.is_spent(unit._session, replace(unit.tenant, disclosure_budget=budget), unit.viewer, now)


async def test_what_was_shown_is_spent_and_not_one_value_more(house: House, unit: Unit) -> None:
    budgets = Budgets()
    budgets.note([shown(unit, 40), shown(unit, 2, action=REVEALED)])
    assert await is_spent(budgets, unit, 42)
    assert not await is_spent(budgets, unit, 43)


async def test_only_what_left_counts(house: House, unit: Unit) -> None:
    others = shown(unit, 40, action="customer.created")
    written = replace(others, id=uuid4())
    await house.api.recorder.record([written])
    budgets = Budgets()
    budgets.note([others])
    assert not await is_spent(budgets, unit, 1)


async def test_the_log_tells_what_other_processes_showed(house: House, unit: Unit) -> None:
    await house.api.recorder.record([shown(unit, 40), shown(unit, 2, action=REVEALED)])
    assert await is_spent(Budgets(), unit, 42)
    assert not await is_spent(Budgets(), unit, 43)


@pytest.mark.parametrize("at", [HOUR - timedelta(microseconds=1), HOUR + timedelta(hours=1)])
async def test_other_hours_do_not_count(house: House, unit: Unit, at: datetime) -> None:
    await house.api.recorder.record([shown(unit, 40, at)])
    budgets = Budgets()
    budgets.note([shown(unit, 40, at - timedelta(hours=1))])
    assert not await is_spent(budgets, unit, 1)


async def test_the_database_is_asked_at_most_every_few_seconds(house: House, unit: Unit) -> None:
    clock = [0.0]
    budgets = Budgets(patience=10.0, clock=lambda: clock[0])
    assert not await is_spent(budgets, unit, 40)
    await house.api.recorder.record([shown(unit, 40)])
    clock[0] = 10.0
    assert not await is_spent(budgets, unit, 40)
    clock[0] = 10.1
    assert await is_spent(budgets, unit, 40)


@pytest.mark.parametrize("seed", range(5))
async def test_each_entry_counts_once_however_often_one_looks(house: House, unit: Unit, seed: int) -> None:
    """Own entries and others', fresh and settled, with looks in between."""
    chance, clock = Random(seed), [0.0]  # noqa: S311  # a choice of cases
    budgets, now, total = Budgets(patience=0.0, clock=lambda: clock[0]), HOUR, 0
    for _ in range(30):
        now += timedelta(seconds=chance.choice([1, 20, 70]))
        clock[0] += 1
        entry = shown(unit, chance.randint(1, 9), now)
        total += int(entry.details["plain"])
        if chance.random() < 0.5:
            budgets.note([entry])
        await house.api.recorder.record([entry])
        if chance.random() < 0.5:
            assert await is_spent(budgets, unit, total, now)
            assert not await is_spent(budgets, unit, total + 1, now)


async def test_what_could_not_be_recorded_is_forgotten(house: House, unit: Unit) -> None:
    budgets, entries = Budgets(), [shown(unit, 40)]
    budgets.note(entries)
    budgets.forget(entries)
    budgets.forget(entries)
    assert not await is_spent(budgets, unit, 1)


async def test_the_house_and_whoever_has_no_bound_are_never_asked_about(house: House, unit: Unit) -> None:
    budgets = Budgets()
    budgets.note([shown(unit, 40)])
    boundless = replace(unit.tenant, disclosure_budget=None)
    nobody = replace(unit.viewer, principal=None)
    assert not await budgets.is_spent(unit._session, boundless, unit.viewer, LATER)
    assert not await budgets.is_spent(unit._session, replace(unit.tenant, disclosure_budget=1), nobody, LATER)


async def test_telling_is_claimed_once_an_hour_unless_it_failed(house: House, unit: Unit) -> None:
    budgets = Budgets()
    assert not budgets.claim_telling(unit)
    budgets.note([shown(unit, 100)])
    assert [budgets.claim_telling(unit) for _ in range(2)] == [True, False]
    budgets.renounce_telling(unit)
    assert [budgets.claim_telling(unit) for _ in range(2)] == [True, False]


async def test_administrators_are_told_once_however_many_tell(house: House) -> None:
    tenant, member = house.tenants["acme"].id, UUID(int=7)
    for _ in range(3):
        async with house.api.units.enter(tenant, None, write=True) as telling:
            await tell(telling, member, telling.now - timedelta(minutes=1))
    told = ("SELECT 1 FROM events WHERE type = $1 AND subject = $2", EXCEEDED.name, member)
    assert len(await fetch(house, *told)) == 1
