"""`coffer keys`, run as operators run it: turn over one tenant's key or everybody's, look, verify."""

from collections.abc import AsyncIterator
from uuid import UUID

import asyncpg
import pytest

from tenants.ids import new_id
from tests.cli.test_cli import coffer, environment
from tests.house import House
from tests.soak import soak_only

__all__ = ["environment"]  # the fixture
OPEN = "SELECT count(*) FROM rotations WHERE tenant_id = $1 AND purpose = $2 AND ended_at IS NULL"


@pytest.fixture
async def superuser(house: House) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(house.superuser_url)
    yield connection
    await connection.close()


@pytest.fixture
async def slug(house: House) -> str:
    made = await house.provisioning.provision(f"cli-{new_id().hex[:12]}", "From the shell")
    house.tenants[made.slug] = made
    return made.slug


async def test_a_tenants_key_is_turned_over_once(
    house: House, superuser: asyncpg.Connection, environment: dict[str, str], slug: str
) -> None:
    done = [await coffer("keys", "rotate", slug, "--purpose", "kek", environment=environment) for _ in range(2)]
    shown = await coffer("keys", "status", slug, environment=environment)

    assert [each.returncode for each in done] == [0, 0]
    assert done[0].stdout == "1 rotation of KEK begun or going on; see `coffer keys status`.\n"
    assert await superuser.fetchval(OPEN, house.tenants[slug].id, "KEK") == 1
    for told in ("KEK", "BEGUN", "READY", "v1", "ACTIVE"):
        assert told in shown.stdout
    assert "vault:" not in shown.stdout


@soak_only
async def test_the_whole_fleets_keys_are_turned_over_by_a_job_each(
    house: House, superuser: asyncpg.Connection, environment: dict[str, str], slug: str
) -> None:
    await superuser.execute("UPDATE tenants SET status = 'SUSPENDED' WHERE slug = $1", slug)
    done = await coffer("keys", "rotate", "--all", "--purpose", "BIK", environment=environment)
    await superuser.execute("UPDATE tenants SET status = 'ACTIVE' WHERE slug = $1", slug)

    active = await superuser.fetchval("SELECT count(*) FROM tenants WHERE status = 'ACTIVE'") - 1
    refused = done.stderr.splitlines()  # what other tests left frozen, or turned over a moment ago
    assert (done.returncode, done.stdout.split()[0]) == (int(bool(refused)), str(active - len(refused))), done.stderr
    assert all(line.endswith(("TENANT_FROZEN", "KEY_ROTATED_LATELY")) for line in refused)
    for name in ("acme", "globex"):
        assert await superuser.fetchval(OPEN, house.tenants[name].id, "BIK") == 1
    assert await superuser.fetchval(OPEN, house.tenants[slug].id, "BIK") == 0
    assert f"Left out: {slug}: it is SUSPENDED" in done.stdout.splitlines()
    await superuser.execute("DELETE FROM jobs WHERE kind = 'rotate_bik'; DELETE FROM rotations WHERE purpose = 'BIK'")


@pytest.mark.parametrize("arguments", [[], ["acme", "--all"]])
async def test_one_tenant_or_all_must_be_named(environment: dict[str, str], arguments: list[str]) -> None:
    done = await coffer("keys", "rotate", *arguments, "--purpose", "KEK", environment=environment)
    assert (done.returncode, "give a tenant, or --all" in done.stderr) == (2, True)


async def test_verifying_finds_a_changed_proof(
    house: House, superuser: asyncpg.Connection, environment: dict[str, str], slug: str
) -> None:
    tenant: UUID = house.tenants[slug].id
    before = await coffer("keys", "verify", slug, environment=environment)
    await coffer("keys", "rotate", slug, "--purpose", "DEK", environment=environment)
    await superuser.execute("UPDATE rotations SET ended_at = now(), proof = '{}' WHERE tenant_id = $1", tenant)
    after = await coffer("keys", "verify", slug, environment=environment)

    assert (before.returncode, before.stdout) == (
        0,
        "The proofs are as they were signed, and nothing needs a key that was left.\n",
    )
    assert (after.returncode, after.stdout.startswith("WRONG: The proof of rotation")) == (1, True)


async def test_a_suspended_tenants_keys_are_shown_and_its_values_not_counted(
    superuser: asyncpg.Connection, environment: dict[str, str], slug: str
) -> None:
    await superuser.execute("UPDATE tenants SET status = 'SUSPENDED' WHERE slug = $1", slug)
    shown = await coffer("keys", "status", slug, environment=environment)

    assert shown.returncode == 0
    assert shown.stdout.count("ACTIVE") == 3
    assert "What is sealed was not counted: TENANT_SUSPENDED" in shown.stdout
