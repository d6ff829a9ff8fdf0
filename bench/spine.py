"""What background work costs: disclosures recorded, audit entries linked, jobs led through each broker, per second."""

import asyncio
import os
import time
from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

from api.app import Api
from bench.cores import SERVER_CORE, on_core
from bench.house import House, Loaded
from jobs.handling import Handler, Run
from jobs.worker import Worker
from tenants.audit.chains import AuditChains
from tenants.audit.entries import DISCLOSED, Entry
from tenants.audit.store import CheckpointStore
from tenants.ids import new_id
from tenants.jobs import JobKind, NoArguments

_WRITERS = 64
_ENTRIES = 20_000
_JOBS = 1_000
_GROUP = 50  # entries of one commit, jobs of one unit
_BROKERS = {"memory": "", "RabbitMQ": "COFFER_TEST_AMQP_URL", "Redis": "COFFER_TEST_REDIS_URL"}
NOTHING = JobKind("bench_nothing", NoArguments, "Do nothing, in one step.")


async def measure(house: House, seconds: float, most: int) -> None:
    """Print a line each, of at most so many entries and jobs. One process on one core, Postgres on the other."""
    print("\nbackground work")
    with on_core(SERVER_CORE):
        await _disclosures(house, seconds)
        await _links(house, min(_ENTRIES, most))
        for name, variable in _BROKERS.items():
            url = os.environ.get(variable, "") if variable else "memory:"
            if url:
                await _jobs(house, name, url, min(_JOBS, most))
            else:
                print(f"jobs through {name}: not measured; set {variable}")


async def _disclosures(house: House, seconds: float) -> None:
    """Each names 50 records and 8 fields, as a page does."""
    api, written, began = Api(house.settings), 0, time.perf_counter()

    async def write() -> None:
        nonlocal written
        while time.perf_counter() - began < seconds:
            await api.recorder.record([_entry(house.spare)])
            written += 1

    await asyncio.gather(*(write() for _ in range(_WRITERS)))
    _print("disclosures recorded", written, began)
    await api.close()


async def _links(house: House, count: int) -> None:
    api = Api(house.settings)
    chains = AuditChains(api.units, api.keys, CheckpointStore(house.settings.audit_store))
    tenant = house.spare.credential(house.spare.manager).tenant
    while (await chains.link(tenant)).count:
        pass  # what the disclosures left
    for _ in range(count // _GROUP):
        await api.recorder.record([_entry(house.spare) for _ in range(_GROUP)])
    began, linked = time.perf_counter(), 0
    while made := (await chains.link(tenant)).count:
        linked += made
    _print("audit entries linked", linked, began)
    await api.close()


async def _jobs(house: House, name: str, url: str, count: int) -> None:
    """From the first enqueuing until the last has ended; all tenants at once."""
    settings = replace(house.settings, broker_url=url, broker_queue=f"coffer-bench-{uuid4().hex[:8]}")
    done = asyncio.Event()
    worker = Worker(settings, handlers={NOTHING: _nothing(done, count)})
    worker.start()
    began = time.perf_counter()
    for number in range(count // _GROUP):
        tenant = house.tenants[number % len(house.tenants)]
        credential = tenant.credential(tenant.manager)
        async with worker.units.enter(credential.tenant, credential.principal, write=True) as unit:
            for _ in range(_GROUP):
                await unit.enqueue(NOTHING, NoArguments())
    await asyncio.wait_for(done.wait(), 300)
    _print(f"jobs through {name}", count, began)
    await worker.close()


def _nothing(done: asyncio.Event, count: int) -> Handler:
    led = 0

    async def nothing(run: Run[NoArguments]) -> None:
        nonlocal led
        async with run.step() as step:
            step.finish()
        led += 1
        if led == count:
            done.set()

    return nothing


def _entry(tenant: Loaded) -> Entry:
    credential = tenant.credential(tenant.manager)
    return Entry(
        tenant=credential.tenant,
        at=datetime.now(UTC),
        actor=credential.principal,
        action=DISCLOSED,
        subject_type="Customer",
        subjects=[new_id() for _ in range(50)],
        fields=[f"Customer.field{number}:PLAIN" for number in range(8)],
        details={"records": 50, "plain": 400, "masked": 0},
    )


def _print(what: str, count: int, began: float) -> None:
    print(f"{what:34}{count / (time.perf_counter() - began):10.1f}/s", flush=True)
