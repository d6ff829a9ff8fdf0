"""The night's work on keys: begins what is due, destroys what nothing needs, and is each tenant's own schedule."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import orjson
import pytest

from crypto.cache import KeyringCache
from domain.rotations import AGES, TURN_KEYS
from jobs.handling import Handling
from jobs.rotations.turning import turn_keys
from jobs.scheduling import Scheduler
from jobs.worker import Worker
from tenants.ids import new_id
from tenants.jobs import NoArguments, schedules
from tenants.keys.rotations import KeyPurpose
from tenants.units import Units
from tenants.viewers import TenantId
from tests.house import settings_for
from tests.jobs.desk import Desk

LATER = AGES[KeyPurpose.KEK] + timedelta(days=1)


@pytest.fixture
async def tenant(desk: Desk) -> AsyncIterator[TenantId]:
    yield TenantId((await desk.house.provisioning.provision(f"night-{new_id().hex[:12]}", "Night")).id)


async def night(desk: Desk, tenant: TenantId, later: timedelta = timedelta()) -> dict[str, int]:
    """What the job of a night, so much later, said it did."""
    api = desk.house.api
    units = Units(api.database, api.keys, KeyringCache(ttl=60), now=lambda: datetime.now(UTC) + later)
    async with desk.units.enter(tenant, None, write=True) as unit:
        job = await unit.enqueue(TURN_KEYS, NoArguments())
    assert await Handling(units, desk.ledger, {TURN_KEYS: turn_keys}).handle(tenant, job)
    ended = await desk.job(job)
    assert ended["state"] == "DONE"
    kept = await desk.superuser.fetchval("SELECT result::jsonb FROM jobs WHERE id = $1", job)
    said: dict[str, int] = orjson.loads(kept)
    return said


async def states(desk: Desk, tenant: TenantId) -> list[str]:
    query = "SELECT state FROM data_keys WHERE tenant_id = $1 AND version = 0"
    return [row["state"] for row in await desk.superuser.fetch(query, tenant)]


async def add_left(desk: Desk, tenant: TenantId, purpose: str, state: str) -> UUID:
    key = new_id()
    await desk.superuser.execute(
        "INSERT INTO data_keys (tenant_id, id, purpose, version, wrapped, check_value, state, created_at, changed_at)"
        " SELECT tenant_id, $2, purpose, 0, wrapped, check_value, $4, created_at, created_at - interval '9 days'"
        " FROM data_keys WHERE tenant_id = $1 AND purpose = $3",
        tenant,
        key,
        purpose,
        state,
    )
    return key


async def test_nothing_is_due_on_a_tenants_first_night(desk: Desk, tenant: TenantId) -> None:
    assert await night(desk, tenant) == {"begun": 0, "destroyed": 0}


async def test_what_is_due_is_begun_once(desk: Desk, tenant: TenantId) -> None:
    assert [(await night(desk, tenant, LATER))["begun"] for _ in range(2)] == [1, 0]


async def test_a_retired_data_key_that_nothing_needs_is_destroyed(desk: Desk, tenant: TenantId) -> None:
    await add_left(desk, tenant, "DEK", "RETIRED")
    assert (await night(desk, tenant))["destroyed"] == 1
    assert await states(desk, tenant) == ["DESTROYED"]


async def test_every_tenant_gets_the_nights_work(desk: Desk, tenant: TenantId) -> None:
    api = desk.house.api
    scheduler = Scheduler(api.database, api.platform, lambda _tenant, _job: None, nightly=[TURN_KEYS])
    while await schedules.find_without(api.platform, TURN_KEYS.name):  # some at a time
        await scheduler.add_missing()

    query = "SELECT next_at IS NOT NULL FROM schedules WHERE tenant_id = $1 AND kind = 'turn_keys'"
    assert await desk.superuser.fetchval(query, tenant) is True


async def test_a_worker_schedules_it_and_handles_it(desk: Desk) -> None:
    worker = Worker(settings_for(desk.house.server, desk.house.database, desk.house.vault))
    try:
        await worker.check()
        assert TURN_KEYS in worker.scheduler._nightly
        assert TURN_KEYS in worker.handlers
    finally:
        await worker.close(grace=0)
