"""What leaves the house: real sockets on loopback, a real TLS authority, and an audit hook that sees every connect."""

import ast
import asyncio
import contextlib
import datetime as dt
import gzip
import ipaddress
import logging
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import httpcore
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

import egress
from crypto.errors import CofferError
from egress import AnswerTooLarge, Egress, HeaderRefused, NotReached, Reason, addresses, names
from egress.addresses import AddressRefused, Rule, is_public
from egress.names import Resolve

NAME = "hooks.example.com"
PUBLIC = "93.184.215.14"
PUBLIC_6 = "2606:2800:21f:cb07:6820:80da:af6b:8b2c"
OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 4\r\nX-Other: 1\r\n\r\nfine"

Handler = Callable[[asyncio.StreamWriter], Awaitable[None]]


# Every connect of the process is seen here; beyond loopback it is refused, so that no test can leave the machine.


@dataclass
class Connects:
    is_watching: bool = False
    seen: list[tuple[str, int]] = field(default_factory=list)


CONNECTS = Connects()


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if event == "socket.connect" and CONNECTS.is_watching and isinstance(args[1], tuple):
        CONNECTS.seen.append(args[1][:2])
        if not ipaddress.ip_address(args[1][0]).is_loopback:
            raise ConnectionRefusedError


sys.addaudithook(_watch)


@pytest.fixture(autouse=True)
def connects() -> Iterator[list[tuple[str, int]]]:
    CONNECTS.seen.clear()
    CONNECTS.is_watching = True
    yield CONNECTS.seen
    CONNECTS.is_watching = False


# Receivers


@dataclass
class Receiver:
    port: int = 0
    accepted: int = 0
    sent: int = 0
    requests: list[bytes] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


@contextlib.asynccontextmanager
async def receiving(
    answer: bytes | Handler = OK, tls: ssl.SSLContext | None = None, hosts: Sequence[str] = ("127.0.0.1",)
) -> AsyncIterator[Receiver]:
    receiver, tasks = Receiver(), set[asyncio.Task[None]]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())  # type: ignore[arg-type]  # inside a task
        receiver.accepted += 1
        try:
            receiver.requests.append(await _request(reader))
            if isinstance(answer, bytes):
                writer.write(answer)
                await writer.drain()
            else:
                await answer(writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort() if not isinstance(answer, bytes) else writer.close()

    if tls is not None:
        tls.sni_callback = lambda _socket, name, _context: receiver.names.append(name)
    servers = [await asyncio.start_server(serve, hosts[0], 0, ssl=tls)]
    receiver.port = servers[0].sockets[0].getsockname()[1]
    servers += [await asyncio.start_server(serve, host, receiver.port) for host in hosts[1:]]
    yield receiver
    for server in servers:
        server.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return head + await reader.readexactly(int(length[0]) if length else 0)


def resolving(*answers: str) -> Resolve:
    """Every name resolves to these addresses."""

    async def resolve(host: str, port: int) -> Sequence[str]:
        return answers

    return resolve


def plain(receiver: Receiver, **settings: Any) -> Egress:
    """Lets plain http through to this receiver."""
    return Egress(allowed=frozenset({receiver.address}), **settings)


async def get(house: Egress, receiver: Receiver, path: str = "/") -> egress.Answer:
    return await house.send("GET", f"http://{receiver.address}{path}", headers={})


# A throw-away authority


@dataclass(frozen=True)
class Authority:
    folder: Path
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def ca_file(self) -> str:
        return str(self.folder / "ca.pem")

    def server(self, name: str = NAME, days: int = 1, is_self_signed: bool = False) -> ssl.SSLContext:
        key = ec.generate_private_key(ec.SECP256R1())
        issuer, signer = (None, key) if is_self_signed else (self.certificate.subject, self.key)
        path = self.folder / f"{name}{days}{is_self_signed}.pem"
        path.write_bytes(_pem(_certificate(name, key, issuer, signer, days=days)) + _key_pem(key))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name | None,
    signer: ec.EllipticCurvePrivateKey,
    *,
    days: int = 1,
    is_ca: bool = False,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    end = dt.datetime.now(dt.UTC) + dt.timedelta(days=days)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer or subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(end - dt.timedelta(days=3))
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    )
    return builder.sign(signer, hashes.SHA256())


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    folder, key = tmp_path_factory.mktemp("authority"), ec.generate_private_key(ec.SECP256R1())
    made = Authority(folder, key, _certificate("authority", key, None, key, is_ca=True))
    Path(made.ca_file).write_bytes(_pem(made.certificate))
    return made


