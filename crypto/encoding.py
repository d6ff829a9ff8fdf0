"""The one injective byte encoding that feeds every key, index and tag; without it two meanings could share one tag."""

import struct
from collections.abc import Iterable

_LENGTH = struct.Struct(">I")


def join(*parts: bytes) -> bytes:
    """Each part behind its length as u32 BE, in order.

    Different tuples never give equal bytes: the result can be read back unambiguously from its start.
    """
    return b"".join(_with_lengths(parts))


def _with_lengths(parts: Iterable[bytes]) -> Iterable[bytes]:
    for part in parts:
        yield _LENGTH.pack(len(part))
        yield part
