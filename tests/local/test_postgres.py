"""Postgres from the wheel: kept over restarts and kills, and honest about what is wrong."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from local.errors import LocalServiceError
from local.postgres import Postgres, create_roles_and_database, postgres

ROLES = ["coffer_app", "coffer_owner", "coffer_platform", "coffer_recorder"]
RUN = """
import signal, sys
from pathlib import Path
from local.postgres import postgres
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell runs in the background
with postgres(Path(sys.argv[1])) as server:
    print(server.superuser_url, flush=True)
    sys.stdin.read()
"""


async def fetch(url: str, query: str, *values: object) -> list[list[object]]:
    connection = await asyncpg.connect(url)
    try:
        return [list(row) for row in await connection.fetch(query, *values)]
    finally:
        await connection.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "postgres"


@pytest.fixture
def other_run(folder: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", RUN, str(folder)]
    home, pipe, nothing = Path(__file__).parents[2], subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(command, text=True, cwd=home, stdin=pipe, stdout=pipe, stderr=nothing) as run:
        yield run
        run.send_signal(signal.SIGINT)


def url_of(run: subprocess.Popen[str]) -> str:
    assert run.stdout is not None
    return run.stdout.readline().strip()


def server_pid(folder: Path) -> int:
    return int((folder / "data" / "postmaster.pid").read_text().splitlines()[0])


async def test_data_is_kept_over_a_restart(folder: Path) -> None:
    with postgres(folder) as server:
        await fetch(server.superuser_url, "CREATE TABLE kept AS SELECT 7 AS number")

    with postgres(folder) as server:
        assert await fetch(server.superuser_url, "SELECT number FROM kept") == [[7]]


async def test_it_is_gone_after_the_block(folder: Path) -> None:
    with postgres(folder, durable=False):
        pid = server_pid(folder)

    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_what_a_killed_run_left_is_ended_and_its_data_is_there(
    folder: Path, other_run: subprocess.Popen[str]
) -> None:
    await fetch(url_of(other_run), "CREATE TABLE kept AS SELECT 7 AS number")
    orphan = server_pid(folder)
    other_run.kill()
    other_run.wait()

    with postgres(folder) as server:
        assert server_pid(folder) != orphan
        assert await fetch(server.superuser_url, "SELECT number FROM kept") == [[7]]


async def test_files_of_a_killed_server_are_no_obstacle(folder: Path, other_run: subprocess.Popen[str]) -> None:
    await fetch(url_of(other_run), "CREATE TABLE kept AS SELECT 7 AS number")
    os.kill(server_pid(folder), signal.SIGKILL)
    other_run.kill()
    other_run.wait()

    with postgres(folder) as server:
        assert await fetch(server.superuser_url, "SELECT number FROM kept") == [[7]]


async def test_ctrl_c_stops_the_server(folder: Path, other_run: subprocess.Popen[str]) -> None:
    url_of(other_run)
    pid = server_pid(folder)

    other_run.send_signal(signal.SIGINT)
    other_run.wait()

    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_second_run_from_the_same_folder_is_refused(folder: Path, other_run: subprocess.Popen[str]) -> None:
    url = url_of(other_run)

    with pytest.raises(LocalServiceError, match="already running"), postgres(folder):
        pass

    assert await fetch(url, "SELECT 1") == [[1]]


@pytest.mark.parametrize("name", ["deep" * 40, "a blank, a comma and 100%"])
async def test_any_path_gets_a_socket(tmp_path: Path, name: str) -> None:
    with postgres(tmp_path / name, durable=False) as server:
        assert await fetch(server.superuser_url, "SELECT 1") == [[1]]


def test_a_damaged_folder_is_named(folder: Path) -> None:
    with postgres(folder, durable=False):
        pass
    (folder / "data" / "global" / "pg_control").unlink()

    with pytest.raises(LocalServiceError, match=f"move {folder} away"), postgres(folder):
        pass


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(LocalServiceError, match="can't write to"), postgres(tmp_path / "file" / "postgres"):
        pass


def test_a_missing_wheel_says_how_to_get_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(LocalServiceError, match="make install"), postgres(folder):
        pass


@pytest.mark.database
async def test_the_roles_have_no_power_even_if_somebody_gave_it(postgres_server: Postgres) -> None:
    create_roles_and_database(postgres_server, "coffer_roles")
    await fetch(postgres_server.superuser_url, "ALTER ROLE coffer_app CREATEDB BYPASSRLS INHERIT")
    await fetch(postgres_server.superuser_url, "GRANT coffer_owner, pg_read_all_data TO coffer_app")

    create_roles_and_database(postgres_server, "coffer_roles")

    rights = "rolcanlogin, rolsuper, rolcreatedb, rolcreaterole, rolbypassrls, rolreplication, rolinherit"
    rows = await fetch(postgres_server.superuser_url, f"SELECT {rights} FROM pg_roles WHERE rolname = ANY($1)", ROLES)
    assert rows == [[True, False, False, False, False, False, False]] * len(ROLES)
    members = "SELECT 1 FROM pg_auth_members WHERE member::regrole::text = ANY($1)"
    assert await fetch(postgres_server.superuser_url, members, ROLES) == []


@pytest.mark.database
async def test_who_serves_keeps_no_transaction_open_for_long(postgres_server: Postgres) -> None:
    create_roles_and_database(postgres_server, "coffer_roles")

    query = "SELECT rolname::text, rolconfig FROM pg_roles WHERE rolname = ANY($1) ORDER BY rolname"
    limit = ["idle_in_transaction_session_timeout=60s"]
    assert await fetch(postgres_server.superuser_url, query, ROLES) == [
        [name, None if name == "coffer_owner" else limit] for name in sorted(ROLES)
    ]


@pytest.mark.database
async def test_the_owner_owns_the_database(postgres_server: Postgres) -> None:
    create_roles_and_database(postgres_server, "coffer_roles")

    owner = "SELECT datdba::regrole::text FROM pg_database WHERE datname = current_database()"
    assert await fetch(postgres_server.url("coffer_app", "coffer_roles"), owner) == [["coffer_owner"]]


def test_a_url_keeps_the_server_and_gives_no_role_the_password_of_another() -> None:
    server = Postgres("postgresql://postgres:word@db.test:5433/postgres?sslmode=require")

    assert server.url("coffer_app", "a b") == "postgresql://coffer_app@db.test:5433/a%20b?sslmode=require"
    assert server.url("postgres", "x") == "postgresql://postgres:word@db.test:5433/x?sslmode=require"
