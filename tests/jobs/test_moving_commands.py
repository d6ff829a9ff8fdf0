"""`coffer backups restore --into` and `coffer jobs cancel`, run as operators run them."""

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from domain.restores import RESTORE, Restore
from tenants import tenants
from tenants.backups import freezes
from tenants.ids import new_id
from tests.cli.test_cli import _role, coffer
from tests.house import settings_for
from tests.jobs.desk import Desk
from tests.jobs.restorations import Restorations
from tests.jobs.vaults import Vaults


@pytest.fixture
async def restorations(desk: Desk, tmp_path: Path) -> AsyncIterator[Restorations]:
    async with Vaults.opened(desk, tmp_path, f"c-{new_id().hex[-12:]}") as opened:
        yield Restorations(opened)


@pytest.fixture
def environment(restorations: Restorations) -> dict[str, str]:
    vaults, house = restorations.vaults, restorations.vaults.desk.house
    settings = settings_for(house.server, house.database, house.vault)
    assert settings.provisioner_role is not None
    made = {
        "COFFER_ENV": "development",
        "COFFER_DATABASE_URL": settings.database_url,
        "COFFER_PLATFORM_DATABASE_URL": settings.platform_database_url,
        "COFFER_RECORDER_DATABASE_URL": settings.recorder_database_url,
        "COFFER_VAULT_ADDR": settings.vault_address,
        "COFFER_ISSUER": settings.issuer,
        "COFFER_BACKUP_STORES": ",".join(store.url for store in vaults.depot.stores),
    }
    return made | _role("API", settings.api_role) | _role("PROVISIONER", settings.provisioner_role)


async def test_no_tenant_is_made_of_what_can_not_be_moved(
    restorations: Restorations, environment: dict[str, str]
) -> None:
    vaults = restorations.vaults
    held, _ = await restorations.fill(2)
    backup, into = (await vaults.back_up())["id"], f"n-{new_id().hex[-12:]}"
    command = ("backups", "restore", vaults.slug)

    mistyped = await coffer(*command, str(uuid4()), "--into", into, environment=environment)
    inhabited = await coffer(*command, str(backup), "--into", "globex", environment=environment)
    await restorations.hold(held)
    kept = await coffer(*command, str(backup), "--into", into, environment=environment)
    for number in range(3):
        vaults.lose(number)
    lost = await coffer(*command, str(backup), "--into", into, environment=environment)

    assert [done.returncode for done in (mistyped, inhabited, kept, lost)] == [1, 1, 1, 1]
    assert "under a legal hold" in kept.stderr and "has members or customers" in inhabited.stderr
    assert [done.stderr for done in (mistyped, inhabited, kept, lost) if "To go on there" in done.stderr] == []
    assert await tenants.find(vaults.desk.house.api.platform, into) is None


async def test_a_move_that_was_cut_off_goes_on_in_the_tenant_that_stands(
    restorations: Restorations, environment: dict[str, str]
) -> None:
    vaults = restorations.vaults
    await restorations.fill(2)
    backup, into = (await vaults.back_up())["id"], f"n-{new_id().hex[-12:]}"
    command = ("backups", "restore", vaults.slug, str(backup), "--into", into)
    new = await vaults.desk.house.provisioning.provision(into, "New")
    await vaults.desk.superuser.execute("UPDATE tenants SET status = 'SUSPENDED' WHERE id = $1", new.id)

    refused = await coffer(*command, environment=environment)
    await vaults.desk.superuser.execute("UPDATE tenants SET status = 'ACTIVE' WHERE id = $1", new.id)
    done = await coffer(*command, environment=environment)

    assert (refused.returncode, done.returncode) == (1, 0), done.stderr
    assert f"{into} is made." in done.stdout and "customers.written=2" in done.stdout


async def test_what_fails_later_says_how_to_go_on(restorations: Restorations, environment: dict[str, str]) -> None:
    vaults = restorations.vaults
    await restorations.fill(1)
    backup, into = (await vaults.back_up())["id"], f"n-{new_id().hex[-12:]}"
    command = ("backups", "restore", vaults.slug, str(backup), "--into", into)

    failed = await coffer(*command, environment=environment | {"COFFER_VAULT_PROVISIONER_SECRET_ID": str(uuid4())})
    done = await coffer(*command, environment=environment)

    assert (failed.returncode, done.returncode) == (1, 0), done.stderr
    assert f"To go on there: coffer {' '.join(command)}" in failed.stderr


async def test_a_job_that_froze_its_tenant_is_cancelled(
    restorations: Restorations, environment: dict[str, str]
) -> None:
    vaults = restorations.vaults
    job = await vaults.desk.enqueue(RESTORE, Restore(uuid4(), dry_run=False), tenant=vaults.tenant)
    async with restorations.units.enter(vaults.tenant, None, write=True, fences=True, thaws=True) as unit:
        await freezes.freeze(unit)
    running = "state = 'RUNNING', lease_until = now() + interval '1 hour'"
    await vaults.desk.set(job, running)

    done = await coffer("jobs", "cancel", str(job), environment=environment)

    assert done.stdout == f"{job} is RUNNING, asked to CANCEL.\n", done.stderr
    assert (await vaults.desk.job(job))["wish"] == "CANCEL"
