"""Backups over GraphQL: who may see and move them, what is told of each, and what may not be deleted."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from api.paging import global_id
from tenants.access import Role
from tenants.ids import new_id
from tests.house import House

FIELDS = """{ id number kind state createdAt verifiedAt coding records missing rotten held keptAs reason storedBytes
    contentBytes stores tables { name rows } }"""
_ADD = """INSERT INTO backups
        (tenant_id, id, number, kind, state, created_at, coding, dek_versions, wrapped_key, places, tables, bytes)
    VALUES ($1, $2, $3::int, 'SCHEDULED', $4, now() + $3::int * interval '1 second', 'mirror:2', '{1}', 'vault:v1:none',
        '{s3://bucket/secret/path,file:///srv/private/one}', '{"customers": 3}', 6000000000)"""
_READING = """UPDATE backups SET used_by = ARRAY(SELECT id FROM jobs WHERE tenant_id = $1)
    WHERE tenant_id = $1 AND number = 2"""
DELETE = "mutation($i: ID!) { deleteBackup(id: $i) { job { kind } userErrors { code path message } } }"
HOLD = "mutation($i: ID!, $h: Boolean!) { holdBackup(id: $i, held: $h) { backup { held } userErrors { code } } }"
RETENTION = """mutation($d: Int!) { setBackupRetention(daily: $d, weekly: 2, monthly: 0)
    { retention { daily weekly monthly } userErrors { code path } } }"""


@pytest.fixture
async def tenant(house: House) -> str:
    slug = f"backups-{new_id().hex[-12:]}"
    await house.add_tenant(slug)
    return slug


@pytest.fixture
async def superuser(house: House) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(house.superuser_url)
    yield connection
    await connection.close()


async def add(house: House, superuser: asyncpg.Connection, tenant: str, number: int, state: str = "VERIFIED") -> str:
    backup = new_id()
    await superuser.execute(_ADD, house.tenants[tenant].id, backup, number, state)
    return global_id("Backup", backup)


async def asked(house: House, tenant: str, document: str, **variables: Any) -> Any:
    (payload,) = (await house.data(document, variables, tenant=tenant)).values()
    return payload


async def test_a_backup_is_told_without_the_paths_of_a_machine(
    house: House, superuser: asyncpg.Connection, tenant: str
) -> None:
    id = await add(house, superuser, tenant, 1)
    found = await asked(house, tenant, f"query($i: ID!) {{ backup(id: $i) {FIELDS} }}", i=id)
    nodes = await asked(house, tenant, f"{{ backups(first: 5) {{ totalCount nodes {FIELDS} }} }}")

    assert (found["number"], found["state"], found["coding"]) == (1, "VERIFIED", "mirror:2")
    assert found["stores"] == ["s3://bucket", "one"]
    assert (found["tables"], found["storedBytes"]) == ([{"name": "customers", "rows": 3}], 6e9)
    assert nodes == {"totalCount": 1, "nodes": [found]}


async def test_another_tenants_backup_is_not_there(house: House, superuser: asyncpg.Connection, tenant: str) -> None:
    id = await add(house, superuser, tenant, 1)
    query = "query($i: ID!) { backup(id: $i) { number } node(id: $i) { id } }"

    assert await house.data(query, {"i": id}) == {"backup": None, "node": None}
    assert (await house.data(HOLD, {"i": id, "h": True}))["holdBackup"]["userErrors"] == [{"code": "NOT_FOUND"}]


@pytest.mark.parametrize("role", [Role.MANAGER, Role.AGENT, Role.ANALYST, Role.AUDITOR, Role.INTEGRATION])
async def test_only_who_manages_backups_sees_or_makes_any(house: House, tenant: str, role: Role) -> None:
    for document in ("{ backups { nodes { number } } }", "mutation { makeBackup { job { id } } }"):
        answer = await house.ask(document, tenant=tenant, role=role)
        assert [error["extensions"]["code"] for error in answer["errors"]] == ["FORBIDDEN"]


async def test_asking_twice_for_a_backup_makes_one_job(house: House, tenant: str) -> None:
    make = "mutation { makeBackup { job { id kind state } userErrors { code } } }"
    first, second = await asked(house, tenant, make), await asked(house, tenant, make)

    assert first == second
    assert (first["job"]["kind"], first["job"]["state"]) == ("make_backup", "READY")


async def test_the_last_good_backup_stays(house: House, superuser: asyncpg.Connection, tenant: str) -> None:
    good = await add(house, superuser, tenant, 1)
    broken = await add(house, superuser, tenant, 2, "BROKEN")
    refused = await asked(house, tenant, DELETE, i=good)
    deleted = await asked(house, tenant, DELETE, i=broken)

    assert [error["code"] for error in refused["userErrors"]] == ["BACKUP_REFUSED"]
    assert deleted == {"job": {"kind": "retire_backups"}, "userErrors": []}
    assert [row["state"] for row in await _rows(superuser, house, tenant)] == ["VERIFIED", "EXPIRED"]


async def test_what_is_held_or_read_is_not_deleted(house: House, superuser: asyncpg.Connection, tenant: str) -> None:
    held, used, _ = [await add(house, superuser, tenant, number) for number in (1, 2, 3)]
    job = (await asked(house, tenant, "mutation { makeBackup { job { id } } }"))["job"]["id"]
    await superuser.execute(_READING, house.tenants[tenant].id)
    assert (await asked(house, tenant, HOLD, i=held, h=True))["backup"] == {"held": True}

    for id in (held, used):
        assert [error["code"] for error in (await asked(house, tenant, DELETE, i=id))["userErrors"]] == [
            "BACKUP_REFUSED"
        ]
    await asked(house, tenant, HOLD, i=held, h=False)
    await asked(house, tenant, "mutation($i: ID!) { cancelJob(id: $i) { job { state } } }", i=job)
    for id in (held, used):
        assert (await asked(house, tenant, DELETE, i=id))["userErrors"] == []


@pytest.mark.parametrize(("field", "kind"), [("verifyBackup", "verify_backup"), ("repairBackup", "repair_backup")])
async def test_long_work_is_a_job(
    house: House, superuser: asyncpg.Connection, tenant: str, field: str, kind: str
) -> None:
    good, gone = await add(house, superuser, tenant, 1), await add(house, superuser, tenant, 2, "WRITING")
    document = f"mutation($i: ID!) {{ {field}(id: $i) {{ job {{ kind }} userErrors {{ code }} }} }}"

    assert await asked(house, tenant, document, i=good) == {"job": {"kind": kind}, "userErrors": []}
    assert await asked(house, tenant, document, i=gone) == {"job": None, "userErrors": [{"code": "BACKUP_REFUSED"}]}


async def test_a_tenant_says_what_is_kept(house: House, tenant: str) -> None:
    query = "{ backupRetention { daily weekly monthly } }"
    assert await asked(house, tenant, query) == {"daily": 7, "weekly": 5, "monthly": 12}
    kept = await asked(house, tenant, RETENTION, d=3)
    refused = await asked(house, tenant, RETENTION, d=0)

    assert kept == {"retention": {"daily": 3, "weekly": 2, "monthly": 0}, "userErrors": []}
    assert refused == {"retention": None, "userErrors": [{"code": "INVALID", "path": ["daily"]}]}
    assert await asked(house, tenant, query) == {"daily": 3, "weekly": 2, "monthly": 0}


async def test_the_nightly_backup_has_a_schedule_that_can_be_changed(house: House, tenant: str) -> None:
    document = (
        'mutation { setSchedule(kind: "back_up", cron: "0 2 * * *") { schedule { kind cron } userErrors { code } } }'
    )

    assert await asked(house, tenant, document) == {
        "schedule": {"kind": "back_up", "cron": "0 2 * * *"},
        "userErrors": [],
    }


async def _rows(superuser: asyncpg.Connection, house: House, tenant: str) -> list[asyncpg.Record]:
    of: UUID = house.tenants[tenant].id
    return list(await superuser.fetch("SELECT * FROM backups WHERE tenant_id = $1 ORDER BY number", of))
