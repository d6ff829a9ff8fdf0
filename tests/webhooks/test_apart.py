"""A slow or dead endpoint delays nobody else; no endpoint leads inside, whatever its name resolves to by then."""

import asyncio
import os
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from uuid import UUID

from egress import Egress
from tenants.ids import any_local_id
from tests.house import House
from tests.jobs.desk import until
from tests.test_egress import INSIDE, INSIDE_6
from tests.webhooks.post import post_office
from tests.webhooks.receivers import Got, Receiver, receiving

SOAK = os.environ.get("COFFER_SOAK") == "1"
ENDPOINTS, EVENTS, ALONE = (48, 10_000, 1_000) if SOAK else (6, 60, 60)
WAVE = 5  # events at a time; the next come once the healthy have these, so that what is measured is no backlog
FLOOR = 0.5  # seconds below which two delays are alike; what waits for a troubled receiver waits fifteen


async def _drip(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"H")
        await writer.drain()
        await asyncio.sleep(1)


async def _hang(_writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(3600)


async def _p99(house: House, events: int, *, with_troubled: bool) -> float:
    """Seconds from a change to its request, of the healthy endpoints alone; each gets each event once."""
    async with AsyncExitStack() as stack:
        healthy = [await stack.enter_async_context(receiving()) for _ in range(ENDPOINTS)]
        dripping = await stack.enter_async_context(receiving(lambda _got: _drip))
        hanging = await stack.enter_async_context(receiving(lambda _got: _hang))
        dead = Receiver(lambda _got: b"", port=1)
        troubled = [dripping, hanging, dead] if with_troubled else []
        places = [receiver.place for receiver in [*healthy, *troubled]]
        post = await stack.enter_async_context(post_office(house, *places, seconds=15))
        for receiver in [*troubled, *healthy]:
            await post.add(receiver.url)
        post.clock.is_running = True
        engine = asyncio.create_task(post.webhooks.run())
        changed: dict[UUID, float] = {}
        for number in range(1, events + 1):
            changed[await post.customer(givenName=f"Ada {number}")] = time.monotonic()
            if number % WAVE == 0:
                await until(lambda n=number: _have(healthy, n), patience=300)  # type: ignore[misc]  # bound now
        engine.cancel()
        await post.webhooks.sender.close(grace=0)
        await asyncio.gather(engine, return_exceptions=True)
        if with_troubled:
            assert len(dripping.got) >= 1 and len(hanging.got) >= 1
    for receiver in healthy:
        assert len(set(receiver.ids)) == len(receiver.ids) == events
    delays = sorted(got.at - changed[_subject(got)] for receiver in healthy for got in receiver.got)
    return delays[len(delays) * 99 // 100]


def _subject(got: Got) -> UUID:
    found = any_local_id(got.json["data"]["subject"]["id"])
    assert found is not None
    return found[1]


async def _have(receivers: Sequence[Receiver], number: int) -> bool:
    return all(len(receiver.got) >= number for receiver in receivers)


async def test_dead_hanging_and_dripping_endpoints_delay_nobody_else(house: House) -> None:
    alone = await _p99(house, ALONE, with_troubled=False)
    beside = await _p99(house, EVENTS, with_troubled=True)
    assert beside < (2 if SOAK else 3) * max(alone, FLOOR), (alone, beside)


async def test_a_name_that_leads_inside_by_now_is_not_connected_to(house: House) -> None:
    told: list[str] = []

    async def resolve(_host: str, _port: int) -> Sequence[str]:
        return told

    async with post_office(house, egress=Egress(resolve=resolve, connect_seconds=0.2)) as post:
        await post.add("https://hooks.example.com/")
        for address in (*INSIDE, *INSIDE_6):
            told[:] = [address]
            await post.customer(givenName="Ada")
            await post.settle()
        rows = await post.rows("SELECT status, reason FROM webhook_attempts WHERE tenant_id = $1")
    assert [tuple(row) for row in rows] == [(None, "address-refused")] * len((*INSIDE, *INSIDE_6))
