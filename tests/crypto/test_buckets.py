"""The secrets of subjects open in their bucket, generation and tenant, or not at all."""

import ast
import json
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto.buckets import BUCKETS, OPENING_BYTES, Opening, Sealing, bucket_of, sealed_bytes
from crypto.errors import CannotOpen
from tests.vectors import buckets as decoder

KEY, OTHER_KEY = bytes(range(32)), bytes(range(32, 64))
TENANT, OTHER_TENANT = UUID(int=1), UUID(int=2)
GENERATION = 7
VECTORS: list[dict[str, Any]] = json.loads((Path(decoder.__file__).parent / "buckets.json").read_text())
BUCKET = 5
SUBJECTS = {UUID(int=number << 8 | BUCKET): bytes([number]) * 32 for number in range(1, 4)}


def content_of(subjects: dict[UUID, bytes]) -> bytes:
    return b"".join(subject.bytes + subjects[subject] for subject in sorted(subjects, key=lambda each: each.bytes))


SEALING = Sealing(KEY, TENANT, GENERATION)
SEALED = SEALING.seal(BUCKET, content_of(SUBJECTS))


def refusal(
    opening: bytes,
    sealed: bytes,
    *,
    key: bytes = KEY,
    tenant: UUID = TENANT,
    generation: int = GENERATION,
    bucket: int = BUCKET,
) -> tuple[object, ...]:
    """All that a caller could learn from the error."""
    with pytest.raises(CannotOpen) as raised:
        Opening(key, tenant, generation, opening).open(bucket, sealed)
    error = raised.value
    return type(error), error.args, error.__cause__


ONE_REFUSAL = (CannotOpen, ("This value can't be opened.",), None)


@given(st.sets(st.integers(0, (1 << 120) - 1), max_size=40), st.integers(0, BUCKETS - 1))
def test_secrets_come_back_byte_for_byte(numbers: set[int], bucket: int) -> None:
    subjects = {UUID(int=number << 8 | bucket): number.to_bytes(32, "big") for number in numbers}
    sealing = Sealing(KEY, TENANT, GENERATION)

    sealed = sealing.seal(bucket, content_of(subjects))

    assert Opening(KEY, TENANT, GENERATION, sealing.opening).open(bucket, sealed) == subjects
    assert decoder.opened(KEY, TENANT, GENERATION, sealing.opening, bucket, sealed) == subjects
    assert len(sealed) == sealed_bytes(len(subjects))
    assert {bucket_of(subject) for subject in subjects} <= {bucket}


@pytest.mark.parametrize("vector", VECTORS)
def test_the_product_and_the_decoder_open_frozen_buckets(vector: dict[str, Any]) -> None:
    key, tenant, opening = bytes.fromhex(vector["key"]), UUID(vector["tenant"]), bytes.fromhex(vector["opening"])
    secrets = {UUID(subject): bytes.fromhex(secret) for subject, secret in vector["secrets"].items()}
    asked = (vector["bucket"], bytes.fromhex(vector["sealed"]))

    assert Opening(key, tenant, vector["generation"], opening).open(*asked) == secrets
    assert decoder.opened(key, tenant, vector["generation"], opening, *asked) == secrets


def test_a_flip_of_any_bit_is_refused_in_the_same_way() -> None:
    for place, whole in (("opening", SEALING.opening), ("sealed", SEALED)):
        for bit in range(8 * len(whole)):
            flipped = bytearray(whole)
            flipped[bit // 8] ^= 1 << bit % 8
            given = {"opening": SEALING.opening, "sealed": SEALED} | {place: bytes(flipped)}
            assert refusal(given["opening"], given["sealed"]) == ONE_REFUSAL


@pytest.mark.parametrize(
    "changed",
    [
        {"key": OTHER_KEY},
        {"key": KEY[:31]},
        {"tenant": OTHER_TENANT},
        {"generation": GENERATION + 1},
        {"bucket": BUCKET + 1},
        {"bucket": BUCKETS},
        {"bucket": -1},
    ],
)
def test_another_key_tenant_generation_or_bucket_is_refused(changed: dict[str, Any]) -> None:
    assert refusal(SEALING.opening, SEALED, **changed) == ONE_REFUSAL


def test_a_bucket_cut_off_lengthened_or_of_another_sealing_is_refused() -> None:
    other = Sealing(KEY, TENANT, GENERATION).seal(BUCKET, content_of(SUBJECTS))
    for sealed in (b"", SEALED[:15], SEALED[:-1], SEALED[:-48], SEALED + b"\x00", other):
        assert refusal(SEALING.opening, sealed) == ONE_REFUSAL
    for opening in (b"", SEALING.opening[:-1], SEALING.opening + b"\x00"):
        assert len(opening) != OPENING_BYTES
        assert refusal(opening, SEALED) == ONE_REFUSAL


def test_a_bucket_is_sealed_again_with_the_same_content_only() -> None:
    assert SEALING.seal(BUCKET, content_of(SUBJECTS)) == SEALED

    with pytest.raises(ValueError, match="one content"):
        SEALING.seal(BUCKET, b"")


@pytest.mark.parametrize(
    "content",
    [
        content_of(SUBJECTS)[:-1],
        content_of(SUBJECTS)[48:] + content_of(SUBJECTS)[:48],
        content_of(SUBJECTS)[:48] * 2,
        UUID(int=1 << 8 | BUCKET + 1).bytes + bytes(32),
    ],
    ids=["cut", "out of order", "twice", "another bucket's"],
)
def test_what_is_no_content_of_the_bucket_is_not_sealed(content: bytes) -> None:
    with pytest.raises(ValueError, match="subjects in their order"):
        Sealing(KEY, TENANT, GENERATION).seal(BUCKET, content)


def test_equal_buckets_of_two_generations_differ() -> None:
    sealed = {Sealing(KEY, TENANT, number % 2).seal(BUCKET, content_of(SUBJECTS)) for number in range(100)}

    assert len(sealed) == 100


def test_a_key_that_can_not_be_is_refused() -> None:
    with pytest.raises(ValueError, match="a key is 32 bytes"):
        Sealing(KEY[:31], TENANT, GENERATION)


def test_the_decoder_imports_nothing_of_ours() -> None:
    tree = ast.parse(Path(decoder.__file__).read_text())
    names = {str(node.module).partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}

    assert names == {"hashlib", "hmac", "uuid", "cryptography"}
