"""Restores over GraphQL: who may ask for one, and what it takes."""

from collections.abc import AsyncIterator
from dataclasses import replace
from uuid import UUID

import asyncpg
import pytest

from api.paging import global_id
from domain import restores
from domain.errors import Forbidden, Refused
from domain.restores import Restore
from tenants.access import Role
from tenants.ids import new_id
from tests.api.test_backups import _ADD
from tests.house import House

RESTORE = """mutation($b: ID!, $d: Boolean! = true) { restoreBackup(backup: $b, dryRun: $d)
    { job { kind } userErrors { code path } } }"""
DRILL = "mutation($b: ID!) { drillBackup(backup: $b) { job { kind } userErrors { code } } }"


@pytest.fixture
async def superuser(house: House) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(house.superuser_url)
    yield connection
    await connection.close()


@pytest.fixture
async def tenant(house: House) -> str:
    slug = f"restores-{new_id().hex[-12:]}"
    await house.add_tenant(slug)
    return slug


@pytest.fixture
async def backup(house: House, superuser: asyncpg.Connection, tenant: str) -> UUID:
    made = new_id()
    await superuser.execute(_ADD, house.tenants[tenant].id, made, 1, "VERIFIED")
    return made


async def started(house: House, tenant: str, role: Role, wanted: Restore) -> UUID:
    """By a member who has just proved who it is."""
    who = house.members[tenant][role]
    async with house.api.units.enter(who.tenant, who.principal, write=True) as unit:
        unit.viewer = replace(unit.viewer, confirmed_at=unit.now)
        return await restores.start(unit, wanted)


async def test_it_takes_a_fresh_proof(house: House, tenant: str, backup: UUID) -> None:
    for document in (RESTORE, DRILL):
        (payload,) = (await house.data(document, {"b": global_id("Backup", backup)}, tenant=tenant)).values()
        assert payload["job"] is None
        assert [error["code"] for error in payload["userErrors"]] == ["STEP_UP_REQUIRED"]


async def test_who_manages_no_backups_may_not(house: House, tenant: str, backup: UUID) -> None:
    for role in (Role.MANAGER, Role.AGENT, Role.AUDITOR):
        answer = await house.ask(RESTORE, {"b": global_id("Backup", backup)}, tenant=tenant, role=role)
        assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"


async def test_an_admin_may_try_and_only_an_owner_restores(house: House, tenant: str, backup: UUID) -> None:
    assert await started(house, tenant, Role.ADMIN, Restore(backup))
    with pytest.raises(Forbidden):
        await started(house, tenant, Role.ADMIN, Restore(backup, dry_run=False))


async def test_the_backup_is_in_use_while_the_job_waits(
    house: House, superuser: asyncpg.Connection, tenant: str, backup: UUID
) -> None:
    job = await started(house, tenant, Role.OWNER, Restore(backup, dry_run=False))
    assert await superuser.fetchval("SELECT used_by FROM backups WHERE id = $1", backup) == [job]
    assert await superuser.fetchval("SELECT kind FROM jobs WHERE id = $1", job) == "restore"


async def test_an_absent_backup_and_one_that_is_gone_are_refused(
    house: House, superuser: asyncpg.Connection, tenant: str, backup: UUID
) -> None:
    with pytest.raises(Refused) as absent:
        await started(house, tenant, Role.OWNER, Restore(new_id()))
    await superuser.execute("UPDATE backups SET state = 'EXPIRED', wrapped_key = '' WHERE id = $1", backup)
    with pytest.raises(Refused) as gone:
        await started(house, tenant, Role.OWNER, Restore(backup))
    assert [each.value.errors[0].code for each in (absent, gone)] == ["NOT_FOUND", "BACKUP_REFUSED"]


async def test_of_two_restores_at_once_the_second_is_refused_and_a_dry_run_is_none(
    house: House, tenant: str, backup: UUID
) -> None:
    tried = await started(house, tenant, Role.OWNER, Restore(backup))
    assert await started(house, tenant, Role.OWNER, Restore(backup, dry_run=False)) != tried
    with pytest.raises(Refused) as second:
        await started(house, tenant, Role.OWNER, Restore(backup, dry_run=False, without_safety=True))
    assert second.value.errors[0].code == "BACKUP_REFUSED"
