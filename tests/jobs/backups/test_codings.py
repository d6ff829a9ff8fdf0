"""Any k pieces give the chunk, whatever its length, and the pieces are those of the formula."""

import itertools
from functools import reduce
from operator import xor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.backups.codings import Coding

CODINGS = st.builds(Coding, st.integers(1, 6), st.integers(0, 4)).filter(lambda coding: coding.k == 1 or coding.m > 0)


def parity(pieces: list[bytes], shard: int) -> bytes:
    """The sum over data pieces j of piece j / (shard XOR j) in GF(2^8) modulo 0x11D."""
    return bytes(
        reduce(xor, (_times(byte, _inverse(shard ^ place)) for place, byte in enumerate(row)))
        for row in zip(*pieces, strict=True)
    )


def _times(one: int, other: int) -> int:
    product = 0
    while other:
        product ^= one * (other & 1)
        one = one << 1 ^ (0x11D if one & 0x80 else 0)
        other >>= 1
    return product


def _inverse(value: int) -> int:
    return next(other for other in range(256) if _times(value, other) == 1)


@pytest.mark.parametrize(
    ("text", "coding", "written"),
    [
        ("single", Coding(1, 0), "single"),
        ("mirror:1", Coding(1, 0), "single"),
        ("mirror:3", Coding(1, 2), "mirror:3"),
        ("rs:4+2", Coding(4, 2), "rs:4+2"),
        ("rs:1+1", Coding(1, 1), "mirror:2"),
        ("rs:28+4", Coding(28, 4), "rs:28+4"),
    ],
)
def test_a_coding_is_read_and_written(text: str, coding: Coding, written: str) -> None:
    assert (Coding.parse(text), str(coding)) == (coding, written)
    assert Coding.parse(written) == coding


@pytest.mark.parametrize(
    "text",
    ["", "raid", "single:2", "mirror", "mirror:0", "mirror:33", "rs:4", "rs:0+2", "rs:4+0", "rs:30+3", "rs:4+2 "],
)
def test_what_is_no_coding_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a coding"):
        Coding.parse(text)


@settings(deadline=None)
@given(CODINGS, st.binary(min_size=1, max_size=100))
def test_any_k_pieces_give_the_chunk(coding: Coding, chunk: bytes) -> None:
    pieces = dict(enumerate(coding.encode(chunk)))
    assert {len(piece) for piece in pieces.values()} == {coding.piece_bytes(len(chunk))}
    for some in itertools.combinations(pieces, coding.k):
        assert coding.decode({shard: pieces[shard] for shard in some}, len(chunk)) == chunk


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=60))
def test_parity_is_what_the_format_says(chunk: bytes) -> None:
    pieces = Coding(4, 2).encode(chunk)

    assert b"".join(pieces[:4]) == chunk + bytes(-len(chunk) % 4)
    assert pieces[4:] == [parity(pieces[:4], 4), parity(pieces[:4], 5)]


def test_fewer_than_k_pieces_are_refused() -> None:
    pieces = Coding(4, 2).encode(b"chunk")

    with pytest.raises(ValueError, match="too few"):
        Coding(4, 2).decode({0: pieces[0], 1: pieces[1], 5: pieces[5]}, 5)
