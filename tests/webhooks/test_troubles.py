"""What stands in a delivery's way, and must not lose it, nor hold up others: one test each."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from domain.webhooks import deliveries, endpoints
from jobs.webhooks.settling import Settling
from tenants.errors import DatabaseUnavailable
from tenants.ids import global_id, new_id
from tenants.unit import Unit
from tenants.webhooks import Payload, relaying
from tests.house import House
from tests.jobs.desk import until
from tests.webhooks.post import PostOffice, post_office
from tests.webhooks.receivers import OK, receiving, status

_HOUR = timedelta(hours=1)


async def _pending(post: PostOffice, endpoint: UUID, subject: UUID | None, count: int) -> None:
    """Deliveries that wait; all of one subject, whose first is put off for an hour, or each of another."""
    await post.superuser.execute(
        "INSERT INTO webhook_deliveries (tenant_id, id, endpoint_id, event_id, type, type_version, happened_at,"
        " subject, fields, place, xid, state, due_at, created_at)"
        " SELECT $1, gen_random_uuid(), $2, gen_random_uuid(), 'customer.updated', 1, now(),"
        " coalesce($3::uuid, gen_random_uuid()), '{}', n, n, 'PENDING', $4::timestamptz - interval '1 hour'"
        " + CASE WHEN n = 1 AND $3::uuid IS NOT NULL THEN interval '2 hours' ELSE interval '0' END, now()"
        " FROM generate_series(1, $5::int) n",
        *(post.tenant.id, endpoint, subject, post.clock(), count),
    )


async def test_two_bodies_of_the_same_values_have_no_hash_in_common(house: House) -> None:
    """So that the log, which is in the clear, answers no guess: 128 bits of each body are in no table."""
    async with receiving() as receiver, post_office(house, receiver.place) as post:
        receiver.answer = lambda _got: status(500) if len(receiver.got) == 1 else OK
        await post.add(receiver.url, payload=Payload.FULL)
        await post.customer(givenName="Wilhelmina")
        await post.run_out()
        hashes = await post.rows("SELECT body_hash FROM webhook_attempts WHERE tenant_id = $1")
    first, second = (got.json for got in receiver.got)
    assert len({row["body_hash"] for row in hashes}) == 2
    nonces = [first["data"].pop("nonce"), second["data"].pop("nonce")]
    assert first == second and len(set(nonces)) == 2
    assert all(len(nonce) == 24 for nonce in nonces)


@pytest.mark.parametrize("is_one", [True, False], ids=["one subject", "many subjects"])
async def test_a_claim_is_quick_behind_many_that_wait(house: House, is_one: bool) -> None:
    async with receiving() as receiver, post_office(house, receiver.place) as post:
        view, _ = await post.add(receiver.url)
        await _pending(post, view.id, new_id() if is_one else None, 20_000)
        began = time.monotonic()
        claimed = await post.webhooks.ledger.claim(post.tenant.id, view.id, post.clock(), 8)
        seconds = time.monotonic() - began
    assert len(claimed) == (0 if is_one else 8)
    assert seconds < 2, seconds  # it took half a minute


async def test_one_unreadable_customer_holds_up_no_other_and_is_sent_thin(house: House) -> None:
    async with receiving() as receiver, post_office(house, receiver.place) as post:
        await post.add(receiver.url, payload=Payload.FULL)
        made = [await post.customer(givenName=f"Ada {number}") for number in range(8)]
        flipped = "set_byte(profile, length(profile) - 1, get_byte(profile, length(profile) - 1) # 1)"
        await post.superuser.execute(f"UPDATE customers SET profile = {flipped} WHERE id = $1", made[3])
        await post.settle()
        rows = await post.rows("SELECT state, attempt FROM webhook_deliveries WHERE tenant_id = $1")
    assert [tuple(row) for row in rows] == [("DELIVERED", 1)] * 8
    thin = [got.json["data"]["subject"]["id"] for got in receiver.got if "customer" not in got.json["data"]]
    assert thin == [global_id("Customer", made[3])]


async def test_a_lane_that_ended_badly_does_not_stay(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async with receiving() as receiver, post_office(house, receiver.place, seconds=10) as post:

        async def hang(_writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(60)

        receiver.answer = lambda _got: hang
        view, _ = await post.add(receiver.url)
        await post.customer(givenName="Ada")
        sender, claim, calls = post.webhooks.sender, post.webhooks.ledger.claim, 0

        async def failing(*asked: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == 2:
                raise DatabaseUnavailable
            return await claim(*asked)

        monkeypatch.setattr(post.webhooks.ledger, "claim", failing)
        await post.horizon()
        await relaying.relay(post.app, post.tenant.id, post.clock())
        sender.nudge(post.tenant.id, view.id)
        await until(lambda: _is(len(receiver.got) == 1))
        sender.nudge(post.tenant.id, view.id)
        await until(lambda: _is(calls == 2))
        await asyncio.sleep(0.05)
        await sender.close(grace=0)
        assert (sender._lanes, sender.on_the_way) == ({}, 0)
        receiver.answer = lambda _got: OK
        post.clock.turn(timedelta(minutes=5))
        await post.settle()
    assert len(receiver.got) == 2


async def _is(fact: bool) -> bool:
    return fact


async def test_a_date_beyond_all_dates_is_no_wish_and_the_attempt_counts(house: House) -> None:
    async with receiving() as receiver, post_office(house, receiver.place) as post:
        said = "Retry-After: Mon, 01 Jan 2026 00:00:00 +99999999999999999999"
        receiver.answer = lambda _got: status(503, said) if len(receiver.got) == 1 else OK
        await post.add(receiver.url)
        await post.customer(givenName="Ada")
        assert len(await post.run_out()) == 1
        (row,) = await post.rows("SELECT state, attempt FROM webhook_deliveries WHERE tenant_id = $1")
    assert tuple(row) == ("DELIVERED", 2)


async def test_an_endpoint_that_can_not_be_stopped_now_keeps_its_attempt(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_asked: Any) -> None:
        raise DatabaseUnavailable

    async with receiving(lambda _got: status(410)) as receiver, post_office(house, receiver.place) as post:
        await post.add(receiver.url)
        monkeypatch.setattr(post.webhooks.sender._stopping, "stop", away)
        await post.customer(givenName="Ada")
        await post.settle()
        (row,) = await post.rows("SELECT state, attempt FROM webhook_deliveries WHERE tenant_id = $1")
    assert (tuple(row), len(receiver.got)) == (("PENDING", 1), 1)


async def test_a_tenant_that_can_not_be_settled_holds_up_no_other(house: House) -> None:
    held = asyncio.Event()

    class Ledger:
        async def settle(self, tenant: object, *_rest: object) -> list[UUID]:
            if tenant == "slow":
                await held.wait()
            return []

    async def never(*_asked: object) -> None: ...

    settling = Settling(Ledger(), lambda: datetime.now(UTC), never)  # type: ignore[arg-type]  # all that it asks of one
    slow = asyncio.create_task(settling.settle("slow", None))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    await asyncio.wait_for(settling.settle("quick", None), 1)  # type: ignore[arg-type]
    assert not slow.done()
    held.set()
    await slow


async def test_a_quiet_endpoint_is_not_disabled_by_one_failure(house: House) -> None:
    async with receiving(lambda _got: status(500)) as receiver, post_office(house, receiver.place) as post:
        await post.add(receiver.url)
        await post.customer(givenName="Ada")
        await post.run_out(most=9)
        post.clock.turn(timedelta(days=20))
        await post.customer(givenName="Bea")
        await post.settle()
        (row,) = await post.rows("SELECT state FROM webhook_endpoints WHERE tenant_id = $1")
    assert row["state"] == "ACTIVE"


async def test_a_frozen_tenants_events_wait_the_fresh_one_too(house: House) -> None:
    async with receiving() as receiver, post_office(house, receiver.place) as post:
        view, _ = await post.add(receiver.url)
        await post.customer(givenName="Ada")
        freeze = "UPDATE tenants SET frozen = $2 WHERE id = $1"
        await post.superuser.execute(freeze, post.tenant.id, "RESTORE")
        await post.relay()
        post.webhooks.sender.nudge(post.tenant.id, view.id)
        await post.webhooks.sender.idle()
        (row,) = await post.rows("SELECT state, attempt, tries FROM webhook_deliveries WHERE tenant_id = $1")
        assert (receiver.got, tuple(row)) == ([], ("PENDING", 0, 0))
        await post.superuser.execute(freeze, post.tenant.id, None)
        post.clock.turn(timedelta(minutes=1))
        await post.settle()
    assert len(receiver.got) == 1


async def _test_event(unit: Unit, endpoint: UUID) -> None:
    await deliveries.test(unit, endpoint)


async def _enabled(unit: Unit, endpoint: UUID) -> None:
    await endpoints.disable(unit, endpoint)
    await endpoints.enable(unit, endpoint)


async def _replayed(unit: Unit, endpoint: UUID) -> None:
    await deliveries.replay(unit, endpoint, unit.now - _HOUR, unit.now + _HOUR, [])


@pytest.mark.parametrize("act", [_test_event, _enabled, _replayed], ids=["a test event", "enabling", "a replay"])
async def test_a_wish_is_known_to_all_processes_until_somebody_here_asks(house: House, act: Any) -> None:
    async with receiving() as receiver, post_office(house, receiver.place) as post:
        receiver.answer = lambda _got: status(503, "Retry-After: 86400") if len(receiver.got) == 1 else OK
        view, _ = await post.add(receiver.url)
        await post.customer(givenName="Ada")
        await post.settle()
        await post.customer(givenName="Bea")
        post.clock.turn(_HOUR)
        await post.settle()
        assert (await post.webhooks.ledger.claim(post.tenant.id, view.id, post.clock(), 8), len(receiver.got)) == (
            [],
            1,
        )
        async with post.writing() as unit:
            await act(unit, view.id)
        post.clock.turn(timedelta(minutes=1))
        await post.settle()
    assert len(receiver.got) == 3
