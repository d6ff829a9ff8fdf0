"""Housekeeping forgets what has served its time, nothing else, and nothing of another tenant."""

from uuid import uuid4

from crypto.values import Secret
from domain import tidying
from domain.imports import IMPORT, ImportCells, ImportRow
from domain.tidying import TIDY
from jobs.tidying import tidy
from tenants import job_acts
from tenants.jobs import NoArguments
from tenants.viewers import TenantId
from tests.jobs.desk import Desk

# Per table, a row that is as many days old as $2 says.
ROWS = {
    "events": "INSERT INTO events (tenant_id, id, at, type, version, subject, fields)"
    " VALUES ($1, gen_random_uuid(), now() - make_interval(days => $2), 't', 1, gen_random_uuid(), '{}')",
    "outcomes": "INSERT INTO outcomes (tenant_id, principal, key, fingerprint, result, created_at)"
    " VALUES ($1, gen_random_uuid(), '\\x00', '\\x00', '{}', now() - make_interval(days => $2))",
    "sign_in_attempts": "INSERT INTO sign_in_attempts (tenant_id, token, failures, until)"
    " VALUES ($1, decode(md5(random()::text), 'hex'), 1, now() - make_interval(days => $2))",
    "disclosure_counters": "INSERT INTO disclosure_counters (tenant_id, viewer, hour, records, plain, masked)"
    " VALUES ($1, gen_random_uuid(), now() - make_interval(days => $2), 1, 1, 0)",
    "jobs": "WITH job AS (INSERT INTO jobs (tenant_id, id, kind, state, priority, arguments, due_at, created_at,"
    " ended_at) VALUES ($1, gen_random_uuid(), 'test_old', 'DONE', 5, '{}', now(), now(),"
    " now() - make_interval(days => $2)) RETURNING *)"
    " INSERT INTO import_rows (tenant_id, id, job_id, row) SELECT tenant_id, gen_random_uuid(), id, 1 FROM job",
}
TABLES = (*ROWS, "import_rows")
AGES = {
    "events": (29, 31),
    "outcomes": (0, 2),
    "sign_in_attempts": (0, 2),
    "disclosure_counters": (399, 401),
    "jobs": (89, 91),
}


async def counts(desk: Desk, tenant: TenantId) -> dict[str, int]:
    where = {"jobs": " AND kind = 'test_old'"}
    return {
        table: await desk.superuser.fetchval(
            f"SELECT count(*) FROM {table} WHERE tenant_id = $1{where.get(table, '')}", tenant
        )
        for table in TABLES
    }


async def filled(desk: Desk, age: int, times: int = 1) -> TenantId:
    """A tenant of its own; `age` 0 is young, 1 is old."""
    tenant = (await desk.house.provisioning.provision(f"tidy-{uuid4().hex[:12]}", "Tidy")).id
    for table, statement in ROWS.items():
        for _ in range(times):
            await desk.superuser.execute(statement, tenant, AGES[table][age])
    return tenant


async def tidied(desk: Desk, tenant: TenantId) -> str:
    desk.handlers[TIDY] = tidy
    job = await desk.enqueue(TIDY, tenant=tenant)
    await desk.handling().handle(tenant, job)
    found = await desk.job(job)
    return f"{found['state']} {found['result']}"


async def test_what_is_old_goes_in_as_many_batches_as_it_takes(desk: Desk, monkeypatch) -> None:  # type: ignore[no-untyped-def]  # pytest's
    monkeypatch.setattr(tidying, "BATCH", 2)
    monkeypatch.setattr("jobs.tidying.BATCH", 2)
    tenant = await filled(desk, 1, times=5)

    assert await tidied(desk, tenant) == 'DONE {"forgotten": 30}'
    assert set((await counts(desk, tenant)).values()) == {0}


async def test_what_is_young_stays(desk: Desk) -> None:
    tenant = await filled(desk, 0)

    assert await tidied(desk, tenant) == 'DONE {"forgotten": 0}'
    assert set((await counts(desk, tenant)).values()) == {1}


async def test_another_tenants_rows_stay(desk: Desk) -> None:
    mine, other = await filled(desk, 1), await filled(desk, 1)

    assert await tidied(desk, mine) == 'DONE {"forgotten": 6}'
    assert set((await counts(desk, other)).values()) == {1}


async def test_the_cells_of_a_cancelled_import_go(desk: Desk) -> None:
    """By their seal: no one will try these rows any more, and the job stays to be looked at."""
    tenant = (await desk.house.provisioning.provision(f"tidy-{uuid4().hex[:12]}", "Tidy")).id
    async with desk.house.api.units.enter(tenant, None, write=True) as unit:
        await unit.load_subjects([tenant])
        job = await unit.enqueue(IMPORT, NoArguments(), total=1)
        row = ImportRow(tenant_id=tenant, id=uuid4(), job_id=job, row=1, cells=Secret(ImportCells(cells="{}")))
        unit.add(row)
        await unit.flush()
        await job_acts.cancel(unit, job)
    kept = "SELECT count(cells) FROM import_rows WHERE tenant_id = $1"
    assert await desk.superuser.fetchval(kept, tenant) == 1
    await tidied(desk, tenant)
    assert await desk.superuser.fetchval(kept, tenant) == 0
