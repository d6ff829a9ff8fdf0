"""Worker processes that send webhooks of the house's database."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO

from tests.house import House
from tests.jobs.worker_process import dumped
from tests.webhooks.receivers import Receiver

ROOT = Path(__file__).parent.parent.parent


@asynccontextmanager
async def worker(
    house: House, *receivers: Receiver, lease: float = 60, log: IO[bytes] | None = None
) -> AsyncIterator[subprocess.Popen[bytes]]:
    """Ready when it is given, dead afterwards. `log` gets what it says at DEBUG; `lease` is in seconds."""
    allowed = frozenset(receiver.place for receiver in receivers)
    settings = replace(house.api.settings, egress_allow=allowed, broker_queue="hooks")
    command = [sys.executable, "-m", "tests.webhooks.sender_process", dumped(settings), str(lease)]
    command += [] if log is None else ["DEBUG"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log)  # noqa: ASYNC220  # starts at once
    drained = None
    try:
        assert process.stdout is not None
        while await asyncio.to_thread(process.stdout.readline) != b"ready\n":
            assert process.poll() is None
        drained = asyncio.create_task(asyncio.to_thread(process.stdout.read))
        yield process
    finally:
        process.kill()
        await asyncio.to_thread(process.wait)
        if drained is not None:
            await drained
        assert process.stdout is not None
        process.stdout.close()
