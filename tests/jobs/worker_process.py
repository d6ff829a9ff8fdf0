"""A worker in a process of its own, with the tests' handlers; its settings come as one JSON argument."""

import asyncio
import json
import os
import signal
import sys
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from jobs.handling import Run
from jobs.worker import Worker
from settings import AppRole, Mode, Settings
from tenants.jobs import NoArguments
from tests.jobs.desk import HANDLERS
from tests.jobs.kinds import POISON

ROLES = ("api_role", "provisioner_role", "rotator_role", "backup_role")


def dumped(settings: Settings) -> str:
    return json.dumps(asdict(settings), default=sorted)


def loaded(text: str) -> Settings:
    made: dict[str, Any] = json.loads(text)
    roles = {name: AppRole(**made[name]) for name in ROLES if made[name] is not None}
    sets = {"cors_origins": tuple(made["cors_origins"]), "egress_allow": frozenset(made["egress_allow"])}
    sets["backup_stores"] = tuple(made["backup_stores"])
    return Settings(**made | roles | sets | {"mode": Mode(made["mode"])})


async def kill_the_worker(_: Run[NoArguments]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def main(settings: Settings) -> None:
    handlers = {**HANDLERS, POISON: kill_the_worker}
    worker = Worker(settings, handlers=handlers, lease=timedelta(seconds=2), sweep=0.3)
    try:
        await worker.check()
        print("ready", flush=True)
        await worker.run()
    finally:
        await worker.close(grace=5)


if __name__ == "__main__":
    asyncio.run(main(loaded(sys.argv[1])))
