"""`coffer demo` as a newcomer runs it: from nothing, killed, again, again; and what its database gives away."""

import asyncio
import csv
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from local.people import LEGISLATORS
from local.postgres import Postgres, _binaries, postgres
from local.processes import owned_folder
from tests.soak import soak_only

COFFER = [sys.executable, "-c", "import cli; cli.main()", "demo"]
ROOT = Path(__file__).parent.parent.parent
COUNTS = "SELECT t.slug, count(c.id) FROM tenants t LEFT JOIN customers c ON c.tenant_id = t.id GROUP BY t.slug"

SOME_LOADED = re.compile(rb"Capitol CRM [^\r\n]*[ m][1-9][0-9]?%")  # neither 0 % nor 100 %


@dataclass(frozen=True)
class Runs:
    """A start that was killed while it loaded, the start that finished its work, and one more."""

    folder: Path
    copy: Path  # of the folder while nothing ran in it; for tests to take copies of and break
    rows_at_the_kill: int
    finished: subprocess.CompletedProcess[str]
    again: subprocess.CompletedProcess[str]


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [*COFFER, "--once", "--folder", str(folder), "--port", "0", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


async def counted(url: str) -> dict[str, int]:
    connection = await asyncpg.connect(url)
    try:
        return {slug: count for slug, count in await connection.fetch(COUNTS)}  # noqa: C416  # a Record is no tuple to mypy
    finally:
        await connection.close()


def killed_while_loading(folder: Path) -> int:
    """Starts the demo, and kills it with -9 as soon as its progress shows some customers: how many were there."""
    command = [*COFFER, "--once", "--folder", str(folder), "--port", "0"]
    terminal = {**os.environ, "FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "100"}  # where progress is shown
    with subprocess.Popen(
        command, cwd=ROOT, env=terminal, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
    ) as process:
        assert process.stdout is not None
        shown = b""
        while not SOME_LOADED.search(shown) and (more := process.stdout.read(4096)):
            shown += more
        process.kill()
    return asyncio.run(counted(f"postgresql://postgres@/coffer?host={folder}/postgres/socket&port=5432"))["capitol"]


def copied(folder: Path, to: Path) -> Path:
    subprocess.run(["cp", "-a", str(folder), str(to)], check=True)  # noqa: S607  # keeps owners, as shutil does not
    return to


@pytest.fixture(scope="module")
def runs(service_folder: Path) -> Runs:
    folder = service_folder / "demo"
    rows = killed_while_loading(folder)
    finished = run(folder)
    again = run(folder)
    copy = copied(folder, service_folder / "demo-copy")
    return Runs(folder, copy, rows, finished, again)


@pytest.fixture(scope="module")
def database(runs: Runs) -> Iterator[Postgres]:
    with postgres(runs.folder / "postgres") as server:
        yield server


@soak_only
def test_a_start_killed_while_loading_is_finished_by_the_next(runs: Runs) -> None:
    assert 0 < runs.rows_at_the_kill < 537
    assert runs.finished.returncode == 0, runs.finished.stderr
    loaded = re.search(r"Capitol CRM: 537 customers, (\d+) of them loaded now", runs.finished.stdout)
    assert loaded is not None
    assert 0 < int(loaded[1]) <= 537 - runs.rows_at_the_kill


def test_another_start_loads_nothing_twice(runs: Runs) -> None:
    assert runs.again.returncode == 0, runs.again.stderr
    assert "Capitol CRM: 537 customers, 0 of them loaded now" in runs.again.stdout
    assert "Voyager Travel: 200 customers, 0 of them loaded now" in runs.again.stdout


async def test_every_customer_is_there_once(database: Postgres) -> None:
    assert await counted(database.url("postgres", "coffer")) == {"capitol": 537, "voyager": 200}


def test_it_prints_a_sign_in_for_each_member_and_what_three_roles_see(runs: Runs) -> None:
    shown = runs.again.stdout

    assert re.search(r"GraphiQL: http://127\.0\.0\.1:\d+/", shown)
    assert shown.count("mutation { signIn(tenant: ") == 14
    assert re.search(r"displayName +│ Maria Cantwell +│ Maria Cantwell +│ M\. C\. ", shown)
    assert re.search(r"birthDate +│ – +│ 1958-10-13 +│ – ", shown)


def test_the_password_is_for_its_owner_only(runs: Runs) -> None:
    assert (runs.folder / "password").stat().st_mode & 0o777 == 0o600


def test_a_dump_of_its_database_names_no_legislator(database: Postgres) -> None:
    command = [str(_binaries() / "pg_dump"), "--data-only", database.url("postgres", "coffer")]
    dump = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    dump = re.sub("^(COPY|--) .*$", "", dump, flags=re.MULTILINE)  # names of tables and columns: sessions, fields
    words = set(re.findall(r"[^\W_]+(?:-[^\W_]+)*", dump.casefold()))

    told = sorted(secret for secret in legislators_secrets() if secret in words or (" " in secret and secret in dump))

    assert "capitol" in words  # the dump is of this database
    assert told == []


def legislators_secrets() -> set[str]:
    """Ids, phones as written and as kept, birthdays, addresses whole; and names as words.

    Names count from five letters on: our ciphertexts are hex and the wrapped keys base64, in whose 700 rows a "Al" or
    "Ed" stands between two signs by chance, and would prove nothing.
    """
    found: set[str] = set()
    with LEGISLATORS.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            digits = row["Phone"].replace("-", "")
            found |= {row["Bioguide Id"], row["Birthday"], row["Phone"], digits, f"1{digits}", row["Office Address"]}
            found |= {word for name in (row["First Name"], row["Last Name"]) for word in name.split() if len(word) > 4}
            found |= {row["Official Name"], row["Office Address"].partition(" Washington")[0]}
    return {secret.casefold() for secret in found if len(secret) > 4}


def test_a_port_in_use_is_told_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run(tmp_path / "demo", "--port", str(port))

    assert done.returncode == 1
    assert done.stderr.startswith(f"Port {port} of 127.0.0.1 can't be used")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize("damage", ["postgres/data/PG_VERSION", "postgres/data/global/pg_control", "openbao/seal.key"])
def test_a_damaged_folder_is_one_sentence_that_says_what_to_do(tmp_path: Path, runs: Runs, damage: str) -> None:
    folder = copied(runs.copy, tmp_path / "demo")
    (folder / damage).write_text("damaged")

    done = run(folder)

    assert done.returncode == 1
    assert f"move {folder}" in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr


def test_data_without_its_keys_is_one_sentence_that_says_what_to_do(tmp_path: Path, runs: Runs) -> None:
    folder = copied(runs.copy, tmp_path / "demo")
    (folder / "openbao").rename(tmp_path / "away")

    done = run(folder)

    assert (done.returncode, done.stderr) == (
        1,
        f"The keys and the data in {folder} don't belong together; move {folder} away and start again.\n",
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_all_that_it_started(tmp_path: Path, runs: Runs, number: signal.Signals) -> None:
    folder = copied(runs.copy, tmp_path / "demo")
    command = [*COFFER, "--folder", str(folder), "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        for line in process.stdout:
            if "Ctrl-C stops it." in line:
                break
        process.send_signal(number)

        assert process.wait(timeout=30) == 0
        assert process.stderr.read() == ""
    with owned_folder(folder / "postgres", "Postgres"), owned_folder(folder / "openbao", "OpenBao"):
        assert not (folder / "postgres" / "data" / "postmaster.pid").exists()
