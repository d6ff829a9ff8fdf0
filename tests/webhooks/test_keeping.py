"""How long deliveries are kept: 30 days after they ended, while they wait, and no longer than their endpoint."""

import pytest

from domain import tidying
from domain.errors import Refused
from domain.paging import Window
from domain.webhooks import deliveries, endpoints
from domain.webhooks.deliveries import Log
from tenants.webhooks import WebhookDelivery
from tests.house import House
from tests.webhooks.post import PostOffice, post_office
from tests.webhooks.receivers import receiving


async def _age(post: PostOffice, days: int) -> None:
    older = "created_at = created_at - $2 * interval '1 day', ended_at = ended_at - $2 * interval '1 day'"
    await post.superuser.execute(f"UPDATE webhook_deliveries SET {older} WHERE tenant_id = $1", post.tenant.id, days)


async def _forget(house: House, post: PostOffice) -> int:
    async with house.api.units.enter(post.tenant.id, None, write=True) as unit:
        return await tidying.forget_some(unit, WebhookDelivery)


async def test_one_that_ended_is_forgotten_after_thirty_days(house: House) -> None:
    async with receiving() as receiver, post_office(house, receiver.place) as post:
        await post.add(receiver.url)
        await post.customer(givenName="Ada")
        await post.settle()
        await _age(post, 29)
        assert await _forget(house, post) == 0
        await _age(post, 2)
        assert await _forget(house, post) == 1


async def test_one_that_is_to_be_sent_again_is_kept_until_it_was(house: House) -> None:
    async with receiving() as receiver, post_office(house, receiver.place) as post:
        await post.add(receiver.url)
        await post.customer(givenName="Ada")
        await post.settle()
        await _age(post, 31)
        (row,) = await post.rows("SELECT id FROM webhook_deliveries WHERE tenant_id = $1")
        async with post.writing() as unit:
            await deliveries.redeliver(unit, row["id"])
        assert await _forget(house, post) == 0
        post.clock.now = unit.now
        await post.settle()
        assert await _forget(house, post) == 0
    assert len(receiver.got) == 2


async def test_a_deleted_endpoints_log_is_gone_at_once_and_its_rows_page_by_page(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tidying, "BATCH", 2)
    async with receiving() as receiver, post_office(house, receiver.place) as post:
        doomed, _ = await post.add(receiver.url)
        other, _ = await post.add(receiver.url)
        for name in ("Ada", "Bea", "Cleo"):
            await post.customer(givenName=name)
        await post.settle()
        async with post.writing() as unit:
            (known, _) = (await deliveries.page(unit, Log(endpoint=doomed.id), Window(2))).nodes
            await endpoints.remove(unit, doomed.id)
        async with post.writing() as unit:
            assert await deliveries.count(unit, Log()) == await deliveries.count(unit, Log(endpoint=other.id)) == 3
            assert await deliveries.get_many(unit, [known.id]) == [None]
            with pytest.raises(Refused):
                await deliveries.redeliver(unit, known.id)
        assert [await _forget(house, post) for _ in range(3)] == [2, 1, 0]
        left = await post.rows("SELECT endpoint_id FROM webhook_deliveries WHERE tenant_id = $1")
        attempts = await post.rows("SELECT endpoint_id FROM webhook_attempts WHERE tenant_id = $1")
    assert {row["endpoint_id"] for row in [*left, *attempts]} == {other.id}


async def test_what_waits_for_a_deleted_endpoint_is_sent_nowhere(house: House) -> None:
    async with receiving() as receiver, post_office(house, receiver.place) as post:
        view, _ = await post.add(receiver.url)
        await post.customer(givenName="Ada")
        await post.relay()
        async with post.writing() as unit:
            await endpoints.remove(unit, view.id)
        await post.settle()
        assert await _forget(house, post) == 1
    assert receiver.got == []
