"""The load: a few keep-alive connections, each asking again as soon as it is answered; every answer is checked.

Requests are whole HTTP/1.1 messages made beforehand, for a client on the other core must not be what is measured.
"""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast


class WrongAnswer(Exception):
    """An answer that is not 200 or does not hold what it should; a bench of errors would be fast."""


@dataclass(frozen=True, slots=True)
class Expected:
    """`marker` occurs `times` in the body of a right answer, which has no top-level errors."""

    marker: bytes
    times: int


@dataclass(frozen=True, slots=True)
class Measured:
    """`latencies` in seconds, sorted."""

    seconds: float
    latencies: list[float]

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.seconds

    def percentile(self, percent: int) -> float:
        """In milliseconds."""
        return self.latencies[min(len(self.latencies) * percent // 100, len(self.latencies) - 1)] * 1000


async def drive(
    port: int, requests: Iterator[bytes], expected: Expected, *, seconds: float, concurrency: int
) -> Measured:
    """Ask for that long. Raises `WrongAnswer`."""
    loop, latencies = asyncio.get_running_loop(), list[float]()
    started = time.perf_counter()
    asking = [_Client(requests, expected, latencies, started + seconds) for _ in range(concurrency)]
    for client in asking:
        await loop.create_connection(lambda client=client: client, "127.0.0.1", port)  # type: ignore[misc]  # bound early
    await asyncio.gather(*(client.done for client in asking))
    return Measured(time.perf_counter() - started, sorted(latencies))


async def ask(port: int, message: bytes) -> bytes:
    """The body of one answer, on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(message)
        head = await reader.readuntil(b"\r\n\r\n")
        return await reader.readexactly(_length(head))
    finally:
        writer.close()


def message(path: str, body: bytes, token: str) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {token}\r\naccept: application/json\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class _Client(asyncio.Protocol):
    def __init__(self, requests: Iterator[bytes], expected: Expected, latencies: list[float], end: float) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._requests = requests
        self._expected = expected
        self._latencies = latencies
        self._end = end
        self._received = b""
        self._needed = 0
        self._asked = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are none of asyncio's classes
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._needed:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return
            self._needed = end + 4 + _length(self._received[: end + 4])
        if len(self._received) >= self._needed:
            self._answered()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(WrongAnswer(f"the server hung up: {exc}"))

    def _ask(self) -> None:
        self._received, self._needed = b"", 0
        self._asked = time.perf_counter()
        self._transport.write(next(self._requests))

    def _answered(self) -> None:
        now = time.perf_counter()
        self._latencies.append(now - self._asked)
        head, _, body = self._received.partition(b"\r\n\r\n")
        is_right = head.startswith(b"HTTP/1.1 200") and not body.startswith(b'{"errors"')
        if not is_right or body.count(self._expected.marker) != self._expected.times:
            self.done.set_exception(WrongAnswer(f"{head.splitlines()[0].decode()} {body[:500]!r}"))
        elif now < self._end:
            self._ask()
            return
        else:
            self.done.set_result(None)
        self._transport.close()


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line[15:])
    raise WrongAnswer(f"an answer without a length: {head!r}")
