"""`python -m bench.rotations`: how long it takes to turn over the keys of many tenants in the key store.

One worker process on one core, Postgres and OpenBao on the other. From the first job until the last floor is raised,
with what the worker does beside: the begin of each rotation, and the audit log, linked as far as it comes meanwhile.
Each job is given up for the time of grace and taken again, as in production; there it takes five minutes.

Left out: stores of backups, where each tenant's key file is written anew; keyrings, which are open already, and would
be opened twice, as they are kept no longer than the time of grace; other work and other workers; a network. Beside
the clock, which others on the machine slow down, it prints processor time, which they change far less.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from bench.cores import SERVER_CORE, on_core
from bench.house import house
from bench.spending import spent
from crypto.transit import TransitKeys
from domain import rotations
from jobs.rotations.kek import rotate_kek_by
from jobs.worker import Worker
from settings import AppRole, Settings
from telemetry import logs
from tenants.jobs import JobState, job_inspections
from tenants.keys import rotating
from tenants.keys.rotating import ROTATE
from tenants.keys.rotations import Cause, KeyPurpose
from tenants.provisioning import Provisioning
from tenants.viewers import TenantId

T = TypeVar("T")
_AT_ONCE = 16  # tenants that are made, begun or looked at side by side
_LONGEST = 900.0  # seconds
_REST = 3.0  # seconds, in which a worker that has nothing to do uses no more than `_IDLE` of processor time
_IDLE = 0.2
_KEK = ROTATE[KeyPurpose.KEK]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.rotations", description=__doc__)
    parser.add_argument("--tenants", type=int, default=1_000)
    parser.add_argument("--hands", type=int, default=16, help="jobs at once in the worker")
    parser.add_argument("--grace", type=float, default=5.0, help="seconds between a rotation's proof and its floor")
    parser.add_argument("--folder", type=Path, help="where Postgres and OpenBao lie; a new one by default")
    asked = parser.parse_args()
    logs.configure("WARNING")
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        asyncio.run(_measure(Path(folder), asked.tenants, asked.hands, asked.grace))


async def _measure(folder: Path, tenants: int, hands: int, grace: float) -> None:
    async with house(folder, 20) as loaded:
        settings = replace(loaded.settings, broker_url="memory:", worker_threads=hands)
        with on_core(SERVER_CORE):
            seconds, used = await _rotated(settings, tenants, timedelta(seconds=grace))
    print(f"{tenants} KEKs turned over in {seconds:.1f} s, {tenants / seconds:.1f}/s, with {grace:g} s of grace")
    each = ", ".join(f"{name} {spent_by / tenants * 1000:.1f}" for name, spent_by in used.items())
    print(f"ms of processor time per tenant: {each}", flush=True)


async def _rotated(settings: Settings, count: int, grace: timedelta) -> tuple[float, dict[str, float]]:
    """Seconds on the clock; seconds of processor time by program. Raises AssertionError where one does not end."""
    assert settings.rotator_role is not None
    keys, rotator = _keys(settings, settings.api_role), _keys(settings, settings.rotator_role)
    worker = Worker(settings, handlers={_KEK: rotate_kek_by(keys, rotator, None, grace)})
    try:
        made = await _made(worker, count)
        worker.start()
        await _come_to_rest(worker)
        began, used = time.perf_counter(), _used()
        await _side_by_side([_begin(worker, tenant) for tenant in made])
        while await _is_busy(worker):
            await asyncio.sleep(0.2)
            assert time.perf_counter() - began < _LONGEST
        seconds = time.perf_counter() - began
        by_program = {name: now - used[name] for name, now in _used().items()}
        assert all(await _side_by_side([_has_ended(worker, tenant) for tenant in made]))
        return seconds, by_program
    finally:
        await worker.close(grace=5)
        await keys.close()
        await rotator.close()


async def _come_to_rest(worker: Worker) -> None:
    """Until it has done what the making of tenants left to do: the first links and checkpoints of their audit logs."""
    ends, used = time.perf_counter() + _LONGEST, 0.0
    while worker.linking.lag or time.process_time() - used > _IDLE:
        assert time.perf_counter() < ends
        used = time.process_time()
        await asyncio.sleep(_REST)


def _used() -> dict[str, float]:
    return {"worker": time.process_time()} | spent()


async def _made(worker: Worker, count: int) -> list[TenantId]:
    assert worker.maker is not None
    provisioning = Provisioning(worker.platform, worker.database, worker.maker, worker.keys)

    async def make(number: int) -> TenantId:
        return TenantId((await provisioning.provision(f"turned-{number}", "Turned")).id)

    return await _side_by_side([make(number) for number in range(count)])


async def _begin(worker: Worker, tenant: TenantId) -> None:
    async with worker.units.enter(tenant, None, write=True) as unit:
        await rotating.begin(unit, KeyPurpose.KEK, Cause.ASKED)


async def _is_busy(worker: Worker) -> bool:
    """A parked one is not; it is found by whoever looks at each."""
    counted = await job_inspections.counts(worker.platform)
    return any(kind == _KEK.name and state != JobState.PARKED for kind, state in counted)


async def _has_ended(worker: Worker, tenant: TenantId) -> bool:
    async with worker.units.enter(tenant, None, write=False) as unit:
        return not await rotations.every_open(unit)


async def _side_by_side(work: Sequence[Awaitable[T]]) -> list[T]:
    turns = asyncio.Semaphore(_AT_ONCE)

    async def one(each: Awaitable[T]) -> T:
        async with turns:
            return await each

    return list(await asyncio.gather(*(one(each) for each in work)))


def _keys(settings: Settings, role: AppRole) -> TransitKeys:
    address, mount = settings.vault_address, settings.transit_mount
    return TransitKeys(address, role.role_id, role.secret_id, ca_file=settings.vault_ca_file, mount=mount)


if __name__ == "__main__":
    main()
