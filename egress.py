"""The only way out over HTTP, to public addresses alone, each checked and then pinned. Of ours only `crypto.errors`."""

import asyncio
import logging
import re
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Literal

import certifi
import httpcore
import idna

from crypto.errors import CofferError

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


class Rule(StrEnum):
    """Why an address is refused, as a client reads it."""

    SPELLING = "it must be one URL of at most 2048 printable ASCII characters, without spaces and backslashes"
    SCHEME = "it must begin with https://"
    USERINFO = "it must not name a user or password"
    FRAGMENT = "it must not have a fragment"
    HOST = "its host must be a full domain name, or an IP address in its usual form"
    PORT = "its port must be 443, or 1024 and above"
    ADDRESS = "its host has an address that is not public"
    PEER = "the connection ended at another address than the one checked"


class Reason(StrEnum):
    """Why nobody answered; the words are stable and may be stored."""

    NAME = "name-not-resolved"
    CONNECT = "connect-failed"
    CONNECT_TIME = "connect-timed-out"
    TLS = "tls-failed"
    TOTAL_TIME = "timed-out"
    BROKEN = "answer-broken"


class AddressRefused(CofferError):
    code = "EGRESS_REFUSED"

    def __init__(self, rule: Rule) -> None:
        super().__init__(f"This address is refused: {rule}.")
        self.rule = rule


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
    """The other side got the request and answered with `status`; the rest was not read, and nothing is truncated."""

    code = "EGRESS_ANSWER_TOO_LARGE"
    message = "The answer is larger than we read."

    def __init__(self, status: int) -> None:
        super().__init__()
        self.status = status


@dataclass(frozen=True, slots=True)
class Answer:
    """`headers`: those of `_KEPT`, names in lower case. `body`: as sent, not inflated. `seconds`: with resolving."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    seconds: float


async def resolve_by_system(host: str, port: int) -> Sequence[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(sockaddr[0]) for *_, sockaddr in found]


class Egress:
    """One per process. No redirect, proxy, cookie, netrc, environment variable or kept connection is ever used.

    `allowed`: "host:port" of development, spelt as in the URL in lower case; there http and inside addresses pass.
    `most_bytes`: of an answer's body. `ca_file`: PEM of the authorities to trust instead of certifi's.
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
        self._resolve = resolve
        self._tls = ssl.create_default_context(cafile=ca_file or certifi.where())
        logging.getLogger("httpcore").setLevel(logging.INFO)  # at DEBUG it logs the values of answers' headers

    async def check(self, url: str) -> None:
        """Raises `AddressRefused`, or `NotReached` where the name doesn't resolve. Connects to nothing."""
        place = _parse(url, self._allowed)
        with _translated():
            async with asyncio.timeout(self._total_seconds):
                await self._find_addresses(place)

    async def send(
        self,
        method: Literal["GET", "POST"],
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        total_seconds: float | None = None,
    ) -> Answer:
        """Raises `AddressRefused`, `HeaderRefused`, `NotReached`, `AnswerTooLarge`. A 3xx is an answer as any other."""
        started = time.monotonic()
        place = _parse(url, self._allowed)
        fields = _fields(place, headers)
        with _translated():
            async with asyncio.timeout(self._total_seconds if total_seconds is None else total_seconds):
                async with self._exchange(place, method, fields, body) as response:
                    content = await self._read(response)
        return Answer(response.status, _kept(response.headers), content, time.monotonic() - started)

    async def _find_addresses(self, place: "_Place") -> Sequence[str]:
        """Resolves once. One inside address among public ones refuses them all: a lie must not win by its order."""
        try:
            addresses = [place.name] if place.is_literal else await self._resolve(place.name, place.port)
        except OSError as cause:
            raise NotReached(Reason.NAME) from cause
        if not addresses:
            raise NotReached(Reason.NAME)
        if not place.is_allowed and not all(is_public(address) for address in addresses):
            raise AddressRefused(Rule.ADDRESS)
        return addresses

    @asynccontextmanager
    async def _exchange(
        self, place: "_Place", method: str, fields: list[tuple[str, str]], body: bytes | None
    ) -> AsyncIterator[httpcore.Response]:
        """A connection of its own for each request, so that none is reused for another pinned address."""
        pinned = _Pinned(await self._find_addresses(place))
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
                raise AnswerTooLarge(response.status)
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


@dataclass(frozen=True, slots=True)
class _Place:
    """Where to; `host` in lower-case ASCII, IPv6 in brackets; `is_allowed` by the list of development."""

    scheme: str
    host: str
    port: int
    target: str
    is_allowed: bool

    @property
    def name(self) -> str:
        """What is resolved, and what TLS names (SNI) and verifies."""
        return self.host.strip("[]")

    @property
    def is_literal(self) -> bool:
        return self.host.startswith("[") or _ENDS_IN_NUMBER.fullmatch(self.host) is not None


