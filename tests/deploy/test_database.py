"""The scripts that Postgres' image runs on its first start give coffer_owner a database that can be migrated."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from local.postgres import Postgres, _binaries, postgres
from migrations.apply import drift, upgrade_async
from tenants.errors import UnsafeDatabase
from tests.deploy.conftest import ROOT
from tests.jobs.desk import until

NAME = "coffer"


@dataclass(frozen=True)
class Fresh:
    """A server of one's own, as the image leaves it before its scripts: the superuser's database, and no roles."""

    server: Postgres
    folder: Path

    @property
    def owner_url(self) -> str:
        return self.server.url("coffer_owner", NAME, scheme="postgresql+asyncpg")

    def run(self, script: str, secrets: Path) -> subprocess.CompletedProcess[str]:
        """As the image does it: *.sql by psql, *.sh by a shell."""
        parts = urlsplit(self.server.superuser_url)
        found = {name: values[0] for name, values in parse_qs(parts.query).items()}
        environment = {
            "PATH": f"{_binaries()}:/usr/bin:/bin",
            "PGHOST": found["host"],
            "PGPORT": found["port"],
            "POSTGRES_USER": str(parts.username),
            "POSTGRES_DB": NAME,
            "COFFER_SECRETS": str(secrets),
        }
        path = str(ROOT / "deploy" / "postgres" / script)
        psql = ["psql", "-v", "ON_ERROR_STOP=1", "--no-psqlrc", "-U", "postgres", "-d", NAME, "-f", path]
        command = ["sh", path] if script.endswith(".sh") else psql
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
async def fresh(tmp_path: Path) -> AsyncIterator[Fresh]:
    with postgres(tmp_path / "pg", durable=False) as server:
        connection = await asyncpg.connect(server.superuser_url)
        await connection.execute(f"CREATE DATABASE {NAME}")
        await connection.close()
        yield Fresh(server, tmp_path / "pg")


async def test_after_the_scripts_the_owner_migrates_and_each_role_signs_in_by_its_password(
    fresh: Fresh, secrets: Path
) -> None:
    for script in ("roles.sql", "20-database.sh", "roles.sql", "20-database.sh"):  # as often as you like
        done = fresh.run(script, secrets)
        assert done.returncode == 0, done.stderr
    await upgrade_async(fresh.owner_url)
    assert await asyncio.to_thread(drift, fresh.owner_url) is None
    await ask_for_passwords(fresh)
    for role in ("owner", "app", "platform", "recorder"):
        password = (secrets / f"{role}_password").read_text().strip()
        url = fresh.server.url(f"coffer_{role}", NAME)
        await (await asyncpg.connect(url, password=password)).close()
        assert await refuses(url)


async def test_without_them_a_migration_says_what_to_do(fresh: Fresh, secrets: Path) -> None:
    assert fresh.run("roles.sql", secrets).returncode == 0
    with pytest.raises(UnsafeDatabase, match=r"20-database\.sh"):
        await upgrade_async(fresh.owner_url)


async def test_without_passwords_nothing_is_changed(fresh: Fresh, tmp_path: Path) -> None:
    assert fresh.run("roles.sql", tmp_path).returncode == 0
    (tmp_path / "owner_password").write_text("word\n")
    done = fresh.run("20-database.sh", tmp_path)
    assert done.returncode != 0
    assert "deploy/secrets.sh" in done.stderr
    connection = await asyncpg.connect(fresh.server.url("postgres", NAME))
    query = "SELECT count(*) FROM pg_authid WHERE rolname LIKE 'coffer%' AND rolpassword IS NOT NULL"
    assert await connection.fetchval(query) == 0
    await connection.close()


async def ask_for_passwords(fresh: Fresh) -> None:
    """The local server trusts its socket; production's does not."""
    rules = fresh.folder / "data" / "pg_hba.conf"
    rules.write_text("local all postgres trust\nlocal all all scram-sha-256\n")
    connection = await asyncpg.connect(fresh.server.superuser_url)
    await connection.execute("SELECT pg_reload_conf()")
    await connection.close()
    await until(lambda: refuses(fresh.server.url("coffer_app", NAME)))


async def refuses(url: str) -> bool:
    try:
        await (await asyncpg.connect(url, password="another")).close()
    except asyncpg.InvalidPasswordError:
        return True
    return False
