"""What webhooks cost: deliveries per second to 1 and to 50 endpoints, and the delay from commit to first attempt."""

import argparse
import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import uvloop

from bench.cores import OTHER_CORE, SERVER_CORE, on_core
from bench.house import House, Loaded, house
from bench.people import person
from domain import customers
from domain.paging import Window
from domain.webhooks import endpoints
from domain.webhooks.endpoints import Wanted
from jobs.worker import Worker
from telemetry import logs
from tenants import members
from tenants.access import Role
from tenants.ids import new_id
from tenants.viewers import Credential, TenantId

_GROUP = 50  # customers of one unit
_MANY = 50
_IDLE = 100  # changes, one at a time


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.webhooks", description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="customers of all 20 tenants")
    parser.add_argument("--events", type=int, default=2_000, help="to one endpoint; a tenth of them to each of 50")
    parser.add_argument("--folder", type=Path, default=Path(".coffer-bench"), help="where loaded data is kept")
    asked = parser.parse_args()
    logs.configure("WARNING")
    with on_core(OTHER_CORE):
        uvloop.run(_bench(asked))


async def _bench(asked: argparse.Namespace) -> None:
    async with house(asked.folder.resolve(), asked.rows) as built:
        await measure(built, asked.events)


async def measure(built: House, events: int) -> None:
    """Print a line each. One worker on one core, Postgres on the other; the receiver answers at once."""
    async with _receiver() as (place, count):
        with on_core(SERVER_CORE):
            worker = Worker(replace(built.settings, egress_allow=frozenset({place})))
            worker.start()
            try:
                owner = await _owner(worker, built.spare)
                async with worker.units.enter(owner.tenant, owner.principal, write=False) as unit:
                    left = [view.id for view in (await endpoints.page(unit, Window(100))).nodes]
                await _remove(worker, owner, left)  # by a run that was cut off
                await _delays(worker, owner, place)
                await _rates(worker, owner, place, count, 1, events)
                await _rates(worker, owner, place, count, _MANY, events // 10)
            finally:
                await worker.close()


async def _owner(worker: Worker, tenant: Loaded) -> Credential:
    id = TenantId(UUID(tenant.tenant))
    async with worker.units.enter(id, None, write=True) as unit:
        email = f"{new_id().hex}@bench.example.org"
        made = await members.add(unit, email=email, name="Bench", password_hash=None, roles=[Role.OWNER])
    return Credential(id, made)


async def _delays(worker: Worker, owner: Credential, place: str) -> None:
    """With nothing else to do: from the moment of the change to the request, as its timestamps tell."""
    made = await _add(worker, owner, place, 1)
    delays: list[float] = []
    worker.webhooks.sender.first_attempts = delays.append
    for number in range(_IDLE):
        await _change(worker, owner, 1)
        while len(delays) <= number:  # noqa: ASYNC110  # the list is the sender's
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.02)
    worker.webhooks.sender.first_attempts = lambda _seconds: None
    await _remove(worker, owner, made)
    delays.sort()
    p50, p99 = delays[len(delays) // 2], delays[int(len(delays) * 0.99) - 1]
    print(f"{'change to first attempt, idle':34}{p50 * 1000:7.1f} ms p50{p99 * 1000:7.1f} ms p99", flush=True)


async def _rates(
    worker: Worker, owner: Credential, place: str, count: Callable[[], int], number: int, events: int
) -> None:
    made = await _add(worker, owner, place, number)
    began, before = time.perf_counter(), count()
    for _ in range(events // _GROUP):
        await _change(worker, owner, _GROUP)
    wanted = events // _GROUP * _GROUP * number
    while count() - before < wanted:  # noqa: ASYNC110  # the count is the receiver's
        await asyncio.sleep(0.01)
    rate = wanted / (time.perf_counter() - began)
    print(f"{f'deliveries, {number} endpoints':34}{rate:10.1f}/s", flush=True)
    await _remove(worker, owner, made)


async def _add(worker: Worker, owner: Credential, place: str, number: int) -> list[UUID]:
    made = []
    for n in range(number):
        async with worker.units.enter(owner.tenant, owner.principal, write=True) as unit:
            wanted = Wanted(name="Bench", url=f"http://{place}/{n}", types=["customer.created"], roles=[Role.MANAGER])
            view, _ = await endpoints.create(unit, wanted)
            made.append(view.id)
    return made


async def _remove(worker: Worker, owner: Credential, made: list[UUID]) -> None:
    for endpoint in made:
        async with worker.units.enter(owner.tenant, owner.principal, write=True) as unit:
            await endpoints.disable(unit, endpoint)
    await asyncio.sleep(1)  # what is on its way is settled
    for endpoint in made:
        async with worker.units.enter(owner.tenant, owner.principal, write=True) as unit:
            await endpoints.remove(unit, endpoint)


async def _change(worker: Worker, owner: Credential, number: int) -> None:
    async with worker.units.enter(owner.tenant, owner.principal, write=True) as unit:
        await customers.create_many(unit, [person(new_id().int % 1_000_000) for _ in range(number)])


@asynccontextmanager
async def _receiver() -> AsyncIterator[tuple[str, Callable[[], int]]]:
    got = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal got
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(length.split(b":")[1]))
        got += 1
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", lambda: got
    finally:
        server.close()


if __name__ == "__main__":
    main()