def secure(receiver: Receiver, ca_file: str | None, **settings: Any) -> Egress:
    """Lets NAME through to this receiver of loopback."""
    allowed = frozenset({f"{NAME}:{receiver.port}"})
    return Egress(allowed=allowed, resolve=resolving("127.0.0.1"), ca_file=ca_file, **settings)


# What goes through


async def test_a_request_reaches_the_name_it_was_sent_to(authority: Authority) -> None:
    async with receiving(tls=authority.server()) as receiver:
        url = f"https://{NAME}:{receiver.port}/hook?x=1"
        answer = await secure(receiver, authority.ca_file).send("POST", url, headers={"X-A": "b c"}, body=b"{}")
    head, _, body = receiver.requests[0].partition(b"\r\n\r\n")
    assert (answer.status, answer.body, answer.headers) == (200, b"fine", {"content-type": "text/plain"})
    assert 0 < answer.seconds < 5
    assert receiver.names == [NAME]
    assert head.split(b"\r\n") == [
        b"POST /hook?x=1 HTTP/1.1",
        b"Host: " + f"{NAME}:{receiver.port}".encode(),
        b"Connection: close",
        b"Accept-Encoding: identity",
        b"X-A: b c",
        b"Content-Length: 2",
    ]
    assert body == b"{}"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
async def test_an_allowed_host_and_port_passes_over_http(host: str) -> None:
    async with receiving(hosts=("127.0.0.1", "::1")) as receiver:
        house = Egress(allowed=frozenset({f"{host}:{receiver.port}"}))
        await house.check(f"http://{host}:{receiver.port}")
        answer = await house.send("GET", f"http://{host}:{receiver.port}", headers={})
    assert answer.status == 200
    assert receiver.requests[0].startswith(b"GET / HTTP/1.1\r\nHost: " + f"{host}:{receiver.port}".encode())


async def test_an_allowed_host_opens_no_other_port_and_no_other_spelling() -> None:
    async with receiving() as receiver, receiving() as other:
        house = plain(receiver)
        for url in (f"http://{other.address}/", f"http://localhost:{receiver.port}/", f"http://127.1:{receiver.port}/"):
            with pytest.raises(AddressRefused):
                await house.send("GET", url, headers={})
    assert receiver.accepted == other.accepted == 0


@pytest.mark.parametrize("address", [PUBLIC, PUBLIC_6])
async def test_a_public_address_is_connected_to_and_no_other(address: str, connects: list[tuple[str, int]]) -> None:
    with pytest.raises(NotReached) as failed:
        await Egress(resolve=resolving(address)).send("GET", "https://Hooks.Example.com", headers={})
    assert failed.value.reason is Reason.CONNECT
    assert connects == [(address, 443)]


async def test_a_public_address_may_be_written_out(connects: list[tuple[str, int]]) -> None:
    for host in (PUBLIC, f"[{PUBLIC_6.upper()}]"):
        await Egress().check(f"https://{host}/")
        with pytest.raises(NotReached):
            await Egress().send("GET", f"https://{host}:8443/", headers={})
    assert connects == [(PUBLIC, 8443), (PUBLIC_6, 8443)]


async def test_a_second_address_is_tried_and_a_fourth_is_not(connects: list[tuple[str, int]]) -> None:
    addresses = [f"93.184.215.{last}" for last in range(10, 20)]
    with pytest.raises(NotReached):
        await Egress(resolve=resolving(*addresses)).send("GET", f"https://{NAME}/", headers={})
    assert [host for host, _ in connects] == addresses[:3]


# What does not


