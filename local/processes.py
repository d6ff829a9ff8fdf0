"""One server process per folder: who owns the folder, and how a server left behind by a killed run is found and ended.

Two `flock`s tell the cases apart without trusting process ids, which the system hands out again:
`owner.lock` is held by the Python process that uses the folder; `alive.lock` is inherited by the server itself, so it
stays held for as long as the server or one of its children lives, even when Python was killed with -9.
"""

import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from local.errors import LocalServiceError

_POLL_SECONDS = 0.02


@contextmanager
def owned_folder(folder: Path, service: str) -> Iterator[Path]:
    """Make `folder` (0700) and hold it for this process; a second process that asks for it is refused."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (folder / "owner.lock").open("a+b")
    except OSError as cause:
        raise LocalServiceError(
            f"{service} can't write to {folder}; make it writable for this user, or choose another folder."
        ) from cause
    with lock:
        if not _try_lock(lock):
            raise LocalServiceError(
                f"{service} is already running from {folder}; stop that run first, or choose another folder."
            )
        yield folder


class ServerProcess:
    """A server started by us in an owned folder; `start` first ends what a killed run left behind."""

    def __init__(self, service: str, folder: Path, *, polite: signal.Signals) -> None:
        """`polite` asks the server to stop in good order; it gets ten seconds before SIGKILL."""
        self.service = service
        self.log = folder / "server.log"
        self._alive = folder / "alive.lock"
        self._polite = polite
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        if self._process is None:
            raise LocalServiceError(f"{self.service} is not running; start it first.")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, command: Sequence[str | Path], environment: Mapping[str, str]) -> None:
        if self.is_running:
            return
        with self._alive.open("a+b") as alive:
            self._end_orphan(alive)
            with self.log.open("wb") as log:
                self._process = subprocess.Popen(
                    command,
                    env=environment,
                    cwd="/",  # never keeps a folder of the caller busy, and can always be entered
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    pass_fds=[alive.fileno()],
                    start_new_session=True,  # Ctrl-C reaches us alone; we stop the server last
                )
            alive.truncate(0)
            alive.write(b"%d" % self._process.pid)

    def end_orphan(self) -> None:
        """End the server of a killed run, if there is one; `start` does so too."""
        with self._alive.open("a+b") as alive:
            self._end_orphan(alive)

    def wait_until(self, is_ready: Callable[[], bool], seconds: float) -> bool:
        """Whether the server became ready: False when it ended by itself or took too long."""
        end = time.monotonic() + seconds
        while self.is_running and time.monotonic() < end:
            if is_ready():
                return True
            time.sleep(_POLL_SECONDS)
        return False

    def stop(self) -> None:
        """End the server and wait for it; a second Ctrl-C while waiting kills it at once."""
        process, self._process = self._process, None
        if process is None:
            return
        try:
            process.send_signal(self._polite)
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise

    def _end_orphan(self, alive: IO[bytes]) -> None:
        # half a second first: the children of a server killed with -9 hold the lock until they notice
        for number, patience in ((None, 0.5), (self._polite, 10.0), (signal.SIGKILL, 5.0)):
            if number is not None:
                self._signal_orphan(alive, number)
            if _lock_within(alive, patience):
                return
        raise LocalServiceError(
            f"A {self.service} of an earlier run still uses {self._alive.parent} and can't be stopped; end it by hand."
        )

    def _signal_orphan(self, alive: IO[bytes], number: signal.Signals) -> None:
        alive.seek(0)
        written = alive.read()
        try:
            os.kill(int(written), number)
        except (ValueError, ProcessLookupError, PermissionError):
            return  # the lock decides, not the signal


def _lock_within(file: IO[bytes], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not _try_lock(file):
        if time.monotonic() >= end:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _try_lock(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
