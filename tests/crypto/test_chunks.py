"""A stream of chunks opens whole and in its place, or not at all."""

import ast
import json
import os
from itertools import permutations
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from crypto.chunks import CHUNK_BYTES, OPENING_BYTES, Opening, Sealing, size_of
from crypto.errors import CannotOpen
from tests.vectors import chunks as decoder
from tests.vectors.collisions import valid_under_both

KEY, OTHER_KEY = bytes(range(32)), bytes(range(32, 64))
BACKUP, OTHER_BACKUP = UUID(int=1), UUID(int=2)
SIZE = 64
FULL = SIZE - 16
VECTORS: list[dict[str, Any]] = json.loads((Path(decoder.__file__).parent / "chunks.json").read_text())
SEALS = 100_000 if os.environ.get("COFFER_SOAK") == "1" else 2_000


def sealed_stream(content: bytes, key: bytes = KEY, backup: UUID = BACKUP) -> tuple[bytes, list[bytes]]:
    """The opening and the chunks."""
    sealing = Sealing(key, backup, SIZE)
    parts = [content[start : start + FULL] for start in range(0, len(content), FULL)] or [b""]
    return sealing.opening, [sealing.seal(part, is_last=part is parts[-1]) for part in parts]


def opened_stream(opening: bytes, chunks: list[bytes], key: bytes = KEY, backup: UUID = BACKUP) -> bytes:
    reader, last = Opening(key, backup, opening), len(chunks) - 1
    return b"".join(reader.open(index, chunk, is_last=index == last) for index, chunk in enumerate(chunks))


def refusal(opening: bytes, chunks: list[bytes], key: bytes = KEY, backup: UUID = BACKUP) -> tuple[object, ...]:
    """All that a caller could learn from the error."""
    with pytest.raises(CannotOpen) as raised:
        opened_stream(opening, chunks, key, backup)
    error = raised.value
    return type(error), error.args, error.__cause__


ONE_REFUSAL = (CannotOpen, ("This value can't be opened.",), None)
CONTENT = bytes(range(256)) * 2
OPENED, CHUNKS = sealed_stream(CONTENT)


@given(st.binary(max_size=5 * SIZE))
def test_a_stream_comes_back_byte_for_byte(content: bytes) -> None:
    opening, chunks = sealed_stream(content)

    assert opened_stream(opening, chunks) == content
    assert decoder.opened(KEY, BACKUP, opening, chunks) == content
    assert {len(chunk) for chunk in chunks[:-1]} <= {SIZE}


def test_a_chunk_of_four_mib_is_one_call_and_opens_by_itself() -> None:
    sealing, content = Sealing(KEY, BACKUP), bytes(CHUNK_BYTES - 16)

    sealed = sealing.seal(content, is_last=True)

    assert len(sealed) == size_of(sealing.opening) == CHUNK_BYTES
    assert Opening(KEY, BACKUP, sealing.opening).open(0, sealed, is_last=True) == content


@pytest.mark.parametrize("vector", VECTORS)
def test_the_product_and_the_decoder_open_a_frozen_stream(vector: dict[str, Any]) -> None:
    key, backup, opening = bytes.fromhex(vector["key"]), UUID(vector["backup"]), bytes.fromhex(vector["opening"])
    chunks, content = [bytes.fromhex(chunk) for chunk in vector["chunks"]], bytes.fromhex(vector["content"])

    assert opened_stream(opening, chunks, key, backup) == content
    assert decoder.opened(key, backup, opening, chunks) == content


