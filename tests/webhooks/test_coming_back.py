"""An endpoint that is enabled again gets what happened before it was disabled, at once, and nothing of between."""

from datetime import timedelta
from uuid import UUID

from domain.webhooks import deliveries, endpoints
from tenants.webhooks import spans
from tenants.webhooks.spans import Spans
from tests.house import House
from tests.webhooks.post import PostOffice, post_office, writer
from tests.webhooks.receivers import OK, Receiver, receiving, status

_HOUR = timedelta(hours=1)
_WAITING = "SELECT due_at, tries, attempt FROM webhook_deliveries WHERE tenant_id = $1 AND state = 'PENDING'"


async def _disable(post: PostOffice, endpoint: UUID) -> None:
    async with post.writing() as unit:
        await endpoints.disable(unit, endpoint)


async def _enable(post: PostOffice, endpoint: UUID) -> None:
    async with post.writing() as unit:
        await endpoints.enable(unit, endpoint)
    post.clock.now = max(post.clock.now, unit.now)


async def _change_before_and_while_disabled(post: PostOffice, endpoint: UUID, ada: UUID, note: str) -> None:
    await post.change(ada, note=note)
    await _disable(post, endpoint)
    await post.change(ada, given_name=note)
    await _enable(post, endpoint)


def _fields(receiver: Receiver) -> list[list[str]]:
    return [got.json["data"]["fields"] for got in receiver.got]


async def test_what_came_before_is_sent_and_what_came_meanwhile_is_not(house: House) -> None:
    async with receiving() as receiver, post_office(house, receiver.place) as post:
        view, _ = await post.add(receiver.url)
        ada = await post.customer(givenName="Ada")
        await post.settle()
        receiver.got.clear()
        await _change_before_and_while_disabled(post, view.id, ada, "x")
        await post.settle()
    assert _fields(receiver) == [["note"]]


async def test_so_it_is_each_time_while_somebody_holds_up_the_relay(house: House) -> None:
    async with receiving() as receiver, post_office(house, receiver.place) as post:
        view, _ = await post.add(receiver.url)
        ada = await post.customer(givenName="Ada")
        await post.settle()
        receiver.got.clear()
        async with writer(house):
            for note in ("x", "y", "z"):
                await _change_before_and_while_disabled(post, view.id, ada, note)
            await post.change(ada, city="Rome")
        await post.settle()
    assert _fields(receiver) == [["note"]] * 3 + [["address.city"]]


async def test_what_is_relayed_while_it_is_disabled_waits_for_it(house: House) -> None:
    async with receiving() as receiver, post_office(house, receiver.place) as post:
        view, _ = await post.add(receiver.url)
        await post.customer(givenName="Ada")
        await _disable(post, view.id)
        await post.customer(givenName="Bea")
        await post.settle()
        assert (len(await post.rows(_WAITING)), receiver.got) == (1, [])
        await _enable(post, view.id)
        await post.settle()
    assert len(receiver.got) == 1


async def test_what_a_410_met_and_what_waited_behind_it_all_go_on(house: House) -> None:
    async with receiving(lambda _got: status(410)) as receiver, post_office(house, receiver.place) as post:
        view, _ = await post.add(receiver.url)
        for number in range(12):
            await post.customer(givenName=f"Ada {number}")
        await post.settle()
        refused = len(receiver.got)
        rows = await post.rows(_WAITING)
        assert (len(rows), sum(row["attempt"] for row in rows)) == (12, refused)
        receiver.answer = lambda _got: OK
        await _enable(post, view.id)
        await post.settle()
    assert refused > 0
    assert len(set(receiver.ids[refused:])) == len(receiver.ids[refused:]) == 12


async def _failed(post: PostOffice, receiver: Receiver) -> UUID:
    """An endpoint with a customer's two events of which the first is tried again in half a day; all is well by now."""
    receiver.answer = lambda _got: status(500)
    view, _ = await post.add(receiver.url)
    ada = await post.customer(givenName="Ada")
    await post.change(ada, note="x")
    await post.run_out(most=5)
    receiver.answer = lambda _got: OK
    receiver.got.clear()
    return view.id


async def _later(post: PostOffice) -> None:
    """The second event's, as asked for: its place is behind the first's."""
    await post.superuser.execute(
        "UPDATE webhook_deliveries SET due_at = due_at + interval '9 hours' WHERE tenant_id = $1", post.tenant.id
    )


async def test_enabling_sends_at_once_what_waits_for_its_next_try(house: House) -> None:
    async with receiving() as receiver, post_office(house, receiver.place) as post:
        endpoint = await _failed(post, receiver)
        await _later(post)
        await _disable(post, endpoint)
        await _enable(post, endpoint)
        assert sorted(row["tries"] for row in await post.rows(_WAITING)) == [0, 6]
        await post.settle()
    assert _fields(receiver) == [["givenName"], ["note"]]


async def test_asking_for_one_again_sends_it_at_once_behind_what_is_before_it(house: House) -> None:
    async with receiving() as receiver, post_office(house, receiver.place) as post:
        await _failed(post, receiver)
        await _later(post)
        (last,) = await post.rows("SELECT id FROM webhook_deliveries WHERE tenant_id = $1 ORDER BY xid DESC LIMIT 1")
        async with post.writing() as unit:
            await deliveries.redeliver(unit, last["id"])
        assert sorted(row["tries"] for row in await post.rows(_WAITING)) == [0, 6]
        await post.settle()
    assert _fields(receiver) == [["givenName"], ["note"]]


async def test_a_replay_sends_at_once_what_waits(house: House) -> None:
    async with receiving() as receiver, post_office(house, receiver.place) as post:
        endpoint = await _failed(post, receiver)
        await _later(post)
        async with post.writing() as unit:
            assert await deliveries.replay(unit, endpoint, unit.now - _HOUR, unit.now + _HOUR, []) == 2
        await post.settle()
    assert _fields(receiver) == [["givenName"], ["note"]]


def test_spans_hold_what_committed_within_them() -> None:
    text = "10:12:10:11;20:25:22:21;30:30::30"  # begun in 11, ended in 21, begun in 30
    held = Spans.of(text)
    assert [xid for xid in range(5, 40) if held.hold(xid)] == [10, *range(12, 21), 23, 24, *range(31, 40)]
    over = Spans.of("10:12:10:11;20:25:22:21")
    assert [xid for xid in range(5, 40) if over.hold(xid)] == [10, *range(12, 21), 23, 24]
    assert (held.is_ended, over.is_ended) == (False, True)
    assert [xid for xid in range(5, 40) if Spans.of(";20:20::20").hold(xid)] == list(range(5, 20))
    assert Spans.of(None).hold(5) and not Spans.of(None).is_ended


def test_many_spans_become_fewer_and_hold_no_less() -> None:
    text = ";".join(f"{xid}:{xid}::{xid}" for xid in range(10, 10 + 20 * spans.MOST, 10))
    again = str(spans.begun_again(text).compile(compile_kwargs={"literal_binds": True}))
    kept = Spans.of(again.split("'")[1])
    whole = Spans.of(text)
    assert len(kept.moments) == len(whole.moments) - 2
    assert {xid for xid in range(500) if kept.hold(xid)} == {xid for xid in range(500) if whole.hold(xid)} | {
        *range(20, 31)
    }
