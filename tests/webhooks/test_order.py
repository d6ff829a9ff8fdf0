"""One subject's events go in order, each subject's for itself; an endpoint that fails for days is disabled."""

from datetime import timedelta

from domain.webhooks import deliveries, endpoints
from domain.webhooks.endpoints import Wanted
from jobs.webhooks.schedules import PATIENCE
from tenants.access import Role
from tenants.ids import global_id
from tests.house import House
from tests.webhooks.post import PostOffice, post_office
from tests.webhooks.receivers import OK, receiving, status


async def test_of_one_subject_the_next_waits_for_the_one_before(house: House) -> None:
    async with receiving() as receiver, post_office(house, receiver.place) as post:
        await post.add(receiver.url)
        receiver.answer = lambda _got: status(500) if len(receiver.got) == 1 else OK
        ada, bea = await post.customer(givenName="Ada"), await post.customer(givenName="Bea")
        await post.change(ada, given_name="Ann")
        await post.settle()
        assert [got.json["type"] for got in receiver.got] == ["customer.created"] * 2
        await post.run_out()
        rows = await post.rows("SELECT subject, type FROM webhook_deliveries WHERE tenant_id = $1 ORDER BY place")
    assert [got.json["type"] for got in receiver.got] == ["customer.created"] * 3 + ["customer.updated"]
    assert [row["subject"] for row in rows] == [ada, bea, ada]


async def test_many_changes_of_one_customer_arrive_in_their_order(house: House) -> None:
    async with receiving() as receiver, post_office(house, receiver.place) as post:
        await post.add(receiver.url)
        ada = await post.customer(givenName="Ada")
        for name in ("given_name", "family_name", "note", "display_name", "city"):
            await post.change(ada, **{name: "X"})
        await post.settle()
    fields = [got.json["data"]["fields"] for got in receiver.got]
    assert fields == [["givenName"], ["givenName"], ["familyName"], ["note"], ["displayName"], ["address.city"]]


async def test_after_the_last_attempt_its_subject_goes_on(house: House) -> None:
    async with receiving(lambda _got: status(500)) as receiver, post_office(house, receiver.place) as post:
        await post.add(receiver.url)
        ada = await post.customer(givenName="Ada")
        await post.change(ada, given_name="Ann")
        await post.run_out(most=9)
        receiver.answer = lambda _got: OK
        await post.run_out()
        rows = await post.rows("SELECT state FROM webhook_deliveries WHERE tenant_id = $1 ORDER BY place")
    assert [row["state"] for row in rows] == ["SKIPPED", "DELIVERED"]


async def test_an_endpoint_that_fails_for_five_days_is_disabled_and_administrators_are_told(house: House) -> None:
    async with receiving(lambda _got: status(500)) as receiver, post_office(house, receiver.place) as post:
        view, _ = await post.add(receiver.url)
        for _ in range(6):
            await post.customer(givenName="Ada")
            await post.settle()
            post.clock.turn(timedelta(days=1))
        await post.settle()
        await _is_disabled(post, "FAILED_FOR_DAYS")
        events = await post.rows("SELECT subject FROM events WHERE tenant_id = $1 AND type = 'webhook.disabled'")
        letters = await post.rows("SELECT arguments FROM jobs WHERE tenant_id = $1 AND kind = 'send_mail'")
        requests = len(receiver.got)
        await post.customer(givenName="Bea")
        await post.run_out()
    assert [row["subject"] for row in events] == [view.id]
    assert len(letters) == 2  # the owner and the administrator
    assert all("WEBHOOK_DISABLED" in row["arguments"] for row in letters)
    assert len(receiver.got) == requests


