"""Keeps worker processes running: one that dies is started again, so that a poison job does not stop a machine."""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence

import structlog

SHORTEST, LONGEST = 0.5, 30.0  # seconds before a process is started again
_STEADY = 30.0  # seconds after which a process counts as well
_PATIENCE = 40.0  # seconds that processes get to end in
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)
_log = structlog.get_logger()


async def supervise(command: Sequence[str], processes: int) -> int:
    """Until SIGTERM or Ctrl-C, which is passed on. 0 if all ended in time."""
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked.set)
    kept = await asyncio.gather(*(_keep(command, asked) for _ in range(processes)))
    return 0 if all(kept) else 1


async def _keep(command: Sequence[str], asked: asyncio.Event) -> bool:
    pause = SHORTEST
    while not asked.is_set():
        began = time.monotonic()
        process = await asyncio.create_subprocess_exec(*command, start_new_session=True, preexec_fn=_bound())
        ended = asyncio.create_task(process.wait())
        asking = asyncio.create_task(asked.wait())
        await asyncio.wait({ended, asking}, return_when=asyncio.FIRST_COMPLETED)
        asking.cancel()
        if asked.is_set():
            return await _end(process, ended)
        pause = SHORTEST if time.monotonic() - began > _STEADY else min(pause * 2, LONGEST)
        _log.warning("worker process died", status=process.returncode, seconds=pause)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asked.wait(), pause)
    return True


async def _end(process: asyncio.subprocess.Process, ended: "asyncio.Task[int]") -> bool:
    """Whether it ended when asked; else it is killed, and its jobs count as those of a dead worker."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(ended, _PATIENCE)
    except TimeoutError:
        process.kill()
        await process.wait()
        return False
    return True


def _bound() -> Callable[[], None] | None:
    """What binds a new process to us: it is asked to end when we die, even by SIGKILL. None where only Linux can."""
    if sys.platform != "linux":
        return None
    prctl, supervisor = ctypes.CDLL(None, use_errno=True).prctl, os.getpid()

    def bind() -> None:
        prctl(_DEATH_SIGNAL, int(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != supervisor:  # we died in between
            os.kill(os.getpid(), signal.SIGTERM)

    return bind
