"""Work that goes on after its request was answered, because how long it takes would tell what nobody may know."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog
import uuid_utils

from api.errors import log_internal
from crypto.errors import CofferError

_MOST, _AT_ONCE = 200, 2  # what comes on top is dropped; and they share few connections with the requests
_log = structlog.get_logger()


class Errands:
    """For one event loop. What is under way when the process dies is lost: whoever asked asks again."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()
        self._turns = asyncio.Semaphore(_AT_ONCE)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        if len(self._running) >= _MOST:
            work.close()
            _log.warning("errand dropped")
            return
        task = asyncio.create_task(self._run(work))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def finish(self, patience: float | None = None) -> None:
        """Until all that was started has ended, or so many seconds."""
        if self._running:
            await asyncio.wait(set(self._running), timeout=patience)

    async def _run(self, work: Coroutine[Any, Any, None]) -> None:
        async with self._turns:
            try:
                await work
            except CofferError as error:
                _log.warning("errand failed", error=error.code)
            except Exception as error:  # the edge: nobody waits for it
                log_internal(error, str(uuid_utils.uuid7()))