async def test_a_success_between_failures_begins_the_count_anew(house: House) -> None:
    async with receiving(lambda _got: status(500)) as receiver, post_office(house, receiver.place) as post:
        await post.add(receiver.url)
        await post.customer(givenName="Ada")
        await post.settle()
        post.clock.turn(PATIENCE - timedelta(minutes=1))
        receiver.answer = lambda _got: OK
        await post.settle()
        receiver.answer = lambda _got: status(500)
        post.clock.turn(timedelta(hours=1))
        await post.customer(givenName="Bea")
        await post.settle()
        (row,) = await post.rows("SELECT state, failing_since FROM webhook_endpoints WHERE tenant_id = $1")
    assert (row["state"], row["failing_since"]) == ("ACTIVE", post.clock.now)


async def test_one_that_is_gone_is_disabled_at_once(house: House) -> None:
    async with receiving(lambda _got: status(410)) as receiver, post_office(house, receiver.place) as post:
        await post.add(receiver.url)
        ada = await post.customer(givenName="Ada")
        await post.change(ada, given_name="Ann")
        await post.run_out()
        await _is_disabled(post, "GONE")
    assert len(receiver.got) == 1


async def test_an_endpoint_whose_service_is_shut_out_is_sent_nothing(house: House) -> None:
    async with receiving() as receiver, post_office(house, receiver.place) as post:
        view, _ = await post.add(receiver.url)
        await post.superuser.execute("UPDATE members SET status = 'DISABLED' WHERE id = $1", view.member_id)
        await post.customer(givenName="Ada")
        await post.run_out(most=3)
        await _is_disabled(post, "SERVICE_DISABLED")
    assert receiver.got == []


async def test_what_is_asked_for_again_comes_under_the_same_id_and_behind_what_waits(house: House) -> None:
    async with receiving() as receiver, post_office(house, receiver.place) as post:
        view, _ = await post.add(receiver.url)
        ada = await post.customer(givenName="Ada")
        await post.change(ada, given_name="Ann")
        await post.settle()
        owner = house.members[post.tenant.slug][Role.OWNER]
        async with house.api.units.enter(owner.tenant, owner.principal, write=True) as unit:
            count = await deliveries.replay(
                unit, view.id, unit.now - timedelta(hours=1), unit.now + timedelta(hours=1), ["customer.created"]
            )
        post.clock.turn(timedelta(minutes=1))
        await post.settle()
    assert count == 1
    assert receiver.ids == [receiver.ids[0], receiver.ids[1], receiver.ids[0]]


async def test_what_came_before_the_endpoint_is_sent_only_when_replayed(house: House) -> None:
    async with receiving() as receiver, post_office(house, receiver.place) as post:
        await post.customer(givenName="Ada")
        view, _ = await post.add(receiver.url)
        await post.settle()
        assert receiver.got == []
        owner = house.members[post.tenant.slug][Role.OWNER]
        async with house.api.units.enter(owner.tenant, owner.principal, write=True) as unit:
            hour = timedelta(hours=1)
            assert await deliveries.replay(unit, view.id, unit.now - hour, unit.now + hour, []) == 1
        post.clock.turn(timedelta(minutes=1))
        await post.settle()
    assert len(receiver.got) == 1


async def test_a_test_event_waits_for_none_of_its_endpoints_other_events(house: House) -> None:
    async with receiving(lambda _got: status(500)) as receiver, post_office(house, receiver.place) as post:
        view, _ = await post.add(receiver.url, types=["webhook.*"], roles=[Role.OWNER])
        async with post.writing() as unit:
            await endpoints.change(unit, view.id, 1, Wanted(name="Another"))
        await post.settle()
        for _ in range(2):
            async with post.writing() as unit:
                asked = await deliveries.test(unit, view.id)
            post.clock.now = max(post.clock.now, unit.now)
            receiver.got.clear()
            await post.settle()
            assert f"msg_{asked.id.hex}" in receiver.ids
    assert receiver.got[0].json["data"]["subject"]["id"] == global_id("WebhookEndpoint", view.id)


async def _is_disabled(post: PostOffice, why: str) -> None:
    (row,) = await post.rows("SELECT state, disabled_why FROM webhook_endpoints WHERE tenant_id = $1")
    assert tuple(row) == ("DISABLED", why)
