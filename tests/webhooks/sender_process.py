"""A worker that follows webhooks in a process of its own; its settings and the seconds of a lease come as arguments.

With a third its log, at DEBUG, goes to standard error.
"""

import asyncio
import sys
from datetime import timedelta

from jobs.worker import Worker
from telemetry import logs
from tests.jobs.worker_process import loaded


async def main(text: str, lease: float) -> None:
    worker = Worker(loaded(text))
    worker.webhooks.ledger._lease = timedelta(seconds=lease)
    worker.start()
    print("ready", flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        await worker.close(grace=1)


if __name__ == "__main__":
    if len(sys.argv) > 3:
        logs.configure("DEBUG", sys.stderr)
    asyncio.run(main(sys.argv[1], float(sys.argv[2])))
