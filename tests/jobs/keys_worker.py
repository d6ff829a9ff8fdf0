"""A worker in a process of its own that turns keys over in small pages; its settings come as one JSON argument."""

import asyncio
import sys
from dataclasses import replace
from datetime import timedelta
from typing import Any

from jobs import pauses
from jobs.depots import Depot
from jobs.handling import Run
from jobs.rotations import bik, dek
from jobs.rotations.kek import rotate_kek_by
from jobs.worker import Worker
from tenants.keys.rotating import ROTATE, RotationArguments
from tenants.keys.rotations import KeyPurpose
from tests.jobs.vaults import SMALL
from tests.jobs.worker_process import loaded

LEASE = timedelta(seconds=3)
GRACE = timedelta(seconds=1)  # between VERIFIED and RAISED
PAGE = 5  # rows of a step
PAUSE = 1.0  # seconds that a job is put off at most


class Small(Worker):
    """Its backups have many small chunks."""

    def _depot(self) -> Depot | None:
        depot = super()._depot()
        return None if depot is None else replace(depot, shape=SMALL)


def hurried(text: str) -> Worker:
    """Of settings as `worker_process.dumped` writes them."""

    async def rotate_kek(run: Run[RotationArguments]) -> None:
        await rotate_kek_by(worker.keys, worker.rotator, worker.key_files, GRACE)(run)

    worker = Small(loaded(text), handlers={ROTATE[KeyPurpose.KEK]: rotate_kek}, lease=LEASE, sweep=0.3)
    return worker


def make_small() -> None:
    modules: list[Any] = [dek, bik]
    for module in modules:
        for name in ("PAGE", "FILLED_AT_ONCE", "PROVEN_AT_ONCE", "CLEARED_AT_ONCE"):
            if hasattr(module, name):
                setattr(module, name, PAGE)
    pauses.LONGEST_PAUSE = PAUSE


async def main(text: str) -> None:
    make_small()
    worker = hurried(text)
    try:
        await worker.check()
        print("ready", flush=True)
        await worker.run()
    finally:
        await worker.close(grace=5)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
