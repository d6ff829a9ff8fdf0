"""From events to deliveries: each once, in its order, whatever happens meanwhile."""

import asyncio
from datetime import UTC, datetime, timedelta

import orjson
import pytest

from domain import customers
from domain.errors import NotFound
from domain.webhooks import deliveries, endpoints, previews
from domain.webhooks.previews import Question
from tenants.access import Grants, Permission, Role, RoleSpec, Scope
from tenants.ids import global_id, new_id
from tenants.webhooks import relaying
from tests.house import House
from tests.webhooks.post import post_office, writer
from tests.webhooks.receivers import receiving
from tests.webhooks.test_rendering import _role

_HOUR = timedelta(hours=1)


async def test_no_more_is_claimed_than_asked_for_whatever_the_planner_knows(house: House) -> None:
    async with receiving() as receiver, post_office(house, receiver.place) as post:
        view, _ = await post.add(receiver.url)
        await post.crowd(5)
        await post.horizon()
        assert (await relaying.relay(post.app, post.tenant.id, post.clock())).events >= 250
        claimed = await post.webhooks.ledger.claim(post.tenant.id, view.id, post.clock(), 8)
    assert len(claimed) == 8


async def test_what_was_on_its_way_when_an_endpoint_came_is_sent(house: House) -> None:
    async with receiving() as receiver, post_office(house, receiver.place) as post:
        await post.customer(givenName="Before")
        async with post.writing() as unit:
            await customers.create_many(unit, [{"given_name": "Late"}])
            await unit.flush()
            await post.customer(givenName="Before as well")
            view, _ = await post.add(receiver.url)
        await post.settle()
        assert len(receiver.got) == 1
        async with post.writing() as unit:
            await endpoints.disable(unit, view.id)
        await post.customer(givenName="Meanwhile")
        async with post.writing() as unit:
            await endpoints.enable(unit, view.id)
        await post.customer(givenName="After")
        await post.settle()
    assert len(receiver.got) == 2


async def test_a_lock_in_one_tenant_stops_no_other(house: House) -> None:
    async with receiving() as receiver, post_office(house) as locked, post_office(house, receiver.place) as post:
        view, _ = await locked.add(receiver.url)
        await post.add(receiver.url)
        await locked.customer(givenName="Ada")
        await post.customer(givenName="Bea")
        await post.horizon()
        transaction = locked.superuser.transaction()
        await transaction.start()
        await locked.superuser.execute("SELECT FROM webhook_endpoints WHERE id = $1 FOR UPDATE", view.id)
        engine = asyncio.create_task(post.webhooks.run())
        try:
            async with asyncio.timeout(5):
                while not receiver.got:
                    post.clock.now = datetime.now(UTC)
                    await asyncio.sleep(0.02)
        finally:
            await transaction.rollback()
            engine.cancel()
            await asyncio.gather(engine, return_exceptions=True)


async def test_a_backlog_is_relayed_page_by_page(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relaying, "PAGE", 10)
    async with receiving() as receiver, post_office(house, receiver.place) as post:
        await post.add(receiver.url)
        await post.crowd(1)
        await post.horizon()
        assert await post.webhooks._relay(post.tenant.id)
        count = "SELECT count(*) AS made FROM webhook_deliveries WHERE tenant_id = $1"
        assert (await post.rows(count))[0]["made"] in range(1, 11)
        await post.webhooks.sender.idle()


async def test_a_cursor_of_another_cluster_begins_anew(house: House) -> None:
    async with receiving() as receiver, post_office(house, receiver.place) as post:
        await post.add(receiver.url)
        await post.customer(givenName="Ada")
        await post.settle()
        ahead = "UPDATE webhook_cursors SET xid = xid + 1000000000 WHERE tenant_id = $1"
        await post.superuser.execute(ahead, post.tenant.id)
        begun = "UPDATE webhook_endpoints SET begun = '9000000000:9000000000::9000000000' WHERE tenant_id = $1"
        await post.superuser.execute(begun, post.tenant.id)
        await post.customer(givenName="Bea")
        await post.settle()
    assert len(receiver.got) == len(set(receiver.ids)) == 2


