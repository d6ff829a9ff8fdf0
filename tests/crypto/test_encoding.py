"""Different tuples never give equal bytes, so no two meanings share a key or a tag."""

from hypothesis import given
from hypothesis import strategies as st

from crypto.encoding import join

# Few byte values, so that hypothesis finds tuples whose plain concatenation is the same.
PARTS = st.lists(st.binary(max_size=8) | st.text("\0\1\4a", max_size=8).map(str.encode), max_size=5).map(tuple)


def split(joined: bytes) -> tuple[bytes, ...]:
    parts: list[bytes] = []
    while joined:
        end = 4 + int.from_bytes(joined[:4], "big")
        parts.append(joined[4:end])
        joined = joined[end:]
    return tuple(parts)


@given(PARTS)
def test_what_was_joined_can_be_read_back(parts: tuple[bytes, ...]) -> None:
    assert split(join(*parts)) == parts


@given(PARTS, PARTS)
def test_different_tuples_never_give_equal_bytes(left: tuple[bytes, ...], right: tuple[bytes, ...]) -> None:
    assert (join(*left) == join(*right)) is (left == right)


@given(st.binary(max_size=12), st.integers(0, 12), st.integers(0, 12))
def test_one_text_cut_in_two_places_gives_different_bytes(whole: bytes, here: int, there: int) -> None:
    cuts = [(whole[:at], whole[at:]) for at in (here, there)]

    assert (join(*cuts[0]) == join(*cuts[1])) is (cuts[0] == cuts[1])


@given(PARTS)
def test_an_empty_part_still_counts(parts: tuple[bytes, ...]) -> None:
    assert len({join(*parts), join(*parts, b""), join(*parts, b"", b"")}) == 3


def test_a_part_that_looks_like_a_length_is_only_a_part() -> None:
    assert join(b"a", b"b") == bytes.fromhex("00000001 61 00000001 62")
    assert join(join(b"a", b"b")) == bytes.fromhex("0000000a 00000001 61 00000001 62")
