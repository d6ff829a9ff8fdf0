"""The command line, run as its users run it: other processes, settings from the environment, answers in sentences."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from api.schema import build
from settings import AppRole
from tenants.access import Role
from tests.house import House, settings_for
from tests.visitors import a_visitor

COFFER = [sys.executable, "-c", "import cli; cli.main()"]


@pytest.fixture
def environment(house: House) -> dict[str, str]:
    settings = settings_for(house.server, house.database, house.vault)
    made = {
        "COFFER_ENV": "development",
        "COFFER_DATABASE_URL": settings.database_url,
        "COFFER_PLATFORM_DATABASE_URL": settings.platform_database_url,
        "COFFER_RECORDER_DATABASE_URL": settings.recorder_database_url,
        "COFFER_OWNER_DATABASE_URL": str(settings.owner_database_url),
        "COFFER_VAULT_ADDR": settings.vault_address,
        "COFFER_ISSUER": settings.issuer,
        "COFFER_BACKUP_STORES": ",".join(settings.backup_stores),
    }
    assert settings.provisioner_role is not None
    return made | _role("API", settings.api_role) | _role("PROVISIONER", settings.provisioner_role)


def _role(name: str, role: AppRole) -> dict[str, str]:
    return {f"COFFER_VAULT_{name}_ROLE_ID": role.role_id, f"COFFER_VAULT_{name}_SECRET_ID": role.secret_id}


async def coffer(
    *arguments: str, environment: dict[str, str] | None = None, sent: str = ""
) -> subprocess.CompletedProcess[str]:
    kept = {"PATH": os.environ["PATH"], "COLUMNS": "200"}
    return await asyncio.to_thread(
        subprocess.run,
        [*COFFER, *arguments],
        cwd=Path(__file__).parents[2],
        env=kept | (environment or {}),
        input=sent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("command", [["serve"], ["doctor"], ["tenant", "list"], ["keys", "status", "acme"]])
async def test_without_settings_each_missing_one_is_named_without_a_traceback(command: list[str]) -> None:
    done = await coffer(*command)

    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert {"COFFER_DATABASE_URL", "COFFER_VAULT_ADDR", "COFFER_ISSUER"} <= set(done.stderr.split())


async def test_a_migration_needs_the_owners_url_and_no_key() -> None:
    done = await coffer("migrate")

    assert done.returncode == 2
    assert done.stderr.split()[0] == "COFFER_OWNER_DATABASE_URL"
    assert "VAULT" not in done.stderr


async def test_the_schema_is_printed_without_any_settings() -> None:
    done = await coffer("schema")

    assert done.returncode == 0
    assert done.stdout.strip() == build()[1].strip()


async def test_a_tenant_is_created_listed_suspended_and_resumed(environment: dict[str, str]) -> None:
    made = await coffer("tenant", "create", "cli-tenant", "--name", "From the [b]shell", environment=environment)
    listed = await coffer("tenant", "list", environment=environment)
    suspended = await coffer("tenant", "suspend", "cli-tenant", environment=environment)
    keys = await coffer("keys", "status", "cli-tenant", environment=environment)
    resumed = await coffer("tenant", "resume", "cli-tenant", environment=environment)

    assert (made.stdout, suspended.stdout, resumed.stdout) == (
        "cli-tenant is ACTIVE.\n",
        "cli-tenant is SUSPENDED.\n",
        "cli-tenant is ACTIVE.\n",
    )
    assert "From the [b]shell" in listed.stdout
    assert [keys.stdout.count(word) for word in ("DEK", "BIK", "AUD", "ACTIVE", "vault:")] == [1, 1, 1, 3, 0]


async def test_a_member_added_by_the_shell_can_sign_in(house: House, environment: dict[str, str]) -> None:
    who = ("member", "add", "acme", "shell@acme.example.org", "--name", "Shell", "--role", "agent", "--role", "analyst")

    done = await coffer(*who, environment=environment, sent="a password from a pipe\n")
    again = await coffer(*who, environment={**environment, "COFFER_MEMBER_PASSWORD": "another long password"})

    signed_in = await house.data(
        'mutation { signIn(tenant: "acme", email: "shell@acme.example.org", password: "a password from a pipe")'
        " { accessToken } }",
        role=None,
    )
    assert done.returncode == 0
    assert signed_in["signIn"]["accessToken"]
    assert (again.returncode, again.stderr) == (1, "A member with that e-mail exists already.\n")


async def test_an_owner_who_lost_the_second_factor_is_let_in_by_the_shell(
    house: House, environment: dict[str, str]
) -> None:
    visitor = await a_visitor(house, Role.OWNER)
    await visitor.add_second_factor()

    done = await coffer("member", "reset-second-factor", "acme", visitor.email, environment=environment)
    again = await coffer("member", "reset-second-factor", "acme", visitor.email, environment=environment)

    assert (done.returncode, done.stdout) == (0, "It is reset.\n")
    assert again.stdout == "There is no member of that e-mail who has a second factor.\n"
    assert await visitor.sign_in() == "IN"


async def test_an_unknown_tenant_is_one_sentence(environment: dict[str, str]) -> None:
    done = await coffer("tenant", "suspend", "nobody-here", environment=environment)

    assert (done.returncode, done.stderr) == (1, "There is no tenant of that slug.\n")


@pytest.mark.parametrize("word", ["--depth shards", "--depth SHARDS", "--purpose kek", "--purpose KEK"])
async def test_words_of_a_choice_are_taken_in_either_case(environment: dict[str, str], word: str) -> None:
    group = ("keys", "rotate") if "purpose" in word else ("backups", "verify")
    done = await coffer(*group, "nobody-here", *word.split(), environment=environment)

    assert (done.returncode, done.stderr) == (1, "There is no tenant of that slug.\n")


async def test_migrating_again_changes_nothing(environment: dict[str, str]) -> None:
    done = await coffer("migrate", environment=environment)

    assert (done.returncode, done.stdout) == (0, "The database is at the newest revision.\n")


async def test_a_database_of_another_name_is_one_sentence(environment: dict[str, str]) -> None:
    url = environment["COFFER_PLATFORM_DATABASE_URL"].replace("/coffer_test_", "/nowhere_")

    done = await coffer("tenant", "list", environment={**environment, "COFFER_PLATFORM_DATABASE_URL": url})

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("Postgres refused (InvalidCatalogNameError)")
