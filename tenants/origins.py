"""Where an act came from: the request or job behind it, what it is for, and the trace it belongs to; never a value."""

import ipaddress
import re
from dataclasses import dataclass

_PURPOSE = re.compile(r"[a-z0-9][a-z0-9._-]{0,39}")


@dataclass(frozen=True, slots=True)
class Origin:
    """`request_id` is the HTTP request's or the job's id; `purpose` a code such as ``support-case``, never free text.

    `trace` is a W3C traceparent (https://www.w3.org/TR/trace-context/).
    """

    request_id: str | None = None
    purpose: str | None = None
    trace: str | None = None

    def __post_init__(self) -> None:
        if self.purpose is not None and not is_purpose(self.purpose):
            raise ValueError("a purpose is a code of up to 40 characters: a-z, 0-9, '.', '_' and '-'")


def is_purpose(text: str) -> bool:
    return _PURPOSE.fullmatch(text) is not None


def home_of(address: str | None) -> str:
    """An address, of IPv6 the /64: that is one home's or one machine's, who has them all."""
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return address or ""  # a socket's path, or none
    return str(ipaddress.ip_network((parsed, 64), strict=False)) if parsed.version == 6 else str(parsed)


UNKNOWN = Origin()
