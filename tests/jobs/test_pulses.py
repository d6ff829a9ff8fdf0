"""`coffer worker --alive` sees each worker process of its own user, hung ones too, and nobody else's files."""

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.pulses import WITHIN, Pulse, is_alive

LONG_AGO = time.time() - 2 * WITHIN


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def pulse(folder: Path) -> Iterator[Pulse]:
    made = Pulse()
    yield made
    made.close()


def hang(pulse: Pulse) -> None:
    os.utime(pulse._folder / "pulse", (LONG_AGO, LONG_AGO))


def die(pulse: Pulse) -> None:
    """As the kernel does it: the lock is gone, the file stays."""
    hang(pulse)
    assert pulse._file is not None
    pulse._file.close()


def test_where_no_worker_works_none_is_alive(folder: Path) -> None:
    assert not is_alive()


def test_a_worker_is_alive_until_it_ends(folder: Path) -> None:
    pulse = Pulse()
    assert is_alive()
    pulse.close()
    assert not is_alive()
    assert list(folder.iterdir()) == []


def test_one_that_hangs_is_not_hidden_by_another(folder: Path, pulse: Pulse) -> None:
    other = Pulse()
    hang(other)
    pulse.beat()
    assert not is_alive()
    other.beat()
    assert is_alive()
    other.close()


def test_one_that_was_killed_does_not_count_and_is_cleared_away(folder: Path, pulse: Pulse) -> None:
    killed = Pulse()
    die(killed)
    assert is_alive()
    os.utime(killed._folder, (LONG_AGO, LONG_AGO))
    Pulse().close()
    assert list(folder.iterdir()) == [pulse._folder]


def test_a_pulse_is_its_owners_alone(pulse: Pulse) -> None:
    assert pulse._folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.getuid() != 0, reason="only root makes files of another user")
def test_another_users_files_count_for_nothing(folder: Path, pulse: Pulse) -> None:
    other = Pulse()
    hang(other)
    os.chown(other._folder, 12345, 12345)
    (folder / "coffer-worker.alive").touch()
    (folder / "coffer-worker-link").symlink_to(other._folder)
    assert is_alive()
    pulse.close()
    assert not is_alive()
    other.close()


def test_where_no_file_can_be_written_the_work_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(folder / "absent"))
    pulse = Pulse()
    pulse.beat()
    pulse.close()
    assert not is_alive()


def test_a_folder_that_was_cleared_away_does_not_stop_the_work(folder: Path, pulse: Pulse) -> None:
    (pulse._folder / "pulse").unlink()
    pulse.beat()
    assert not is_alive()
