"""`python -m bench.reseal`: how fast a data key turns over, and what a page of customers costs meanwhile.

The worker has one core, Postgres and the reader of pages share the other.
"""

import argparse
import asyncio
import cProfile
import multiprocessing
import os
import pstats
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import uvloop

from api.app import Api
from bench.cores import OTHER_CORE, SERVER_CORE, on_core
from bench.house import House, house
from bench.people import person
from crypto.transit import TransitKeys
from domain import customers
from domain.paging import Window
from jobs.handling import Handling
from jobs.rotations.dek import rotate_dek_by
from settings import Settings
from telemetry import logs
from tenants.jobs import JobId
from tenants.jobs.ledger import Ledger
from tenants.keys import rotating
from tenants.keys.rotating import ROTATE
from tenants.keys.rotations import Cause, KeyPurpose
from tenants.provisioning import Provisioning
from tenants.viewers import TenantId

_DEK = KeyPurpose.DEK
_PAGE = 50
_PAUSE = 0.02  # seconds between two pages: a reader, not a flood
_WARM_UP = 0.2  # of the time that is measured
_TURNS = 3


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.reseal", description=__doc__)
    parser.add_argument("--rows", type=int, default=40_000, help="customers, each with four sealed documents")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement of pages")
    parser.add_argument("--folder", type=Path, default=Path(".coffer-bench"), help="where loaded data is kept")
    parser.add_argument("--profile", action="store_true", help="print what the worker spends its time on by cProfile")
    asked = parser.parse_args()
    logs.configure("WARNING")
    with on_core(OTHER_CORE):
        uvloop.run(_bench(asked))


async def _bench(asked: argparse.Namespace) -> None:
    async with house(asked.folder.resolve(), 20) as built:
        bench = _Bench(built)
        try:
            await bench.load(asked.rows)
            await bench.rotate()  # so that plans and caches are warm
            for _ in range(_TURNS):
                lasting, busy = await bench.rotate()
                print(f"resealed {asked.rows / lasting:10,.0f} rows/s {asked.rows / busy:10,.0f} per second of a core")
            if asked.profile:
                await bench.profile()
            await bench.pages(asked.seconds)
        finally:
            await bench.close()


class _Bench:
    """A tenant of its own, and the parts of a worker that turn over its key."""

    def __init__(self, built: House) -> None:
        self.api = Api(built.settings)
        role = built.settings.provisioner_role
        assert role is not None
        self.maker = TransitKeys(built.settings.vault_address, role.role_id, role.secret_id)
        self.settings = built.settings
        self.tenant = TenantId(uuid4())

    async def load(self, rows: int) -> None:
        provisioning = Provisioning(self.api.platform, self.api.database, self.maker, self.api.keys)
        self.tenant = (await provisioning.provision(f"reseal-{uuid4().hex[:12]}", "Reseal")).id
        for start in range(0, rows, customers.MOST_AT_ONCE):
            numbers = range(start, min(start + customers.MOST_AT_ONCE, rows))
            async with self.api.units.enter(self.tenant, None, write=True) as unit:
                await customers.create_many(unit, [_person(number) for number in numbers])
        print(f"loaded {rows:,} customers of four sealed documents", flush=True)

    async def rotate(self) -> tuple[float, float]:
        """Seconds from the new key to the end of the old one, counting and proof with them; of them the worker's."""
        async with self.api.units.enter(self.tenant, None, write=True) as unit:
            rotation = await rotating.begin(unit, _DEK, Cause.ASKED)
            job = (await rotating.find(unit, rotation)).job_id
        assert job is not None
        ledger = Ledger(self.api.database, self.api.platform, "bench")
        handling = Handling(self.api.units, ledger, {ROTATE[_DEK]: rotate_dek_by(self.api.keys, self.maker)})
        with on_core(SERVER_CORE):
            began, used = time.perf_counter(), time.process_time()
            await handling.handle(self.tenant, JobId(job))
            taken = time.perf_counter() - began, time.process_time() - used
        async with self.api.units.enter(self.tenant, None, write=False) as unit:
            assert (await rotating.find(unit, rotation)).state == "RETIRED"
        return taken

    async def profile(self) -> None:
        with cProfile.Profile(time.process_time) as measured:
            await self.rotate()
        pstats.Stats(measured).sort_stats("tottime").print_stats(30)

    async def pages(self, seconds: float) -> None:
        """By turns, so that whatever else the machine does slows both."""
        idle: list[_Read] = []
        busy: list[_Read] = []
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            for _ in range(_TURNS):
                idle += await self._read(pool, seconds / _TURNS)
                reading = asyncio.ensure_future(self._read(pool, seconds / _TURNS))
                while not reading.done():
                    await self.rotate()
                busy += await reading
        quiet, resealing = _times(idle), _times(busy)
        renewed = {"with new keys": times} if (times := _times(busy, has_new_keys=True)) else {}
        for name, times in ({"idle": quiet, "while resealing": resealing} | renewed).items():
            told = f"p50 {_percentile(times, 50):6.1f} ms   p99 {_percentile(times, 99):6.1f} ms"
            print(f"page of {_PAGE} {name:16} {told}   of {len(times):,}")
        print(f"p99 while resealing / idle {_percentile(resealing, 99) / _percentile(quiet, 99):6.2f}")

    async def close(self) -> None:
        await self.maker.close()
        await self.api.close()

    async def _read(self, pool: ProcessPoolExecutor, seconds: float) -> "list[_Read]":
        arguments = (self.settings, self.tenant, seconds)
        return await asyncio.get_running_loop().run_in_executor(pool, _reading, *arguments)


def _person(number: int) -> dict[str, Any]:
    more = {"note": f"Met in {number % 90}", "government_id": f"12-{number:07}", "external_id": f"bench-{number}"}
    return person(number) | more


class _Read(NamedTuple):
    """One page. The first behind a change of keys opens them by the key store, resealing or not."""

    seconds: float
    has_new_keys: bool


def _times(reads: Sequence[_Read], *, has_new_keys: bool = False) -> list[float]:
    return [read.seconds for read in reads if read.has_new_keys == has_new_keys]


def _percentile(times: Sequence[float], percent: int) -> float:
    """Milliseconds."""
    ordered = sorted(times)
    return ordered[min(len(ordered) * percent // 100, len(ordered) - 1)] * 1000


def _reading(settings: Settings, tenant: TenantId, seconds: float) -> list[_Read]:
    """Pages, as a process of its own reads and opens them."""
    os.sched_setaffinity(0, {OTHER_CORE})
    return asyncio.run(_read_pages(settings, tenant, seconds))


async def _read_pages(settings: Settings, tenant: TenantId, seconds: float) -> list[_Read]:
    api, reads, keyring = Api(settings), list[_Read](), None
    began = time.perf_counter()
    while (now := time.perf_counter()) - began < seconds * (1 + _WARM_UP):
        async with api.units.enter(tenant, None, write=False) as unit:
            found = await customers.page(unit, customers.Filter(), customers.Order(), Window(_PAGE))
            for view in found.nodes:
                view.document("profile", "to measure it")
        if now - began > seconds * _WARM_UP:
            reads.append(_Read(time.perf_counter() - now, keyring is not unit.keyring))
        keyring = unit.keyring
        await asyncio.sleep(_PAUSE)
    await api.close()
    return reads


if __name__ == "__main__":
    main()
