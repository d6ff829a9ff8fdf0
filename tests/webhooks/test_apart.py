"""A slow or dead endpoint delays nobody else; no endpoint leads inside, whatever its name resolves to by then."""

import asyncio
import os
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime

from egress import Egress
from tests.house import House
from tests.test_egress import INSIDE, INSIDE_6
from tests.webhooks.post import post_office
from tests.webhooks.receivers import Receiver, receiving

SOAK = bool(os.environ.get("COFFER_SOAK"))
ENDPOINTS, EVENTS = (48, 10_000) if SOAK else (6, 60)


async def _drip(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"H")
        await writer.drain()
        await asyncio.sleep(1)


async def _sent(house: House, *, with_troubled: bool) -> float:
    """Seconds until the healthy endpoints had everything."""
    async with AsyncExitStack() as stack:
        healthy = [await stack.enter_async_context(receiving()) for _ in range(ENDPOINTS)]
        dripping = await stack.enter_async_context(receiving(lambda _got: _drip))
        dead = Receiver(lambda _got: b"", port=1)
        troubled = [dripping, dead] if with_troubled else []
        places = [receiver.place for receiver in [*healthy, *troubled]]
        post = await stack.enter_async_context(post_office(house, *places, seconds=15))
        for receiver in [*troubled, *healthy]:
            await post.add(receiver.url)
        for number in range(EVENTS // 10):
            await house.data(
                "mutation($i: [CustomerInput!]!) { createCustomers(input: $i) { created } }",
                {"i": [{"givenName": f"Ada {number} {n}"} for n in range(10)]},
                tenant=post.tenant.slug,
            )
        began = time.monotonic()
        while not all(len(receiver.got) >= EVENTS for receiver in healthy):
            assert time.monotonic() - began < 600
            post.clock.now = datetime.now(UTC)
            await post.webhooks.relay()
            await post.webhooks.poll()
            await asyncio.sleep(0.05)
        for receiver in healthy:
            assert len(set(receiver.ids)) == len(receiver.ids) == EVENTS
        return time.monotonic() - began


async def test_a_dripping_and_a_dead_endpoint_delay_nobody_else(house: House) -> None:
    alone = await _sent(house, with_troubled=False)
    beside = await _sent(house, with_troubled=True)
    assert beside < alone * 2 + 2, (alone, beside)


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
