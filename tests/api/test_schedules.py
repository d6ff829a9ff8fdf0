"""Schedules over GraphQL: a tenant says when its recurring jobs are due, if it may."""

from typing import Any

import pytest

from tenants.access import Role
from tests.house import House

SET = """mutation($kind: String! = "tidy", $cron: String!, $zone: String!, $on: Boolean! = true) {
  setSchedule(kind: $kind, cron: $cron, timeZone: $zone, enabled: $on) {
    schedule { kind cron timeZone enabled nextAt lastAt lastJob { id } } userErrors { code path message } } }"""
LIST = "{ schedules { kind cron timeZone enabled nextAt } }"
WEEKLY = {"cron": "0 3 * * 1", "zone": "Europe/Berlin"}


async def set_(house: House, *, role: Role = Role.ADMIN, tenant: str = "acme", **given: Any) -> dict[str, Any]:
    answer: dict[str, Any] = (await house.data(SET, WEEKLY | given, role=role, tenant=tenant))["setSchedule"]
    return answer


async def listed(house: House, tenant: str = "acme") -> list[dict[str, Any]]:
    """Those of one kind: workers beside these tests give each tenant the house's others."""
    found: list[dict[str, Any]] = (await house.data(LIST, tenant=tenant, role=Role.AUDITOR))["schedules"]
    return [schedule for schedule in found if schedule["kind"] == "tidy"]


async def test_a_schedule_is_set_switched_off_and_on_again(house: House) -> None:
    steps = [(await set_(house, on=on))["schedule"] for on in (True, False, True)]
    assert [step["enabled"] for step in steps] == [True, False, True]
    assert [step["nextAt"] is None for step in steps] == [False, True, False]
    (kept,) = await listed(house)
    assert (kept["kind"], kept["cron"], kept["timeZone"]) == ("tidy", "0 3 * * 1", "Europe/Berlin")


@pytest.mark.parametrize(
    ("given", "code", "path"),
    [
        ({"cron": "every day"}, "SCHEDULE_REFUSED", ["cron"]),
        ({"cron": "0 25 * * *"}, "SCHEDULE_REFUSED", ["cron"]),
        ({"zone": "Middle/Earth"}, "SCHEDULE_REFUSED", ["timeZone"]),
        ({"kind": "import_customers"}, "NOT_FOUND", ["kind"]),
        ({"kind": "no_such_kind"}, "NOT_FOUND", ["kind"]),
    ],
    ids=str,
)
async def test_what_cannot_be_a_schedule_is_refused_and_changes_nothing(
    house: House, given: dict[str, Any], code: str, path: list[str]
) -> None:
    await set_(house)
    before = await listed(house)
    answer = await set_(house, **given)
    assert (answer["schedule"], [(e["code"], e["path"]) for e in answer["userErrors"]]) == (None, [(code, path)])
    assert await listed(house) == before


async def test_another_tenants_schedules_are_its_own(house: House) -> None:
    await set_(house)
    await set_(house, tenant="globex", cron="30 4 * * *")
    assert [each["cron"] for each in await listed(house)] == ["0 3 * * 1"]
    assert [each["cron"] for each in await listed(house, "globex")] == ["30 4 * * *"]


@pytest.mark.parametrize("role", [Role.MANAGER, Role.AUDITOR, Role.AGENT, Role.INTEGRATION, Role.ANALYST])
async def test_who_may_not_manage_jobs_sets_no_schedule(house: House, role: Role) -> None:
    await set_(house)
    before = await listed(house)
    (error,) = (await house.ask(SET, WEEKLY | {"cron": "1 1 * * *"}, role=role))["errors"]
    assert error["extensions"]["code"] == "FORBIDDEN"
    assert await listed(house) == before
