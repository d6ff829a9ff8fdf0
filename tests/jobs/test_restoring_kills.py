"""A worker that is killed while it restores: the tenant is as it was or as it should be, and another ends the job."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from random import Random

from domain.restores import RESTORE, Restore
from tenants.ids import new_id
from tests.jobs.desk import Desk
from tests.jobs.restorations import Restorations
from tests.jobs.vaults import Vaults
from tests.jobs.worker_process import dumped

SOAK = os.environ.get("COFFER_SOAK") == "1"


@asynccontextmanager
async def worker(vaults: Vaults) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process of its own, killed at the end of the block if it is still there."""
    stores = tuple(store.url for store in vaults.depot.stores)
    settings = replace(vaults.desk.house.api.settings, backup_stores=stores)
    command = (sys.executable, "-m", "tests.jobs.worker_process", dumped(settings))
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert (await process.stdout.readline()).strip() == b"ready"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_killed_at_any_moment_it_is_as_before_or_done(desk: Desk, tmp_path: Path) -> None:
    chance = Random(5)  # noqa: S311
    async with Vaults.opened(desk, tmp_path, f"k-{new_id().hex[-12:]}") as vaults:
        restorations = Restorations(vaults)
        await restorations.fill(60)
        wanted = await restorations.picture()
        backup = await vaults.back_up()
        for _ in range(15 if SOAK else 3):
            await restorations.fill(2)
            before = await restorations.picture()
            job = await desk.enqueue(RESTORE, Restore(backup["id"], dry_run=False), tenant=vaults.tenant)
            async with worker(vaults) as process:
                await desk.until_state("RUNNING", job)
                await asyncio.sleep(chance.uniform(0, 1.2))  # the random moment, which is the matter here
                process.kill()
                await process.wait()
                assert await restorations.picture() in (before, wanted)
            async with worker(vaults):
                await desk.until_state("DONE", job, patience=60)
            assert await restorations.picture() == wanted
            assert await restorations.frozen() is None
