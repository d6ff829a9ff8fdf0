"""How a chunk is spread over shards, so that some of them may be lost: ``single``, ``mirror:n`` or ``rs:k+m``.

Through liberasurecode (pyeclib), ISA-L's Cauchy matrix, whose every k rows are independent:
https://github.com/intel/isa-l (`gf_gen_cauchy1_matrix`). The library's own header of a fragment is not kept, so that
the bytes are those of the mathematics and of no version of a library; it is made anew where it is asked for.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

from pyeclib.ec_iface import ECDriver

DEFAULT = "rs:4+2"
MOST = 32  # shards, what liberasurecode bears
_WORDS = re.compile(r"single|mirror:(?P<n>[1-9]\d?)|rs:(?P<k>[1-9]\d?)\+(?P<m>[1-9]\d?)")
_HEADER_BYTES = 80  # liberasurecode's fragment_header_t


@dataclass(frozen=True, slots=True)
class Coding:
    """Any `k` of ``k + m`` pieces make a chunk whole. With k = 1 every piece is the chunk itself."""

    k: int
    m: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises `ValueError` for what is no coding, or has more than 32 shards."""
        said = _WORDS.fullmatch(text)
        if said is None:
            raise ValueError("a coding is single, mirror:n or rs:k+m")
        k, m = int(said["k"] or 1), int(said["m"] or said["n"] or 1) - (said["m"] is None)
        if k + m > MOST:
            raise ValueError("a coding has at most 32 shards")
        return cls(k, m)

    def __str__(self) -> str:
        """As `parse` takes it; ``mirror:1`` is ``single`` and ``rs:1+m`` the mirror it is."""
        if self.k > 1:
            return f"rs:{self.k}+{self.m}"
        return f"mirror:{1 + self.m}" if self.m else "single"

    @property
    def shards(self) -> int:
        return self.k + self.m

    def piece_bytes(self, length: int) -> int:
        """Of each piece of a chunk of `length` bytes; the last data piece is filled with zeros."""
        return -(-length // self.k)

    def encode(self, chunk: bytes) -> list[bytes]:
        """The pieces, by shard: the chunk cut in k, then m of parity."""
        if self.k == 1:
            return [chunk] * self.shards
        return [fragment[_HEADER_BYTES:] for fragment in _driver(self.k, self.m).encode(chunk)]

    def decode(self, pieces: Mapping[int, bytes], length: int) -> bytes:
        """The chunk of `length` bytes from any k of its pieces, by shard. Whole pieces only: nothing is checked here.

        Raises `ValueError` for fewer than k.
        """
        if len(pieces) < self.k:
            raise ValueError("too few pieces")
        if self.k == 1:
            return next(iter(pieces.values()))
        if all(shard in pieces for shard in range(self.k)):
            return b"".join(pieces[shard] for shard in range(self.k))[:length]
        headers = _headers(self.k, self.m, length)
        some = sorted(pieces.items())[: self.k]
        return bytes(_driver(self.k, self.m).decode([headers[shard] + piece for shard, piece in some]))


@lru_cache(maxsize=8)
def _driver(k: int, m: int) -> ECDriver:
    return ECDriver(k=k, m=m, ec_type="isa_l_rs_cauchy")


@lru_cache(maxsize=8)
def _headers(k: int, m: int, length: int) -> list[bytes]:
    """They tell of shard and lengths alone, so those of zeros fit as well."""
    return [fragment[:_HEADER_BYTES] for fragment in _driver(k, m).encode(bytes(length))]
