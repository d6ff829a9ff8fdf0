"""An event reaches its endpoints once each, signed, in order; what fails is tried again by the schedule."""

from datetime import timedelta

from standardwebhooks import Webhook

from jobs.webhooks.schedules import RETRIES
from tenants.access import Role
from tenants.webhooks import Payload
from tests.house import House
from tests.webhooks.post import post_office
from tests.webhooks.receivers import receiving, status


async def test_a_change_reaches_the_endpoint_once_and_is_signed(house: House) -> None:
    async with receiving() as receiver, post_office(house, receiver.place) as post:
        view, secret = await post.add(receiver.url)
        await post.customer(givenName="Ada")
        await post.settle()
        await post.settle()
    (got,) = receiver.got
    verified = Webhook(secret.secret).verify(got.body, got.headers)
    assert verified["type"] == "customer.created"
    assert verified["data"]["fields"] == ["givenName"]
    assert set(verified["data"]) == {"eventId", "version", "subject", "fields"}
    assert view.state == "ACTIVE"


async def test_a_full_payload_shows_what_the_roles_show_and_puts_it_on_record(house: House) -> None:
    async with receiving() as receiver, post_office(house, receiver.place) as post:
        await post.add(receiver.url, roles=[Role.AGENT], payload=Payload.FULL)
        await post.customer(givenName="Ada", emails=["ada.lovelace@example.org"], governmentId="X1234567", note="n")
        await post.settle()
        entries = await post.rows(
            "SELECT fields FROM audit_entries WHERE tenant_id = $1 AND action = 'personal.disclosed' ORDER BY at DESC"
        )
        attempts = await post.rows("SELECT * FROM webhook_attempts WHERE tenant_id = $1")
    customer = receiver.got[0].json["data"]["customer"]
    assert (customer["givenName"], customer["emails"]) == ("Ada", ["a***@e***.org"])
    assert not {"governmentId", "note"} & set(customer)
    assert "Customer.givenName:PLAIN" in entries[0]["fields"]
    assert "Customer.emails:MASKED" in entries[0]["fields"]
    assert "givenName:PLAIN" in attempts[0]["fields"]


async def test_a_failure_is_tried_again_by_the_schedule_and_then_skipped(house: House) -> None:
    async with receiving(lambda _got: status(500)) as receiver, post_office(house, receiver.place) as post:
        await post.add(receiver.url)
        first = await post.customer(givenName="Ada")
        began = post.clock.now
        await post.change(first, given_name="Bea")
        moments = await post.run_out(most=len(RETRIES))
        assert [at - began for at in moments] == [sum(RETRIES[: n + 1], timedelta()) for n in range(len(RETRIES))]
        assert len(set(receiver.ids)) == 2  # the last turn gave the first up, and the second's came
        assert receiver.ids[:10] == [receiver.ids[0]] * 10
        rows = await post.rows(
            "SELECT state, reason, attempt FROM webhook_deliveries WHERE tenant_id = $1 ORDER BY place"
        )
    assert tuple(rows[0]) == ("SKIPPED", "ATTEMPTS_SPENT", 10)
    assert rows[1]["state"] == "PENDING"
