"""The only way out over HTTP: to public addresses alone, each checked, then pinned. Imports its own and errors."""

import asyncio
import logging
import re
import ssl
import time
from collections.abc import AsyncIterator, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import ip_address
from typing import Literal

import certifi
import httpcore

from crypto.errors import CofferError
from egress.addresses import AddressRefused, Place, Rule, is_public, parse
from egress.names import Lookups, Resolve, resolve_by_system


class Reason(StrEnum):
    """Why nobody answered; the words are stable and may be stored."""

    NAME = "name-not-resolved"
    CONNECT = "connect-failed"
    CONNECT_TIME = "connect-timed-out"
    TLS = "tls-failed"
    TOTAL_TIME = "timed-out"
    BROKEN = "answer-broken"


class HeaderRefused(CofferError):
    code = "EGRESS_HEADER_REFUSED"
    message = "A header can't be sent: it is ours to set, or has characters that headers can't carry."


class NotReached(CofferError):
    code = "EGRESS_NOT_REACHED"
    retryable = True

    def __init__(self, reason: Reason) -> None:
        super().__init__(f"The other side was not reached: {reason}.")
        self.reason = reason


class AnswerTooLarge(CofferError):
    """The other side got the request and answered with `status`; the rest was not read, and nothing is truncated.

    `headers`: as an `Answer` has them.
    """

    code = "EGRESS_ANSWER_TOO_LARGE"
    message = "The answer is larger than we read."

    def __init__(self, status: int, headers: Mapping[str, str]) -> None:
        super().__init__()
        self.status, self.headers = status, headers


@dataclass(frozen=True, slots=True)
class Answer:
    """`headers`: those of `_KEPT`, names in lower case. `body`: as sent, not inflated. `seconds`: with resolving."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    seconds: float


class Egress:
    """One per process. No redirect, proxy, cookie, netrc, environment variable or kept connection is ever used.

    `allowed`: "host:port" of development, spelt as in the URL in lower case; there http and inside addresses pass.
    `most_bytes`: of an answer's body. `ca_file`: PEM of the authorities to trust instead of certifi's. An `asker` is
    whoever has something sent; names that are silent hold up its own, as `Lookups` says. Without one a name is its own.
    """

    def __init__(
        self,
        *,
        allowed: frozenset[str] = frozenset(),
        connect_seconds: float = 3,
        total_seconds: float = 10,
        most_bytes: int = 1 << 20,
        resolve: Resolve = resolve_by_system,
        ca_file: str | None = None,
    ) -> None:
        self._allowed = allowed
        self._connect_seconds = connect_seconds
        self._total_seconds = total_seconds
        self._most_bytes = most_bytes
        self._names = Lookups(resolve)
        self._tls = ssl.create_default_context(cafile=ca_file or certifi.where())
        logging.getLogger("httpcore").setLevel(logging.INFO)  # at DEBUG it logs the values of answers' headers

    async def check(self, url: str, asker: Hashable = None) -> None:
        """Raises `AddressRefused`, or `NotReached` where the name doesn't resolve. Connects to nothing."""
        place = parse(url, self._allowed)
        with _translated():
            async with asyncio.timeout(self._total_seconds):
                await self._find_addresses(place, asker)

    async def send(
        self,
        method: Literal["GET", "POST"],
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        total_seconds: float | None = None,
        asker: Hashable = None,
    ) -> Answer:
        """Raises `AddressRefused`, `HeaderRefused`, `NotReached`, `AnswerTooLarge`. A 3xx is an answer as any other."""
        started = time.monotonic()
        place = parse(url, self._allowed)
        fields = _fields(place, headers)
        with _translated():
            async with asyncio.timeout(self._total_seconds if total_seconds is None else total_seconds):
                async with self._exchange(place, asker, method, fields, body) as response:
                    content = await self._read(response)
        return Answer(response.status, _kept(response.headers), content, time.monotonic() - started)

    async def _find_addresses(self, place: "Place", asker: Hashable) -> Sequence[str]:
        """Resolves once. One inside address among public ones refuses them all: a lie must not win by its order."""
        try:
            addresses = [place.name] if place.is_literal else await self._look_up(place, asker)
        except OSError as cause:
            raise NotReached(Reason.NAME) from cause
        if not addresses:
            raise NotReached(Reason.NAME)
        if not place.is_allowed and not all(is_public(address) for address in addresses):
            raise AddressRefused(Rule.ADDRESS)
        return addresses

    async def _look_up(self, place: "Place", asker: Hashable) -> Sequence[str]:
        return await self._names.find(place.name if asker is None else asker, place.name, place.port)

    @asynccontextmanager
    async def _exchange(
        self, place: "Place", asker: Hashable, method: str, fields: list[tuple[str, str]], body: bytes | None
    ) -> AsyncIterator[httpcore.Response]:
        """A connection of its own for each request, so that none is reused for another pinned address."""
        pinned = _Pinned(await self._find_addresses(place, asker))
        url = httpcore.URL(scheme=place.scheme, host=place.name, port=place.port, target=place.target)
        connection = httpcore.AsyncHTTPConnection(url.origin, self._tls, network_backend=pinned)
        limits = {"timeout": {"connect": self._connect_seconds}}
        try:
            async with connection.stream(method, url, headers=fields, content=body, extensions=limits) as response:
                yield response
        finally:
            await pinned.aclose()

    async def _read(self, response: httpcore.Response) -> bytes:
        content = bytearray()
        async for part in response.aiter_stream():
            content += part
            if len(content) > self._most_bytes:
                raise AnswerTooLarge(response.status, _kept(response.headers))
        return bytes(content)


