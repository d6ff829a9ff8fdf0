"""Housekeeping forgets what has served its time, nothing else, and nothing of another tenant."""

from uuid import uuid4

from crypto.values import Secret
from domain import tidying
from domain.imports import IMPORT, ImportCells, ImportRow
from domain.tidying import TIDY
from jobs.tidying import tidy
from tenants.jobs import NoArguments, job_acts
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
    "member_sessions": "WITH member AS (INSERT INTO members (tenant_id, id, status, created_at)"
    " VALUES ($1, gen_random_uuid(), 'ACTIVE', now()) RETURNING *)"
    " INSERT INTO member_sessions"
    " (tenant_id, id, member_id, method, created_at, last_used_at, confirmed_at, expires_at)"
    " SELECT tenant_id, gen_random_uuid(), id, 'PASSWORD', now(), now(), now(), now() - make_interval(days => $2)"
    " FROM member",
    "one_time_tokens": "WITH member AS (INSERT INTO members (tenant_id, id, status, created_at)"
    " VALUES ($1, gen_random_uuid(), 'ACTIVE', now()) RETURNING *)"
    " INSERT INTO one_time_tokens (tenant_id, member_id, use, hash, expires_at)"
    " SELECT tenant_id, id, 'RESET', sha256('x'), now() - make_interval(days => $2) FROM member",
    "sign_on_requests": "WITH provider AS (INSERT INTO sign_on_providers (tenant_id, id, name, issuer, client_id,"
    " access_tokens, scopes, role_map, default_roles, default_own_roles, is_enabled, created_at, updated_at)"
    " VALUES ($1, gen_random_uuid(), '', '', '', 'NONE', '{}', '[]', '{}', '{}', true, now(), now()) RETURNING *)"
    " INSERT INTO sign_on_requests"
    " (tenant_id, id, state, handle, provider_id, address, is_fresh, created_at, expires_at)"
    " SELECT tenant_id, gen_random_uuid(), sha256(random()::text::bytea), sha256('x'), id, '\\x00', false, now(),"
    " now() - make_interval(days => $2) FROM provider",
    "disclosure_counters": "INSERT INTO disclosure_counters (tenant_id, viewer, hour, records, plain, masked)"
    " VALUES ($1, gen_random_uuid(), now() - make_interval(days => $2), 1, 1, 0)",
    "usage_hours": "INSERT INTO usage_hours (tenant_id, hour, requests, cost, refused)"
    " VALUES ($1, clock_timestamp() - make_interval(days => $2), 1, 1, 0)",
    "usage_sizes": "INSERT INTO usage_sizes (tenant_id, day, customers, bytes, measured_at) VALUES ($1,"
    " CURRENT_DATE - $2::int - (SELECT count(*)::int FROM usage_sizes WHERE tenant_id = $1), 1, 1, now())",
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
    "member_sessions": (29, 31),
    "one_time_tokens": (-1, 1),
    "sign_on_requests": (-1, 1),
    "disclosure_counters": (399, 401),
    "usage_hours": (399, 401),
    "usage_sizes": (398, 402),
    "jobs": (89, 91),
}


async def counts(desk: Desk, tenant: TenantId) -> dict[str, int]:
    where = {"jobs": " AND kind = 'test_old'", "usage_sizes": " AND day < CURRENT_DATE"}  # without those of the job
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

    assert await tidied(desk, tenant) == f'DONE {{"forgotten": {5 * len(TABLES)}}}'
    assert set((await counts(desk, tenant)).values()) == {0}


async def test_what_is_young_stays(desk: Desk) -> None:
    tenant = await filled(desk, 0)

    assert await tidied(desk, tenant) == 'DONE {"forgotten": 0}'
    assert set((await counts(desk, tenant)).values()) == {1}


async def test_another_tenants_rows_stay(desk: Desk) -> None:
    mine, other = await filled(desk, 1), await filled(desk, 1)

    assert await tidied(desk, mine) == f'DONE {{"forgotten": {len(TABLES)}}}'
    assert set((await counts(desk, other)).values()) == {1}


async def test_each_night_measures_what_the_tenant_keeps(desk: Desk) -> None:
    tenant = await filled(desk, 0)
    await tidied(desk, tenant)

    sizes = "SELECT customers, bytes FROM usage_sizes WHERE tenant_id = $1 AND day >= CURRENT_DATE - 1"
    assert [tuple(row) for row in await desk.superuser.fetch(sizes, tenant)] == [(0, 0)]


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
