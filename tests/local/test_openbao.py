"""OpenBao from the wheel: kept over restarts and kills, private to its user, and honest about what is wrong."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from local.errors import LocalServiceError
from local.openbao import OpenBao, configure, openbao, running_server
from tests.conftest import Vault

RUN = """
import signal, sys
from pathlib import Path
from local.openbao import openbao
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell runs in the background
with openbao(Path(sys.argv[1])) as bao:
    print(bao.address, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "openbao"


@pytest.fixture
def other_run(folder: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", RUN, str(folder)]
    home, pipe, nothing = Path(__file__).parents[2], subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(command, text=True, cwd=home, stdin=pipe, stdout=pipe, stderr=nothing) as run:
        yield run
        run.send_signal(signal.SIGINT)


def mount(bao: OpenBao, path: str) -> int:
    url, headers = f"{bao.address}/v1/sys/mounts/{path}", {"X-Vault-Token": bao.root_token}
    return requests.post(url, json={"type": "transit"}, headers=headers, timeout=5).status_code


def test_data_and_token_are_kept_over_a_restart(folder: Path) -> None:
    with openbao(folder) as bao:
        assert mount(bao, "kept") == 204

    with openbao(folder) as again:
        assert again.root_token == bao.root_token
        assert mount(again, "kept") == 400  # something is mounted there


def test_what_a_killed_run_left_is_ended(folder: Path, other_run: subprocess.Popen[str]) -> None:
    assert other_run.stdout is not None
    orphan = other_run.stdout.readline().strip()
    other_run.kill()
    other_run.wait()

    with openbao(folder) as bao:
        assert mount(bao, "usable") == 204
        with pytest.raises(requests.ConnectionError):
            requests.get(f"{orphan}/v1/sys/health", timeout=5)


def test_a_second_run_from_the_same_folder_is_refused(vault: Vault, service_folder: Path) -> None:
    with pytest.raises(LocalServiceError, match="already running"), openbao(service_folder / "openbao"):
        pass


def test_it_stops_and_starts_on_the_same_port(folder: Path) -> None:
    with running_server(folder) as server:
        address = server.address
        server.stop()
        with pytest.raises(requests.ConnectionError):
            requests.get(f"{address}/v1/sys/health", timeout=5)

        assert server.start().address == address


def test_its_secrets_are_readable_by_its_user_only(vault: Vault, service_folder: Path) -> None:
    modes = [stat.S_IMODE((service_folder / "openbao" / name).stat().st_mode) for name in ("seal.key", "root.token")]

    assert modes == [0o600, 0o600]
    assert vault.bao.root_token not in repr(vault)
    assert vault.credentials.api.secret_id not in repr(vault)


def test_setting_up_twice_changes_nothing(vault: Vault) -> None:
    again = configure(vault.bao)

    assert again.api.role_id == vault.credentials.api.role_id
    assert again.provisioner.role_id == vault.credentials.provisioner.role_id


def test_a_damaged_folder_is_named(folder: Path) -> None:
    with openbao(folder):
        pass
    os.truncate(folder / "seal.key", 5)

    with pytest.raises(LocalServiceError, match=f"move {folder} away"), openbao(folder):
        pass


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(LocalServiceError, match="can't write to"), openbao(tmp_path / "file" / "openbao"):
        pass


def test_a_missing_wheel_says_how_to_get_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(LocalServiceError, match="make install"), openbao(folder):
        pass
