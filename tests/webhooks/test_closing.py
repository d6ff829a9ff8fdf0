"""When a process ends: what is on its way has time to end, the rest is free for others as soon as it may be."""

import asyncio
from datetime import timedelta

from tests.house import House
from tests.jobs.desk import until
from tests.webhooks.post import PostOffice, post_office
from tests.webhooks.receivers import OK, Receiver, receiving


async def test_an_answer_that_comes_while_the_process_ends_is_recorded(house: House) -> None:
    async with receiving() as receiver, post_office(house, receiver.place, seconds=10) as post:
        ended = asyncio.Event()

        async def late(writer: asyncio.StreamWriter) -> None:
            await ended.wait()
            writer.write(OK)

        receiver.answer = lambda _got: late
        await post.add(receiver.url)
        ada = await post.customer(givenName="Ada")
        await post.change(ada, given_name="Ann")
        sending = asyncio.create_task(post.settle())
        await until(lambda: _is_asked(receiver))
        closing = asyncio.create_task(post.webhooks.sender.close(grace=60))
        await asyncio.sleep(0)
        ended.set()
        await closing
        await sending
        rows = await post.rows(
            "SELECT state, attempt, lease_until FROM webhook_deliveries WHERE tenant_id = $1 ORDER BY place"
        )
    assert [tuple(row) for row in rows] == [("DELIVERED", 1, None), ("PENDING", 0, None)]


async def test_a_request_that_is_cut_off_comes_again_when_its_lease_has_run_out(house: House) -> None:
    async with receiving() as receiver, post_office(house, receiver.place, seconds=10) as post:

        async def hang(_writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(60)

        receiver.answer = lambda _got: hang
        await post.add(receiver.url)
        await post.customer(givenName="Ada")
        sending = asyncio.create_task(post.settle())
        await until(lambda: _is_asked(receiver))
        await post.webhooks.sender.close(grace=0.01)
        await sending
        receiver.answer = lambda _got: OK
        await post.settle()
        assert len(receiver.got) == 1
        post.clock.turn(timedelta(seconds=61))
        await post.settle()
    assert len(receiver.got) == 2 and len(set(receiver.ids)) == 1


async def test_what_was_never_sent_is_free_at_once_and_counts_as_no_loss(house: House) -> None:
    async with receiving() as receiver, post_office(house, receiver.place) as post:
        await post.add(receiver.url)
        await post.customer(givenName="Ada")
        async with post.superuser.transaction():
            await post.superuser.execute("LOCK TABLE webhook_secrets IN ACCESS EXCLUSIVE MODE")
            sending = asyncio.create_task(post.settle())
            await until(lambda: _is_claimed(post))
            await post.webhooks.sender.close(grace=0)
            await sending
        (row,) = await post.rows("SELECT state, claims, lease_until FROM webhook_deliveries WHERE tenant_id = $1")
        assert (tuple(row), receiver.got) == (("PENDING", 0, None), [])
        await post.settle()
    assert len(receiver.got) == 1


async def _is_asked(receiver: Receiver) -> bool:
    return len(receiver.got) == 1


async def _is_claimed(post: PostOffice) -> bool:
    return bool(await post.rows("SELECT FROM webhook_deliveries WHERE tenant_id = $1 AND lease_until IS NOT NULL"))