class _Pinned(httpcore.AsyncNetworkBackend):
    """Connects to the checked addresses alone, whatever host is asked for; the host remains the name for TLS."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = addresses[:3]  # a name with a hundred addresses must not make us knock at each
        self._stream: httpcore.AsyncNetworkStream | None = None

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        reason = Reason.CONNECT
        for address in self._addresses:
            try:
                self._stream = await httpcore.AnyIOBackend().connect_tcp(address, port, timeout)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as cause:
                reason = Reason.CONNECT if isinstance(cause, httpcore.ConnectError) else Reason.CONNECT_TIME
                continue
            if ip_address(self._stream.get_extra_info("server_addr")[0]) != ip_address(address):
                raise AddressRefused(Rule.PEER)
            return self._stream
        raise NotReached(reason)

    async def aclose(self) -> None:
        """httpcore leaves the socket open where a handshake is cancelled."""
        if self._stream is not None:
            await self._stream.aclose()


@contextmanager
def _translated() -> Iterator[None]:
    """`ConnectError` means TLS here: `_Pinned` has spoken for TCP. A bare SSLError is a late alert (TLS 1.3)."""
    try:
        yield
    except httpcore.ConnectTimeout as cause:
        raise NotReached(Reason.CONNECT_TIME) from cause
    except TimeoutError as cause:
        raise NotReached(Reason.TOTAL_TIME) from cause
    except (httpcore.ConnectError, ssl.SSLError) as cause:
        raise NotReached(Reason.TLS) from cause
    except (httpcore.NetworkError, httpcore.ProtocolError) as cause:
        raise NotReached(Reason.BROKEN) from cause


_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.1
_FIELD_VALUE = re.compile(r"([\x21-\x7e]([\t\x20-\x7e]*[\x21-\x7e])?)?")  # section 5.5, ASCII alone
_OURS = frozenset(("host", "connection", "content-length", "transfer-encoding", "accept-encoding", "upgrade", "expect"))
_KEPT = frozenset(("cache-control", "content-encoding", "content-type", "etag", "location", "retry-after"))


def _fields(place: Place, headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """Line breaks would smuggle a second request; `Host` would let an address pass for another name."""
    for name, value in headers.items():
        if not _FIELD_NAME.fullmatch(name) or not _FIELD_VALUE.fullmatch(value) or name.lower() in _OURS:
            raise HeaderRefused
    is_default = place.port == (443 if place.scheme == "https" else 80)
    host = place.host if is_default else f"{place.host}:{place.port}"
    return [("Host", host), ("Connection", "close"), ("Accept-Encoding", "identity"), *headers.items()]


def _kept(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    named = {name.decode("ascii").lower(): value.decode("latin-1") for name, value in headers}
    return {name: named[name] for name in _KEPT & named.keys()}
