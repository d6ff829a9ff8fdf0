"""What kills its sender, each time, is tried by the schedule and then skipped; what nobody here knows waits."""

from datetime import timedelta
from uuid import UUID

from jobs.webhooks.holding import MOST_LOST, PUT_OFF_LONG, STRANGE_FOR
from jobs.webhooks.schedules import RETRIES
from tenants import events
from tenants.events import EventKind
from tenants.ids import new_id
from tenants.webhooks.ledger import LEASE
from tests.house import House
from tests.webhooks.post import PostOffice, post_office
from tests.webhooks.receivers import receiving, status

_SECOND = timedelta(seconds=1)


async def _lose(post: PostOffice, endpoint: UUID) -> int:
    """Claimed by a process that dies."""
    return len(await post.webhooks.ledger.claim(post.tenant.id, endpoint, post.clock(), 8))


async def test_a_delivery_whose_senders_die_goes_by_the_schedule_and_ends(house: House) -> None:
    async with receiving() as receiver, post_office(house, receiver.place) as post:
        view, _ = await post.add(receiver.url)
        ada = await post.customer(givenName="Ada")
        await post.change(ada, given_name="Ann")
        await post.relay()
        for pause in (*RETRIES, None):
            for _ in range(MOST_LOST):
                assert await _lose(post, view.id) == 1
                post.clock.turn(LEASE + _SECOND)
            await post.settle()
            if pause is not None:
                assert await _lose(post, view.id) == 0
                post.clock.turn(pause)
        rows = await post.rows(
            "SELECT state, reason, tries, attempt FROM webhook_deliveries WHERE tenant_id = $1 ORDER BY place"
        )
    assert [tuple(row) for row in rows] == [("SKIPPED", "ATTEMPTS_SPENT", 10, 0), ("DELIVERED", None, 1, 1)]
    assert [got.json["type"] for got in receiver.got] == ["customer.updated"]


async def test_what_was_lost_comes_after_its_lease_under_its_id_and_then_by_the_exact_schedule(house: House) -> None:
    async with receiving(lambda _got: status(500)) as receiver, post_office(house, receiver.place) as post:
        view, _ = await post.add(receiver.url)
        await post.customer(givenName="Ada")
        await post.relay()
        for _ in range(MOST_LOST - 1):
            await _lose(post, view.id)
            post.clock.turn(LEASE + _SECOND)
        began = post.clock.now
        moments = await post.run_out()
        (row,) = await post.rows("SELECT state, attempt, claims FROM webhook_deliveries WHERE tenant_id = $1")
    assert [at - began for at in moments] == [sum(RETRIES[: n + 1], timedelta()) for n in range(len(RETRIES))]
    assert tuple(row) == ("SKIPPED", 10, 0)
    assert len(set(receiver.ids)) == 1


async def test_what_a_sender_said_of_its_lease_first_holds(house: House) -> None:
    async with receiving() as receiver, post_office(house, receiver.place) as post:
        view, _ = await post.add(receiver.url)
        await post.customer(givenName="Ada")
        await post.relay()
        claimed = await post.webhooks.ledger.claim(post.tenant.id, view.id, post.clock(), 8)
        for until in (post.clock() + _SECOND, post.clock()):
            await post.webhooks.sender._put_off((post.tenant.id, view.id), claimed, until)
        (row,) = await post.rows("SELECT due_at, lease_until FROM webhook_deliveries WHERE tenant_id = $1")
    assert tuple(row) == (post.clock.now + _SECOND, None)


async def _land(post: PostOffice) -> None:
    """As a newer release does, of a kind that it knows."""
    await post.superuser.execute(
        "INSERT INTO events (tenant_id, id, at, type, version, subject, fields)"
        " VALUES ($1, $2, $3, 'moon.landed', 1, $2, '{}')",
        *(post.tenant.id, new_id(), post.clock()),
    )


async def test_a_type_that_only_a_newer_release_knows_is_left_to_it(house: House) -> None:
    async with receiving() as receiver, post_office(house, receiver.place) as post:
        await post.add(receiver.url, types=())
        await _land(post)
        await post.settle()
        (row,) = await post.rows(
            "SELECT state, tries, due_at FROM webhook_deliveries WHERE tenant_id = $1 AND type = 'moon.landed'"
        )
        assert tuple(row) == ("PENDING", 0, post.clock() + PUT_OFF_LONG)
        assert receiver.got == []
        EventKind("moon.landed", "Customer", "One of them landed.")
        try:
            post.clock.turn(PUT_OFF_LONG)
            await post.settle()
        finally:
            del events._kinds["moon.landed"]
    assert [got.json["type"] for got in receiver.got] == ["moon.landed"]


async def test_a_type_that_nobody_has_known_for_a_day_is_skipped(house: House) -> None:
    async with receiving() as receiver, post_office(house, receiver.place) as post:
        await post.add(receiver.url, types=())
        await _land(post)
        post.clock.turn(STRANGE_FOR)
        await post.settle()
        (row,) = await post.rows("SELECT state FROM webhook_deliveries WHERE tenant_id = $1 AND type = 'moon.landed'")
    assert row["state"] == "SKIPPED"