def test_a_flip_of_any_bit_is_refused_in_the_same_way() -> None:
    for index, chunk in enumerate(CHUNKS):
        for bit in range(8 * len(chunk)):
            flipped = bytearray(chunk)
            flipped[bit // 8] ^= 1 << bit % 8
            with pytest.raises(CannotOpen):
                Opening(KEY, BACKUP, OPENED).open(index, bytes(flipped), is_last=index == len(CHUNKS) - 1)


def test_a_flip_of_any_bit_of_the_opening_is_refused_in_the_same_way() -> None:
    for bit in range(8 * OPENING_BYTES):
        flipped = bytearray(OPENED)
        flipped[bit // 8] ^= 1 << bit % 8
        assert refusal(bytes(flipped), CHUNKS) == ONE_REFUSAL


@pytest.mark.parametrize("left", range(len(CHUNKS)))
def test_a_stream_cut_off_is_refused(left: int) -> None:
    if left:
        assert refusal(OPENED, CHUNKS[:left]) == ONE_REFUSAL
    for length in (0, 15, 16, 17):
        assert refusal(OPENED, [*CHUNKS[:left], CHUNKS[left][:length]]) == ONE_REFUSAL


def test_every_other_order_is_refused() -> None:
    opening, chunks = sealed_stream(CONTENT[: 4 * FULL])
    for order in list(permutations(chunks))[1:]:
        assert refusal(opening, list(order)) == ONE_REFUSAL


def test_doubled_dropped_and_added_chunks_are_refused() -> None:
    for index in range(len(CHUNKS)):
        assert refusal(OPENED, [*CHUNKS[:index], CHUNKS[index], *CHUNKS[index:]]) == ONE_REFUSAL
        if index:
            assert refusal(OPENED, [*CHUNKS[: index - 1], *CHUNKS[index:]]) == ONE_REFUSAL
    assert refusal(OPENED, [*CHUNKS, b""]) == ONE_REFUSAL


@pytest.mark.parametrize(("key", "backup"), [(OTHER_KEY, BACKUP), (KEY, OTHER_BACKUP), (KEY[:31], BACKUP)])
def test_another_key_or_backup_is_refused(key: bytes, backup: UUID) -> None:
    assert refusal(OPENED, CHUNKS, key, backup) == ONE_REFUSAL


def test_a_chunk_spliced_in_from_another_stream_is_refused() -> None:
    for backup in (BACKUP, OTHER_BACKUP):
        opening, others = sealed_stream(CONTENT, KEY, backup)
        for index in range(len(CHUNKS)):
            mixed = [*CHUNKS[:index], others[index], *CHUNKS[index + 1 :]]
            assert refusal(OPENED, mixed) == ONE_REFUSAL
            assert opening != OPENED


def test_a_chunk_valid_under_two_keys_opens_under_one() -> None:
    nonce, salted = bytes(11) + b"\x01", OPENED[:38]
    bound = decoder.joined(b"coffer.chunk.v1", BACKUP.bytes, bytes(8), b"\x01", OPENED)
    first, other = (decoder.derived(key, b"coffer.chunk.key.v1", BACKUP, salted) for key in (KEY, OTHER_KEY))
    chunk = valid_under_both((first, other), nonce, bound, bytes(48))

    assert len(AESGCM(other).decrypt(nonce, chunk, bound)) == 48  # bare AES-GCM takes it
    assert len(opened_stream(OPENED, [chunk])) == 48
    assert refusal(OPENED, [chunk], OTHER_KEY) == ONE_REFUSAL


def test_the_same_key_and_content_never_give_the_same_chunks() -> None:
    firsts = {Sealing(KEY, BACKUP, SIZE).seal(b"same", is_last=True) for _ in range(SEALS)}

    assert len(firsts) == SEALS


def test_equal_chunks_of_one_stream_differ() -> None:
    _, chunks = sealed_stream(bytes(50 * FULL))

    assert len(set(chunks)) == 50


@pytest.mark.parametrize(("length", "is_last"), [(FULL - 1, False), (FULL + 1, False), (FULL + 1, True), (0, False)])
def test_a_chunk_of_the_wrong_length_is_not_sealed(length: int, is_last: bool) -> None:
    with pytest.raises(ValueError, match="no such chunk"):
        Sealing(KEY, BACKUP, SIZE).seal(bytes(length), is_last=is_last)


def test_nothing_is_sealed_behind_the_last_chunk_and_only_an_empty_stream_has_an_empty_one() -> None:
    sealing = Sealing(KEY, BACKUP, SIZE)
    sealing.seal(bytes(FULL), is_last=False)
    with pytest.raises(ValueError, match="no such chunk"):
        sealing.seal(b"", is_last=True)
    sealing.seal(b"x", is_last=True)
    with pytest.raises(ValueError, match="no such chunk"):
        sealing.seal(b"x", is_last=True)


@pytest.mark.parametrize(("key", "size"), [(KEY[:31], SIZE), (KEY, 16), (KEY, CHUNK_BYTES + 1)])
def test_a_key_or_size_that_can_not_be_is_refused(key: bytes, size: int) -> None:
    with pytest.raises(ValueError, match="a key is 32 bytes"):
        Sealing(key, BACKUP, size)


def test_the_decoder_imports_nothing_of_ours() -> None:
    tree = ast.parse(Path(decoder.__file__).read_text())
    names = {str(node.module).partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}

    assert names == {"hashlib", "hmac", "uuid", "cryptography"}
