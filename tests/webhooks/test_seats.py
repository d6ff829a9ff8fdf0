"""No tenant takes all requests that a process may have on their way, nor all threads that names are looked up on."""

import asyncio
from collections.abc import Sequence

from egress import Egress
from egress.names import Lookups
from jobs.webhooks.seats import Seats
from tenants.ids import new_id
from tenants.viewers import TenantId
from tests.house import House
from tests.jobs.desk import until
from tests.webhooks.post import PostOffice, post_office
from tests.webhooks.receivers import Receiver, receiving


def test_a_tenant_holds_at_most_half_as_many_as_are_free() -> None:
    seats, tenants = Seats(512), [TenantId(new_id()) for _ in range(10)]
    held = dict.fromkeys(tenants, 0)
    for _ in range(100):
        for tenant in tenants:
            held[tenant] += seats.take(tenant, 8)
    assert all(512 // 12 - 8 <= number <= 512 // 6 for number in held.values())
    assert 512 - seats.taken >= max(held.values())


def test_one_alone_has_a_third_and_the_next_has_some() -> None:
    seats, first, second = Seats(512), TenantId(new_id()), TenantId(new_id())
    assert seats.take(first, 512) == 171
    assert seats.take(second, 512) == 114
    seats.give_back(first, 171)
    assert seats.taken == 114


def test_of_one_seat_whoever_asks_first_has_it() -> None:
    seats, first, second = Seats(1), TenantId(new_id()), TenantId(new_id())
    assert (seats.take(first, 8), seats.take(second, 8)) == (1, 0)
    seats.give_back(first)
    assert seats.take(second, 8) == 1


async def _nudge(post: PostOffice, other: PostOffice) -> None:
    """`post` sends what is due of `other`."""
    other.clock.now = post.clock.now
    await other.relay()
    for (endpoint,) in await other.rows("SELECT id FROM webhook_endpoints WHERE tenant_id = $1"):
        post.webhooks.sender.nudge(other.tenant.id, endpoint)


async def test_a_tenant_with_many_slow_receivers_leaves_room_for_others(house: House) -> None:
    async def hang(_writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    async with (
        receiving(lambda _got: hang) as slow,
        receiving() as quick,
        post_office(house, slow.place, quick.place, seconds=60, at_once=8) as crowded,
        post_office(house) as other,
    ):
        for _ in range(3):
            await crowded.add(slow.url)
        await crowded.crowd(1)
        await other.add(quick.url)
        await other.customer(givenName="Ada")
        await _nudge(crowded, crowded)
        await until(lambda: _has(slow, 3))
        await _nudge(crowded, other)
        await until(lambda: _has(quick, 1))
        assert len(slow.got) == 3
        await crowded.webhooks.sender.close(grace=0)


async def _has(receiver: Receiver, number: int) -> bool:
    return len(receiver.got) >= number


async def test_a_tenant_with_many_silent_names_leaves_threads_to_others(house: House) -> None:
    silent: list[str] = []

    async def resolve(host: str, _port: int) -> Sequence[str]:
        if host.endswith(".example.com"):
            silent.append(host)
            await asyncio.Event().wait()
        return ["127.0.0.1"]

    egress = Egress(resolve=resolve, total_seconds=60)
    egress._names = Lookups(resolve, of_one=2)
    async with post_office(house, egress=egress) as post, post_office(house) as other:
        for number in range(4):
            await post.add(f"https://hooks{number}.example.com/")
        await other.add("https://hooks.example.org/")
        for each in (post, other):
            await each.customer(givenName="Ada")
        await _nudge(post, post)
        await until(lambda: _are(silent, 2))
        await _nudge(post, other)

        async def is_tried() -> bool:
            return bool(await other.rows("SELECT FROM webhook_attempts WHERE tenant_id = $1"))

        await until(is_tried)
        assert len(silent) == 2
        await post.webhooks.sender.close(grace=0)


async def _are(found: list[str], number: int) -> bool:
    return len(found) == number
