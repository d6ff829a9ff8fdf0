"""The pulse of each worker process of this machine, by which `coffer worker --alive` tells whether all are well.

A file in a folder of the process's own, under a name nobody can guess, for the folder of temporary files is shared
with other users. The process holds a lock on it: one that died counts no more, and what it left is cleared away; one
that hangs still holds its lock, and its file grows old.
"""

import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import structlog

WITHIN = 30.0  # seconds; what has not beaten for longer, hangs
_PREFIX = "coffer-worker-"
_FILE = "pulse"
_log = structlog.get_logger()


class Pulse:
    """Beats once when it is made. Where no file can be written there is none, and the work goes on."""

    def __init__(self) -> None:
        self._file: BinaryIO | None = None
        try:
            clear_dead()
            self._folder = Path(tempfile.mkdtemp(prefix=_PREFIX))  # for its owner alone
            self._file = (self._folder / _FILE).open("wb")
            fcntl.flock(self._file, fcntl.LOCK_EX)
        except OSError as error:
            self._lack(error)

    def beat(self) -> None:
        if self._file is not None:
            try:
                os.utime(self._folder / _FILE)
            except OSError as error:  # somebody cleared the temporary files
                self._lack(error)

    def close(self) -> None:
        if self._file is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._file.close()
            self._file = None

    def _lack(self, error: OSError) -> None:
        _log.warning("no pulse, so --alive does not see this worker", error=type(error).__name__)
        if self._file is not None:
            self._file.close()
            self._file = None


def is_alive(within: float = WITHIN) -> bool:
    """Whether a worker of this user works on this machine, and all of them have looked into the ledger lately."""
    ages = [age for folder in _ours() if (age := _age(folder)) is not None]
    return bool(ages) and max(ages) < within


def clear_dead() -> None:
    """Remove what killed processes left. A folder is left alone for a while first: its owner may be about to lock."""
    for folder in _ours(older_than=WITHIN):
        if _age(folder) is None:
            shutil.rmtree(folder, ignore_errors=True)


def _ours(older_than: float = 0.0) -> Iterator[Path]:
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(FileNotFoundError):  # its process ended just now
            found = folder.lstat()
            is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
            if is_ours and time.time() - found.st_mtime >= older_than:
                yield folder


def _age(folder: Path) -> float | None:
    """Seconds since the last beat; None where its process is dead, or has not begun."""
    try:
        with (folder / _FILE).open("rb") as file:
            beaten = os.fstat(file.fileno()).st_mtime
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return time.time() - beaten
    except OSError:
        return None
    return None
