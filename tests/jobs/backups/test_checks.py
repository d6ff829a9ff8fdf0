"""One damaged byte is put right wherever it stands; more are not, and nothing wrong is ever called whole."""

import zlib

from hypothesis import given
from hypothesis import strategies as st

from jobs.backups.checks import CHECK_BYTES, check, is_whole, mended

CONTENT = bytes(range(256)) * 3


@given(st.binary(min_size=1, max_size=500), st.integers(0), st.integers(1, 255))
def test_one_changed_byte_is_put_right(content: bytes, place: int, change: int) -> None:
    damaged = bytearray(content)
    damaged[place % len(content)] ^= change

    assert not is_whole(bytes(damaged), check(content))
    assert mended(bytes(damaged), check(content)) == content


@given(st.lists(st.tuples(st.integers(0, len(CONTENT) - 1), st.integers(1, 255)), min_size=2, max_size=9))
def test_more_are_left_alone_unless_they_undo_each_other(changes: list[tuple[int, int]]) -> None:
    damaged = bytearray(CONTENT)
    for place, change in changes:
        damaged[place] ^= change
    count = sum(one != other for one, other in zip(damaged, CONTENT, strict=True))

    assert mended(bytes(damaged), check(CONTENT)) == (CONTENT if count < 2 else None)


def test_whole_content_stays_and_lost_content_is_not_invented() -> None:
    assert mended(CONTENT, check(CONTENT)) == CONTENT
    assert mended(b"", check(CONTENT)) is None
    assert mended(bytes(len(CONTENT)), check(CONTENT)) is None


def test_a_check_is_sha_256_and_crc_32() -> None:
    made = check(b"123456789")

    assert len(made) == CHECK_BYTES
    assert made.hex() == "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225" + "cbf43926"
    assert zlib.crc32(b"123456789") == 0xCBF43926
