"""`coffer doctor` as an operator runs it: a sound house, wrong roles, wide policies, old databases, nobody there."""

from pathlib import Path
from typing import Any

import asyncpg
import pytest
import requests

from local.openbao import app_role
from local.postgres import create_roles_and_database
from tests.cli.test_cli import coffer
from tests.cli.test_cli import environment as bare
from tests.house import House

__all__ = ["bare"]  # the fixture

TOO_WIDE = """
path "transit/*" {
  capabilities = ["create", "read", "update"]
}
path "transit/keys/" {
  capabilities = ["list"]
}
"""


def ask(house: House, method: str, path: str, **body: Any) -> requests.Response:
    headers = {"X-Vault-Token": house.vault.bao.root_token}
    return requests.request(method, f"{house.vault.bao.address}/v1/{path}", json=body, headers=headers, timeout=5)


def key_names(house: House) -> list[str]:
    names: list[str] = ask(house, "LIST", "transit/keys").json()["data"]["keys"]
    return names


@pytest.fixture
def environment(bare: dict[str, str], tmp_path: Path) -> dict[str, str]:
    return {**bare, "COFFER_AUDIT_STORE": f"file://{tmp_path}/second"}


@pytest.fixture
def too_wide(house: House, environment: dict[str, str]) -> dict[str, str]:
    """The environment of an API whose AppRole may do far too much."""
    ask(house, "PUT", "sys/policies/acl/too-wide", policy=TOO_WIDE).raise_for_status()
    wish = {"token_policies": "too-wide", "token_no_default_policy": True}
    ask(house, "POST", "auth/approle/role/too-wide", **wish).raise_for_status()
    role = app_role(house.vault.bao, "too-wide")
    return {
        **environment,
        "COFFER_VAULT_API_ROLE_ID": role.role_id,
        "COFFER_VAULT_API_SECRET_ID": role.secret_id,
    }


async def test_the_doctor_finds_a_sound_house_sound(environment: dict[str, str]) -> None:
    done = await coffer("doctor", environment=environment)

    assert done.returncode == 0, done.stdout + done.stderr
    assert all(line.startswith("ok ") for line in done.stdout.splitlines())
    assert len(done.stdout.splitlines()) == 18 + 6  # and the stores of backups


async def test_the_doctor_names_each_thing_that_is_wrong_and_nothing_else(
    house: House, environment: dict[str, str], tmp_path: Path
) -> None:
    empty = f"{house.database}_empty"
    create_roles_and_database(house.server, empty)
    (tmp_path / "place").write_text("a file where a folder should be")
    stores = [*environment["COFFER_BACKUP_STORES"].split(",")[:1], f"file://{tmp_path}/nowhere"]
    ill = environment | {
        "COFFER_OWNER_DATABASE_URL": house.server.url("coffer_owner", empty, scheme="postgresql+asyncpg"),
        "COFFER_RECORDER_DATABASE_URL": environment["COFFER_DATABASE_URL"],
        "COFFER_BROKER_URL": "amqp://guest:secret@127.0.0.1:9/",
        "COFFER_AUDIT_STORE": f"file://{tmp_path}/place",
        "COFFER_BACKUP_STORES": ",".join(stores),
    }

    done = await coffer("doctor", environment=ill)

    assert done.returncode == 1
    assert "secret" not in done.stdout + done.stderr
    wrong = [line for line in done.stdout.splitlines() if not line.startswith("ok ")]
    assert len(wrong) == 5, done.stdout
    for line, told in zip(
        wrong,
        (
            "FIX  database, recorder role: connected as coffer_app",
            "FIX  broker: it does not answer",
            "FIX  second place of the audit log: it does not answer; check COFFER_AUDIT_STORE",
            "FIX  store 2 of backups: STORE_AWAY",
            "FIX  migrations: Target database is not up to date; run `coffer migrate`",
        ),
        strict=True,
    ):
        assert line.startswith(told)
    assert "COFFER_BROKER_URL" in wrong[1]


async def test_the_doctor_names_what_each_wrong_role_may_do_and_a_second_place_that_overwrites(
    environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "doctor.txt").write_text("second\n")  # as one leaves it that took the second object
    swapped = {
        **environment,
        "COFFER_DATABASE_URL": environment["COFFER_PLATFORM_DATABASE_URL"],
        "COFFER_VAULT_API_ROLE_ID": environment["COFFER_VAULT_PROVISIONER_ROLE_ID"],
        "COFFER_VAULT_API_SECRET_ID": environment["COFFER_VAULT_PROVISIONER_SECRET_ID"],
        "COFFER_AUDIT_STORE": f"file://{tmp_path}",
    }

    done = await coffer("doctor", environment=swapped)

    assert done.returncode == 1
    assert "connected as coffer_platform" in done.stdout
    assert "Vault policy of the API: it may make data keys" in done.stdout
    assert "FIX  second place of the audit log: it overwrites; " in done.stdout


async def test_the_doctor_tells_of_a_database_a_vault_and_a_broker_that_are_away(environment: dict[str, str]) -> None:
    away = {
        **environment,
        "COFFER_DATABASE_URL": "postgresql://coffer_app@127.0.0.1:1/coffer",
        "COFFER_VAULT_ADDR": "http://127.0.0.1:1",
        "COFFER_BROKER_URL": "redis://:secret@127.0.0.1:9/0",
    }

    done = await coffer("doctor", environment=away)

    assert done.returncode == 1
    assert "FIX  clock: The database does not answer" in done.stdout
    assert "FIX  Vault health: The key store does not answer" in done.stdout
    assert "FIX  broker: it does not answer" in done.stdout
    assert "secret" not in done.stdout + done.stderr


async def test_the_doctor_names_a_policy_that_is_too_wide_and_makes_no_key(
    house: House, too_wide: dict[str, str]
) -> None:
    before = key_names(house)

    done = await coffer("doctor", environment=too_wide)

    assert done.returncode == 1
    assert "FIX  Vault policy of the API: it may create keys; load deploy/vault/api.hcl again" in done.stdout
    assert "FIX  Vault policy of the API: it may make data keys in clear; " in done.stdout
    assert key_names(house) == before


async def test_the_doctor_asks_for_no_key_of_a_tenant_that_is_closed(house: House, environment: dict[str, str]) -> None:
    closed = """INSERT INTO tenants SELECT (jsonb_populate_record(t,
        jsonb_build_object('id', gen_random_uuid(), 'slug', '0-closed', 'status', 'CLOSED'))).*
        FROM tenants t WHERE slug = 'acme'"""
    connection = await asyncpg.connect(house.superuser_url)
    try:
        await connection.execute(closed)
        done = await coffer("doctor", environment=environment)
    finally:
        await connection.execute("DELETE FROM tenants WHERE slug = '0-closed'")
        await connection.close()

    assert (done.returncode, "ok   Vault policy of the provisioner" in done.stdout) == (0, True), done.stdout


async def test_the_doctor_says_what_it_needs_to_check_migrations(environment: dict[str, str]) -> None:
    without = {name: value for name, value in environment.items() if name != "COFFER_OWNER_DATABASE_URL"}

    done = await coffer("doctor", environment=without)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "skip migrations: only the owner can read them; set COFFER_OWNER_DATABASE_URL" in done.stdout
