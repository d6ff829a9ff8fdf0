"""Twenty kinds of receivers on a clock that is turned: each gets its event by the exact schedule, and none is lost."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from jobs.webhooks.schedules import LONGEST_WISH, RETRIES, next_try, wish_of
from tests.house import House
from tests.webhooks.post import post_office
from tests.webhooks.receivers import OK, Answer, Got, Receiver, receiving, status

_NOW = datetime(2026, 1, 1, tzinfo=UTC)


async def _hang(_writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def _drip(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
    for _ in range(100):
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.5)


async def _hang_up(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


def _raw(said: bytes) -> Callable[[Got], bytes]:
    return lambda _got: said


def _failing(times: int, said: bytes | Answer) -> "Callable[[Receiver], Callable[[Got], bytes | Answer]]":
    """The first so many requests get this, then all is well."""
    return lambda receiver: lambda _got: said if len(receiver.got) <= times else OK


@dataclass(frozen=True)
class Kind:
    """A receiver: what it answers, what its delivery ends as, after how many requests."""

    answers: Callable[[Receiver], Callable[[Got], bytes | Answer]]
    state: str = "DELIVERED"
    attempts: int = 1
    reason: str | None = None


_ALL = len(RETRIES) + 1
KINDS = {
    "200": Kind(lambda _r: _raw(status(200))),
    "201": Kind(lambda _r: _raw(status(201))),
    "204": Kind(lambda _r: _raw(b"HTTP/1.1 204 No Content\r\n\r\n")),
    "299": Kind(lambda _r: _raw(status(299))),
    "500 once": Kind(_failing(1, status(500)), attempts=2),
    "500 twice": Kind(_failing(2, status(500)), attempts=3),
    "502 nine times": Kind(_failing(9, status(502)), attempts=10),
    "500 for ever": Kind(lambda _r: _raw(status(500)), "SKIPPED", _ALL, "ATTEMPTS_SPENT"),
    "400 for ever": Kind(lambda _r: _raw(status(400)), "SKIPPED", _ALL, "ATTEMPTS_SPENT"),
    "404 for ever": Kind(lambda _r: _raw(status(404)), "SKIPPED", _ALL, "ATTEMPTS_SPENT"),
    "301": Kind(
        lambda r: _raw(status(301, f"Location: http://{r.place}/elsewhere")), "SKIPPED", _ALL, "ATTEMPTS_SPENT"
    ),
    "302 once": Kind(_failing(1, status(302, "Location: http://127.0.0.1:1/")), attempts=2),
    "307 once": Kind(_failing(1, status(307, "Location: https://example.org/")), attempts=2),
    "410": Kind(lambda _r: _raw(status(410)), "PENDING", 1),
    "hangs once": Kind(_failing(1, _hang), attempts=2),
    "a byte now and then, once": Kind(_failing(1, _drip), attempts=2),
    "hangs up once": Kind(_failing(1, _hang_up), attempts=2),
    "speaks no HTTP, once": Kind(_failing(1, b"SSH-2.0-OpenSSH\r\n"), attempts=2),
    "too large an answer": Kind(lambda _r: _raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n" + bytes(99_999))),
    "100 and then 200": Kind(lambda _r: _raw(b"HTTP/1.1 100 Continue\r\n\r\n" + OK)),
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
async def test_each_kind_of_receiver_gets_its_event_by_the_schedule(house: House, kind: Kind) -> None:
    async with receiving() as receiver, post_office(house, receiver.place, seconds=0.3) as post:
        receiver.answer = kind.answers(receiver)
        await post.add(receiver.url)
        began = post.clock.now
        await post.customer(givenName="Ada")
        moments = await post.run_out()
        (row,) = await post.rows("SELECT * FROM webhook_deliveries WHERE tenant_id = $1")
        attempts = await post.rows("SELECT * FROM webhook_attempts WHERE tenant_id = $1 ORDER BY number")
    assert (row["state"], row["reason"], row["attempt"]) == (kind.state, kind.reason, kind.attempts)
    assert len(receiver.got) == len(attempts) == kind.attempts
    assert [at - began for at in moments] == [sum(RETRIES[: n + 1], timedelta()) for n in range(kind.attempts - 1)]
    assert set(receiver.ids) == {f"msg_{row['id'].hex}"}
    assert {got.path for got in receiver.got} == {"/hook"}
    stamps = [int(got.headers["webhook-timestamp"]) for got in receiver.got]
    assert stamps == [int((began + (at - began)).timestamp()) for at in [began, *moments]]


def test_twenty_kinds_are_tried() -> None:
    assert len(KINDS) == 20


@pytest.mark.parametrize(("wish", "pause"), [(2, 5), (60, 60), (3 * 86_400, 86_400)], ids=["soon", "later", "too late"])
async def test_a_receiver_that_says_when_is_obeyed_within_bounds(house: House, wish: int, pause: int) -> None:
    async with receiving() as receiver, post_office(house, receiver.place) as post:
        receiver.answer = _failing(1, status(429, f"Retry-After: {wish}"))(receiver)
        await post.add(receiver.url)
        began = post.clock.now
        await post.customer(givenName="Ada")
        assert await post.run_out() == [began + timedelta(seconds=pause)]
    assert len(receiver.got) == 2


async def test_one_that_says_when_in_too_large_an_answer_is_obeyed(house: House) -> None:
    async with receiving() as receiver, post_office(house, receiver.place) as post:
        head = b"HTTP/1.1 503 Busy\r\nRetry-After: 600\r\nContent-Length: 99999\r\n\r\n"
        receiver.answer = _failing(1, head + bytes(99_999))(receiver)
        await post.add(receiver.url)
        began = post.clock.now
        await post.customer(givenName="Ada")
        assert await post.run_out() == [began + timedelta(seconds=600)]
    assert len(receiver.got) == 2


async def test_one_that_asked_for_peace_is_not_sent_other_events_meanwhile(house: House) -> None:
    async with receiving() as receiver, post_office(house, receiver.place) as post:
        receiver.answer = _failing(1, status(503, "Retry-After: 600"))(receiver)
        await post.add(receiver.url)
        await post.customer(givenName="Ada")
        await post.settle()
        await post.customer(givenName="Bea")
        post.clock.turn(timedelta(seconds=599))
        await post.settle()
        assert len(receiver.got) == 1
        post.clock.turn(timedelta(seconds=1))
        await post.settle()
    assert len(receiver.got) == 3


def test_jitter_only_adds_and_at_most_a_tenth() -> None:
    for number, pause in enumerate(RETRIES, 1):
        assert next_try(number, _NOW, lambda: 0.0) == _NOW + pause
        assert next_try(number, _NOW, lambda: 1.0) == _NOW + pause * 1.1
    assert next_try(len(RETRIES) + 1, _NOW, lambda: 0.0) is None


@pytest.mark.parametrize(
    ("status_", "header", "wish"),
    [
        (429, "120", timedelta(seconds=120)),
        (503, " 0 ", timedelta()),
        (503, format_datetime(_NOW + timedelta(minutes=3), usegmt=True), timedelta(minutes=3)),
        (503, format_datetime(_NOW - timedelta(minutes=3), usegmt=True), timedelta()),
        (429, "99999999999999", LONGEST_WISH),
        (429, "soon", None),
        (429, "-5", None),
        (429, "１２", None),
        (429, None, None),
        (500, "120", None),
    ],
)
def test_a_wish_is_read_of_429_and_503_alone(status_: int, header: str | None, wish: timedelta | None) -> None:
    assert wish_of(status_, header, _NOW) == wish
