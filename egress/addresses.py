"""URLs that may be reached over HTTP, read strictly, and which IP addresses are public; `egress` goes there."""

import re
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

import idna

from crypto.errors import CofferError


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


class AddressRefused(CofferError):
    code = "EGRESS_REFUSED"

    def __init__(self, rule: Rule) -> None:
        super().__init__(f"This address is refused: {rule}.")
        self.rule = rule


@dataclass(frozen=True, slots=True)
class Place:
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


def parse(url: str, allowed: frozenset[str]) -> Place:
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
    return Place(scheme, host, port, target if target.startswith("/") else f"/{target}", is_allowed)


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