async def test_a_replay_of_known_and_unknown_events_keeps_their_order(house: House) -> None:
    async with receiving() as receiver, post_office(house, receiver.place) as post:
        view, _ = await post.add(receiver.url)
        ada = await post.customer(givenName="Ada")
        await post.settle()
        async with post.writing() as unit:
            await endpoints.disable(unit, view.id)
        await post.change(ada, given_name="Ann")
        await post.change(ada, note="x")
        async with post.writing() as unit:
            await endpoints.enable(unit, view.id)
        async with post.writing() as unit:
            assert await deliveries.replay(unit, view.id, unit.now - _HOUR, unit.now + _HOUR, []) == 3
        receiver.got.clear()
        post.clock.turn(timedelta(minutes=1))
        await post.settle()
    assert [got.json["data"]["fields"] for got in receiver.got] == [["givenName"], ["givenName"], ["note"]]


async def test_a_replay_of_what_is_not_relayed_yet_does_not_turn_its_order_round(house: House) -> None:
    async with receiving() as receiver, post_office(house, receiver.place) as post:
        view, _ = await post.add(receiver.url)
        async with writer(house):
            ada = await post.customer(givenName="Ada")
            async with post.writing() as unit:
                until = unit.now
            await post.change(ada, note="x")
            async with post.writing() as unit:
                assert await deliveries.replay(unit, view.id, until - _HOUR, until, []) == 1
            assert await post.rows("SELECT FROM webhook_deliveries WHERE tenant_id = $1") == []
        post.clock.turn(timedelta(minutes=1))
        await post.settle()
    assert [got.json["data"]["fields"] for got in receiver.got] == [["givenName"], ["note"]]


async def test_a_replay_of_what_came_while_it_was_disabled_goes_before_what_came_after(house: House) -> None:
    async with receiving() as receiver, post_office(house, receiver.place) as post:
        view, _ = await post.add(receiver.url)
        async with post.writing() as unit:
            await endpoints.disable(unit, view.id)
        ada = await post.customer(givenName="Ada")
        async with post.writing() as unit:
            await endpoints.enable(unit, view.id)
        await post.change(ada, note="x")
        await post.relay()
        async with post.writing() as unit:
            assert await deliveries.replay(unit, view.id, unit.now - _HOUR, unit.now + _HOUR, []) == 2
        post.clock.turn(timedelta(minutes=1))
        await post.settle()
    assert [got.json["data"]["fields"] for got in receiver.got] == [["givenName"], ["note"]]


async def test_a_preview_shows_nothing_that_the_asker_may_not_hear_of(house: House) -> None:
    async with post_office(house) as post:
        await post.customer(givenName="Ada")
        (event,) = await post.rows("SELECT id FROM events WHERE tenant_id = $1 AND type = 'member.added' LIMIT 1")
        analyst = house.members[post.tenant.slug][Role.ANALYST]
        async with house.api.units.enter(analyst.tenant, analyst.principal, write=False) as unit:
            with pytest.raises(NotFound):
                await previews.preview(unit, Question(roles=[Role.OWNER], event=event["id"]))


async def test_an_erasure_is_told_to_whoever_hears_of_customers(house: House) -> None:
    async with receiving() as receiver, post_office(house, receiver.place) as post:
        spec = RoleSpec(Grants(frozenset({Permission.CUSTOMERS_READ}), {}), Scope.OWN)
        await post.add(receiver.url, roles=[], own=[await _role(post, spec)])
        gone = new_id()
        await post.superuser.execute(
            "INSERT INTO events (tenant_id, id, at, type, version, subject, fields)"
            " VALUES ($1, $2, now(), 'customer.erased', 1, $3, '{}')",
            *(post.tenant.id, new_id(), gone),
        )
        await post.settle()
    (got,) = receiver.got
    assert orjson.loads(got.body)["data"]["subject"]["id"] == global_id("Customer", gone)
    assert "customer" not in got.json["data"]
