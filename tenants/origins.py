"""Where an act came from: the request or job behind it, what it is for, and the trace it belongs to; never a value."""

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


UNKNOWN = Origin()