INSIDE = (
    *("127.0.0.1", "127.0.0.2", "127.255.255.254", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255"),  # noqa: S104
    *("192.168.1.1", "169.254.169.254", "100.64.0.1", "100.100.100.200", "192.0.0.192", "192.0.2.1", "192.88.99.1"),
    *("198.18.0.1", "198.51.100.1", "203.0.113.9", "224.0.0.1", "240.0.0.1", "255.255.255.255", "168.63.129.16"),
    *("192.31.196.1", "192.52.193.1", "192.175.48.1"),
)
INSIDE_6 = (
    *("::1", "0:0:0:0:0:0:0:1", "::", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:7f00:1", "::FFFF:0:7f00:1"),
    *("::ffff:93.184.215.14", "64:ff9b::7f00:1", "64:ff9b:1::7f00:1", "2002:7f00:1::", "2001:0:7f00:1::1"),
    *("fe80::1", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:10::1", "2001:20::1", "2001:2::1"),
    *("2001:db8::1", "3fff::1", "100::1", "5f00::1", "2620:4f:8000::1", "4000::1"),
)
HOSTS = {
    Rule.ADDRESS: [
        *INSIDE,
        *(f"[{address}]" for address in INSIDE_6),
        *("１２７.0.0.1", "127。0。0。1", "①②⑦.⓪.⓪.①", "𝟏𝟐𝟕.𝟎.𝟎.𝟏"),
        *(
            "inside.example.com",
            "INSIDE.example.com",
            "127.0.0.1.nip.example",
            "ｉｎｓｉｄｅ.example.com",
            "bücher.example",
        ),
    ],
    Rule.HOST: [
        *("127.1", "127.0.1", "2130706433", "017700000001", "0x7f000001", "0x7F.0.0.1", "0x7f.1", "0177.0.0.1"),
        *("127.0.0.01", "127.0.0.0x1", "127.0.0.1.", "127.0.0.1..", "0", "0x", "1.2.3.4.5", "256.0.0.1", "１２７.１"),
        *("localhost", "LocalHost", "localhost.", "a.localhost", "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ", "local\u00adhost", "vault", "vault."),
        *("printer.local", "db.internal", "metadata.google.internal", "1.0.0.127.in-addr.arpa", "home.arpa", "x.onion"),
        *(
            "127%2e0.0.1",
            "%6cocalhost",
            "[::1%eth0]",
            "[fe80::1%25eth0]",
            "[::1",
            "::1",
            "[127.0.0.1]",
            "[::1].example",
        ),
        *(
            "[v1.a]",
            "-a.example.com",
            "a_b.example.com",
            "a..example.com",
            ".example.com",
            "example.com.",
            "exa／mple.com",
        ),
        *("a" * 64 + ".example.com", "a." * 127 + "com", "xn--\u00fc.example", "127.0.0.1：80"),
    ],
}
URLS = {
    Rule.SCHEME: ["http://{}/", "HTTP://hooks.example.com/", "ftp://{}/", "file://{}/etc/passwd", "gopher://{}/_x"],
    Rule.USERINFO: ["https://me@{}/", "https://me:pw@{}/", "https://hooks.example.com@{}/", "https://@{}/"],
    Rule.FRAGMENT: ["https://{}/#x", "https://{}#@hooks.example.com/", "https://{}/a?b#"],
    Rule.SPELLING: [
        *("", "https://", "https:///x", "https:/{}/", "https:{}", "//{}/", "{}", "/hook", "https//{}/"),
        *(" https://{}/", "https://{}/ ", "https://{}/a b", "https://{}\n/", "https://{}/\n", "ht\ttps://{}/"),
        *("https://hooks.example.com\\@{}/", "https:\\\\{}/", "https://{}/\\x", "https://{}\x00.example.com/"),
        *("https://{}/\r\nHost: a", "https://{}/\x7f", "https://{}/ü", "https://{}\u3000/", "https://{}\u2028/"),
        *("https://{}/" + "a" * 2048, "https://{}/\ud800", "https-x://{}/"),
    ],
    Rule.PORT: [f"https://hooks.example.com:{port}/" for port in (0, 1, 22, 25, 80, 1023, 65536, 99999)],
    Rule.HOST: [f"https://hooks.example.com:{port}/" for port in ("", "８４４３", "+443", "-1", "0x1bb", "123456")],
}
SPELLINGS = [
    *((rule, f"https://{host}:{{port}}/hook") for rule, hosts in HOSTS.items() for host in hosts),
    *((rule, url.replace("{}", "127.0.0.1:{port}")) for rule, urls in URLS.items() for url in urls),
]


@pytest.fixture(scope="module")
async def inside() -> AsyncIterator[Receiver]:
    async with receiving(hosts=("127.0.0.1", "::1")) as receiver:
        yield receiver


NAMED: dict[str, Sequence[str]] = {}


@pytest.fixture(scope="module")
def guarded() -> Egress:
    """Made once, as reading certifi's authorities takes 20 ms. Every name but those of NAMED is loopback's."""

    async def resolve(host: str, port: int) -> Sequence[str]:
        return NAMED.get(host, ("127.0.0.1",))

    return Egress(resolve=resolve)


@pytest.mark.parametrize(("rule", "url"), SPELLINGS)
async def test_no_spelling_of_an_inside_address_is_connected_to(
    rule: Rule, url: str, guarded: Egress, inside: Receiver, connects: list[tuple[str, int]]
) -> None:
    there = url.replace("{port}", str(inside.port))
    for attempt in (guarded.check(there), guarded.send("POST", there, headers={}, body=b"x")):
        with pytest.raises(AddressRefused) as refused:
            await attempt
        assert refused.value.rule is rule
    assert (connects, inside.accepted) == ([], 0)


@pytest.mark.parametrize("address", [*INSIDE, *INSIDE_6, "fe80::1%eth0"])
@pytest.mark.parametrize("before", [(), (PUBLIC,)], ids=["alone", "behind-a-public-one"])
async def test_a_name_with_an_inside_address_is_refused(
    address: str, before: tuple[str, ...], guarded: Egress, connects: list[tuple[str, int]]
) -> None:
    NAMED[NAME] = (*before, address)
    for attempt in (guarded.check(f"https://{NAME}/"), guarded.send("GET", f"https://{NAME}/", headers={})):
        with pytest.raises(AddressRefused) as refused:
            await attempt
        assert refused.value.rule is Rule.ADDRESS
    assert connects == []


@pytest.mark.parametrize("address", [*INSIDE, *INSIDE_6])
def test_our_own_list_refuses_without_the_second_lock(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ipaddress.IPv4Address, "is_global", True)
    monkeypatch.setattr(ipaddress.IPv6Address, "is_global", True)
    assert not is_public(address)
    assert is_public(PUBLIC) and is_public(PUBLIC_6)


@pytest.mark.parametrize("address", ["10.0.0.1", "127.0.0.1", "169.254.169.254", "2001:db8::1"])
def test_the_second_lock_refuses_without_our_list(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "_NOT_PUBLIC", ())
    assert not is_public(address)


@given(st.ip_addresses(v=4), st.sampled_from(["::", "::ffff:0:0", "64:ff9b::", "64:ff9b:1::", "2002::", "2001::"]))
def test_no_address_that_embeds_another_is_public(embedded: ipaddress.IPv4Address, prefix: str) -> None:
    low = int(embedded) << (80 if prefix == "2002::" else 0)
    assert not is_public(str(ipaddress.IPv6Address(int(ipaddress.IPv6Address(prefix)) | low)))


@pytest.mark.parametrize(
    "address",
    [
        *("1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0"),
        *("169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "192.167.255.255", "192.169.0.0"),
        *("198.17.255.255", "198.20.0.0", "223.255.255.255", "168.63.129.15", "2001:200::1", "2003::1", "2a00::1"),
    ],
)
def test_the_neighbours_of_inside_blocks_are_public(address: str) -> None:
    assert is_public(address)


async def test_a_name_that_moves_inside_after_the_check_is_not_followed(connects: list[tuple[str, int]]) -> None:
    answers = iter([[PUBLIC], [PUBLIC], ["127.0.0.1"]])

    async def rebinding(host: str, port: int) -> Sequence[str]:
        return next(answers)

    async with receiving() as receiver:
        house, url = Egress(resolve=rebinding), f"https://{NAME}:{receiver.port}/"
        await house.check(url)
        with pytest.raises(NotReached):
            await house.send("GET", url, headers={})
        assert connects == [(PUBLIC, receiver.port)]
        with pytest.raises(AddressRefused):
            await house.send("GET", url, headers={})
    assert (len(connects), receiver.accepted) == (1, 0)


async def test_a_connection_that_ends_elsewhere_is_dropped_unused(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = httpcore.AnyIOBackend.connect_tcp

    async def astray(self: httpcore.AnyIOBackend, host: str, *rest: Any) -> httpcore.AsyncNetworkStream:
        return await connect(self, "127.0.0.1", *rest)

    monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", astray)
    async with receiving() as receiver:
        with pytest.raises(AddressRefused) as refused:
            await Egress(resolve=resolving(PUBLIC)).send("GET", f"https://{NAME}:{receiver.port}/", headers={})
    assert refused.value.rule is Rule.PEER
    assert receiver.requests == []


async def test_a_redirect_is_an_answer_and_not_followed(inside: Receiver) -> None:
    moved = f"HTTP/1.1 307 Moved\r\nLocation: http://{inside.address}/x\r\nContent-Length: 0\r\n\r\n"
    async with receiving(moved.encode()) as receiver:
        house = Egress(allowed=frozenset({receiver.address, inside.address}))
        answer = await get(house, receiver)
    assert (answer.status, answer.headers["location"]) == (307, f"http://{inside.address}/x")
    assert inside.accepted == 0


async def test_proxies_and_passwords_of_the_environment_are_ignored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, inside: Receiver
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password hunter2")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://{inside.address}")
        monkeypatch.setenv(name.lower(), f"http://{inside.address}")
    async with receiving() as receiver:
        answer = await get(plain(receiver), receiver)
    assert (answer.status, inside.accepted) == (200, 0)
    assert b"authorization" not in receiver.requests[0].lower()


async def test_cookies_and_connections_are_not_kept() -> None:
    async with receiving(OK.replace(b"X-Other: 1", b"Set-Cookie: a=b")) as receiver:
        house = plain(receiver)
        answers = [await get(house, receiver) for _ in range(2)]
    assert receiver.accepted == 2
    assert b"cookie" not in receiver.requests[1].lower()
    assert "set-cookie" not in answers[0].headers


BAD_HEADERS = [
    *(("X-A", value) for value in ("b\r\nX-B: c", "b\n", "b\r", "b\x00", " b", "b ", "\tb", "bü", "b\x7f", "b\u2028")),
    *((name, "b") for name in ("", "X A", "X:A", "X-A\r\nX-B", "X-A\n", "Ü", "Host", "hOST", "Content-Length")),
    *((name, "b") for name in ("Transfer-Encoding", "Connection", "Accept-Encoding", "Upgrade", "Expect")),
]


@pytest.mark.parametrize(("name", "value"), BAD_HEADERS)
async def test_a_header_that_breaks_out_is_refused(name: str, value: str, inside: Receiver) -> None:
    with pytest.raises(HeaderRefused):
        await plain(inside).send("GET", f"http://{inside.address}/", headers={name: value})
    assert inside.accepted == 0


# Bounds


def repeating(head: bytes, part: bytes, pause: float, sent: list[int] | None = None) -> Handler:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(part)
            await writer.drain()
            if sent is not None:
                sent.append(len(part))
            await asyncio.sleep(pause)

    return answer


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
SLOW = {
    "body": (CHUNKED, b"1\r\nx\r\n"),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
    "hints": (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
}


@pytest.mark.parametrize(("head", "part"), SLOW.values(), ids=SLOW)
async def test_a_slow_answer_ends_with_the_total_time(head: bytes, part: bytes) -> None:
    async with receiving(repeating(head, part, 0.02)) as receiver:
        house, started = plain(receiver, total_seconds=30), time.monotonic()
        with pytest.raises(NotReached) as failed:
            await house.send("GET", f"http://{receiver.address}/", headers={}, total_seconds=0.3)
    assert failed.value.reason is Reason.TOTAL_TIME
    assert 0.25 < time.monotonic() - started < 2


async def test_a_slow_resolver_ends_with_the_total_time() -> None:
    async def sleeping(host: str, port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        return []

    house, started = Egress(resolve=sleeping, total_seconds=0.1), time.monotonic()
    for attempt in (house.check(f"https://{NAME}/"), house.send("GET", f"https://{NAME}/", headers={})):
        with pytest.raises(NotReached) as failed:
            await attempt
        assert failed.value.reason is Reason.TOTAL_TIME
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    ("limits", "reason"),
    [({"connect_seconds": 0.1}, Reason.CONNECT_TIME), ({"total_seconds": 0.1}, Reason.TOTAL_TIME)],
)
async def test_a_silent_handshake_ends(authority: Authority, limits: dict[str, float], reason: Reason) -> None:
    async with receiving(repeating(b"", b"", 1)) as receiver:
        house = secure(receiver, authority.ca_file, **limits)
        with pytest.raises(NotReached) as failed:
            await house.send("GET", f"https://{NAME}:{receiver.port}/", headers={})
    assert failed.value.reason is reason


async def test_an_endless_answer_is_not_read() -> None:
    sent: list[int] = []
    async with receiving(repeating(CHUNKED, b"10000\r\n" + b"x" * 65536 + b"\r\n", 0, sent)) as receiver:
        with pytest.raises(AnswerTooLarge) as failed:
            await get(plain(receiver, total_seconds=5), receiver)
    assert failed.value.status == 200
    assert sum(sent) < 32 << 20  # what the sockets between us hold


async def test_a_wish_of_one_that_says_too_much_is_kept() -> None:
    head = b"HTTP/1.1 503 Busy\r\nRetry-After: 600\r\nContent-Length: 99\r\n\r\n"
    async with receiving(head + bytes(99)) as receiver:
        with pytest.raises(AnswerTooLarge) as failed:
            await get(plain(receiver, most_bytes=9), receiver)
    assert (failed.value.status, failed.value.headers) == (503, {"retry-after": "600"})


async def test_the_bound_is_exact() -> None:
    async with receiving() as receiver:
        answer = await get(plain(receiver, most_bytes=4), receiver)
        with pytest.raises(AnswerTooLarge):
            await get(plain(receiver, most_bytes=3), receiver)
    assert answer.body == b"fine"


async def test_a_compressed_answer_is_not_inflated() -> None:
    bomb = gzip.compress(bytes(50 << 20), 1)
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n"
    async with receiving(head.encode() + bomb) as receiver:
        answer = await get(plain(receiver), receiver)
    assert answer.body == bomb
    assert answer.headers["content-encoding"] == "gzip"


async def test_endless_headers_are_not_read() -> None:
    async with receiving(b"HTTP/1.1 200 OK\r\nX: " + b"y" * (1 << 20)) as receiver:
        with pytest.raises(NotReached) as failed:
            await get(plain(receiver), receiver)
    assert failed.value.reason is Reason.BROKEN


# Failures


BAD_CERTIFICATES: dict[str, dict[str, Any]] = {
    "another-name": {"name": "other.example.com"},
    "expired": {"days": -1},
    "self-signed": {"is_self_signed": True},
}


@pytest.mark.parametrize("made", BAD_CERTIFICATES.values(), ids=BAD_CERTIFICATES)
async def test_a_bad_certificate_gets_no_request(authority: Authority, made: dict[str, Any]) -> None:
    async with receiving(tls=authority.server(**made)) as receiver:
        with pytest.raises(NotReached) as failed:
            await secure(receiver, authority.ca_file).send("GET", f"https://{NAME}:{receiver.port}/", headers={})
    assert failed.value.reason is Reason.TLS
    assert receiver.requests == []


async def test_an_authority_of_ones_own_is_trusted_by_its_file_alone(authority: Authority) -> None:
    async with receiving(tls=authority.server()) as receiver:
        with pytest.raises(NotReached) as failed:
            await secure(receiver, None).send("GET", f"https://{NAME}:{receiver.port}/", headers={})
    assert failed.value.reason is Reason.TLS


async def test_a_server_that_wants_our_certificate_is_a_tls_failure(authority: Authority) -> None:
    tls = authority.server()
    tls.verify_mode = ssl.CERT_REQUIRED
    with socket.create_server(("127.0.0.1", 0)) as server:
        url, refusing = f"https://{NAME}:{server.getsockname()[1]}/", asyncio.to_thread(_refuse_client, server, tls)
        house = secure(Receiver(port=server.getsockname()[1]), authority.ca_file)
        results = await asyncio.gather(house.send("GET", url, headers={}), refusing, return_exceptions=True)
    assert isinstance(results[0], NotReached)
    assert results[0].reason is Reason.TLS


def _refuse_client(server: socket.socket, tls: ssl.SSLContext) -> None:
    """By TLS 1.3 the alert comes after the client's handshake is done; asyncio's own server would not send it."""
    connection, _ = server.accept()
    with tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False) as secured:
        with contextlib.suppress(ssl.SSLError):
            secured.do_handshake()
        while socket.socket.recv(secured, 65536):  # a reset for what we leave unread would overtake the alert
            pass


BROKEN = [b"", b"SSH-2.0-OpenSSH\r\n\r\n", OK[:-1], b"HTTP/1.1 101 Switching\r\n\r\n", b"\x00" * 9]


@pytest.mark.parametrize("answer", BROKEN)
async def test_a_broken_answer_is_told_apart(answer: bytes) -> None:
    async with receiving(answer) as receiver:
        with pytest.raises(NotReached) as failed:
            await get(plain(receiver), receiver)
    assert failed.value.reason is Reason.BROKEN


async def test_a_closed_port_and_an_unknown_name_are_told_apart() -> None:
    async def unknown(host: str, port: int) -> Sequence[str]:
        raise OSError

    async with receiving() as closed:
        pass
    reasons = []
    for house, url in (
        (plain(closed), f"http://{closed.address}/"),
        (Egress(resolve=unknown), f"https://{NAME}/"),
        (Egress(resolve=resolving()), f"https://{NAME}/"),
    ):
        with pytest.raises(NotReached) as failed:
            await house.send("GET", url, headers={})
        reasons.append(failed.value.reason)
    assert reasons == [Reason.CONNECT, Reason.NAME, Reason.NAME]


CANARIES = {
    "a-header-kept": OK.replace(b"X-Other: 1", b"Location: /canary"),
    "no-http": b"canary\r\n\r\n",
    "a-broken-header": b"HTTP/1.1 200 OK\r\ncanary: \x00\r\n\r\n",
}


@pytest.mark.parametrize("answer", CANARIES.values(), ids=CANARIES)
async def test_errors_and_logs_repeat_no_path_query_header_or_body(
    answer: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    met: list[object] = []
    async with receiving(answer) as receiver:
        house, good = plain(receiver), f"http://{receiver.address}/canary?canary"
        for url in (good, f"http://canary:x@{NAME}/canary", f"https://{NAME}/canary canary", "https://1.1/canary"):
            try:
                met.append(await house.send("POST", url, headers={"X": "canary"}, body=b"canary"))
            except CofferError as error:
                met += [error, error.message]
    assert len(met) >= 7
    assert b"canary" in receiver.requests[0]
    assert "canary" not in repr(met) + caplog.text


def test_every_error_has_a_code_of_its_own_and_only_not_reached_is_retryable() -> None:
    errors: list[type[CofferError]] = [AddressRefused, HeaderRefused, NotReached, AnswerTooLarge]
    assert len({error.code for error in errors} - {CofferError.code}) == 4
    assert [error for error in errors if error.retryable] == [NotReached]


def test_it_imports_nothing_of_ours_but_the_root_error() -> None:
    found: set[str] = set()
    parsed = [ast.parse(Path(str(module.__file__)).read_text()) for module in (addresses, names, egress)]
    for node in chain.from_iterable(map(ast.walk, parsed)):
        if isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    outside = {name for name in found if name.split(".")[0] not in sys.stdlib_module_names}
    assert outside == {"certifi", "crypto.errors", "egress.addresses", "egress.names", "httpcore", "idna"}