# The standard library's parser drops tabs and newlines, so we read the URL ourselves (RFC 3986, section 3).
_URL = re.compile(
    r"(?P<scheme>[A-Za-z]+)://(?P<authority>[^\s\x00-\x20\x7f\\/?#]+)"
    r"(?P<target>(?:[/?][\x21\x22\x24-\x5b\x5d-\x7e]*)?)(?P<fragment>(?:#.*)?)"
)
_AUTHORITY = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\[\]:%]+)(?::(?P<port>[0-9]{1,5}))?")
_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
# What other parsers take for IPv4: 2130706433, 0x7f.1 (https://url.spec.whatwg.org/#ends-in-a-number-checker).
_ENDS_IN_NUMBER = re.compile(r"(.*\.)?([0-9]+|0x[0-9a-f]*)")
# Never on the public DNS: RFC 6761, 6762, 7686, 8375 (home.arpa); ICANN keeps "internal" for private use.
_INSIDE_NAMES = frozenset({"localhost", "local", "onion", "arpa", "internal"})


def _parse(url: str, allowed: frozenset[str]) -> _Place:
    found = _URL.fullmatch(url)
    if found is None or len(url) > 2048:
        raise AddressRefused(Rule.SPELLING)
    if found["fragment"]:
        raise AddressRefused(Rule.FRAGMENT)
    if "@" in found["authority"]:
        raise AddressRefused(Rule.USERINFO)
    scheme, target = found["scheme"].lower(), found["target"]
    host, port = _authority(found["authority"], 80 if scheme == "http" else 443)
    is_allowed = f"{host}:{port}" in allowed
    if scheme != "https" and not (scheme == "http" and is_allowed):
        raise AddressRefused(Rule.SCHEME)
    if not is_allowed:
        _refuse_inside(host, port)
    return _Place(scheme, host, port, target if target.startswith("/") else f"/{target}", is_allowed)


def _authority(text: str, default_port: int) -> tuple[str, int]:
    found = _AUTHORITY.fullmatch(text)
    try:
        if found is not None:
            return _host(found["host"]), int(found["port"] or default_port)
    except ValueError:
        pass
    raise AddressRefused(Rule.HOST)


def _host(text: str) -> str:
    """Raises `ValueError`. Full-width digits and dots become ASCII by UTS 46 first, and are then judged as ASCII."""
    if text.startswith("["):
        return f"[{IPv6Address(text[1:-1])}]"
    name = text.lower() if text.isascii() else idna.encode(text, uts46=True).decode("ascii")
    if _ENDS_IN_NUMBER.fullmatch(name):
        return str(IPv4Address(name))
    if not _NAME.fullmatch(name):
        raise ValueError("not a domain name")
    return name


def _refuse_inside(host: str, port: int) -> None:
    """Below 1024, 443 apart, live services that aren't ours to knock at: SSH, SMTP and their like."""
    is_single = "." not in host and not host.startswith("[")  # search domains would complete it
    if is_single or host.rpartition(".")[2] in _INSIDE_NAMES:
        raise AddressRefused(Rule.HOST)
    if port != 443 and not 1024 <= port <= 65535:
        raise AddressRefused(Rule.PORT)


# IPv6 is public inside 2000::/3 alone, the one block https://www.iana.org/assignments/ipv6-address-space calls global
# unicast. Outside lie ::, ::1, IPv4-compatible, ::ffff:0:0/96, 64:ff9b::/96, 64:ff9b:1::/48, 100::/64, 5f00::/16,
# fc00::/7 (with fd00:ec2::254), fe80::/10, fec0::/10 and ff00::/8.
_GLOBAL_UNICAST = IPv6Network("2000::/3")
# RFC 6890, kept up at https://www.iana.org/assignments/iana-ipv4-special-registry and iana-ipv6-special-registry; we
# also refuse the blocks they call reachable (AS112, AMT: anycast to the nearest node) and those that embed IPv4.
_BLOCKS = """
    0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24
    192.31.196.0/24 192.52.193.0/24 192.88.99.0/24 192.168.0.0/16 192.175.48.0/24 198.18.0.0/15 198.51.100.0/24
    203.0.113.0/24 224.0.0.0/4 240.0.0.0/4 2001::/23 2001:db8::/32 2002::/16 2620:4f:8000::/48 3fff::/20
"""  # 2001::/23 holds Teredo, benchmarking, AMT, ORCHID; 2002::/16 is 6to4
# Azure's host answers at a public address: learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16
_NOT_PUBLIC = tuple(ip_network(block) for block in (*_BLOCKS.split(), "168.63.129.16/32"))


def is_public(address: str) -> bool:
    """`is_global` is a second lock: alone it is weak, as it differs between Pythons (CVE-2024-4032)."""
    ip = ip_address(address)
    is_unicast = ip.version == 4 or ip in _GLOBAL_UNICAST
    return is_unicast and not any(ip in block for block in _NOT_PUBLIC) and ip.is_global


_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.1
_FIELD_VALUE = re.compile(r"([\x21-\x7e]([\t\x20-\x7e]*[\x21-\x7e])?)?")  # section 5.5, ASCII alone
_OURS = frozenset(("host", "connection", "content-length", "transfer-encoding", "accept-encoding", "upgrade", "expect"))
_KEPT = frozenset(("cache-control", "content-encoding", "content-type", "etag", "location", "retry-after"))


def _fields(place: _Place, headers: Mapping[str, str]) -> list[tuple[str, str]]:
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
