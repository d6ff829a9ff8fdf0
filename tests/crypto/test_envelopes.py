"""An envelope opens under its own key, in its own cell, byte for byte, or fails in the one way there is."""

import inspect
import os
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

import crypto
from crypto.encoding import join
from crypto.envelopes import Cell, Column, open_sealed, reseal, seal
from crypto.errors import CannotOpen
from crypto.values import HEADER_BYTES, NONCE_BYTES, Sealed
from tests.vectors.collisions import valid_under_both

ACME, GLOBEX = UUID(int=1), UUID(int=2)
CELL = Cell(ACME, UUID(int=10), "customers.name", UUID(int=20))
SECRETS = bytes(range(32)), bytes(range(32, 64))
KEY, OTHER_KEY = (AESGCM(secret) for secret in SECRETS)
SEALS = 100_000 if os.environ.get("COFFER_SOAK") else 2_000
NONCE = bytes(NONCE_BYTES)
HEADER = bytes.fromhex("c10100000001")
COMMITTED = bytes(16)
CIPHERS = {SECRETS[0]: KEY}


def refusal(sealed: bytes, cell: Cell = CELL, key: AESGCM = KEY) -> tuple[object, ...]:
    """All that a caller could learn from the error."""
    with pytest.raises(CannotOpen) as raised:
        open_sealed(key, sealed, cell)
    error = raised.value
    return type(error), error.args, error.message, error.code, error.__cause__


ONE_REFUSAL = (CannotOpen, ("This value can't be opened.",), "This value can't be opened.", "CANNOT_OPEN", None)


def bound(cell: Cell = CELL) -> bytes:
    return join(cell.tenant.bytes, cell.subject.bytes, cell.label.encode(), cell.row.bytes, HEADER)


def column(sealed: bytes) -> Column:
    return Column(CELL.label, [sealed], [SECRETS[0]], [CELL.subject], [CELL.row])


def forged(plain: bytes) -> bytes:
    """A valid tag by one who holds the key and obeys no format."""
    return HEADER + NONCE + KEY.encrypt(NONCE, plain, bound())


@given(st.binary(max_size=300), st.integers(0, 2**32 - 1))
def test_a_document_comes_back_byte_for_byte(document: bytes, version: int) -> None:
    sealed = seal(KEY, version, document, CELL)

    assert open_sealed(KEY, sealed, CELL) == document
    assert sealed.dek_version == version


def test_an_empty_document_comes_back_empty() -> None:
    assert open_sealed(KEY, seal(KEY, 1, b"", CELL), CELL) == b""


def test_text_shaped_like_our_envelope_round_trips_as_text() -> None:
    once = bytes(seal(KEY, 1, b"John", CELL))

    twice = seal(KEY, 1, once, CELL)

    assert open_sealed(KEY, twice, CELL) == once


@pytest.mark.parametrize("ending", [b"\x80", b"\x80\x00", b"\x00" * 40, b"\x80" + b"\x00" * 31])
def test_a_document_that_ends_like_padding_comes_back(ending: bytes) -> None:
    assert open_sealed(KEY, seal(KEY, 1, ending, CELL), CELL) == ending


def test_a_flip_of_any_bit_is_refused_in_the_same_way() -> None:
    sealed = seal(KEY, 1, b"John", CELL)
    number, bits = int.from_bytes(sealed, "big"), 8 * len(sealed)

    refusals = {refusal((number ^ 1 << bit).to_bytes(len(sealed), "big")) for bit in range(bits)}

    assert refusals == {ONE_REFUSAL}


@pytest.mark.parametrize("place", range(HEADER_BYTES))
def test_any_other_header_byte_is_refused_in_the_same_way(place: int) -> None:
    sealed = seal(KEY, 1, b"John", CELL)
    others = set(range(256)) - {sealed[place]}

    refusals = {refusal(sealed[:place] + bytes([other]) + sealed[place + 1 :]) for other in others}

    assert refusals == {ONE_REFUSAL}


@pytest.mark.parametrize(
    "elsewhere",
    [
        replace(CELL, tenant=GLOBEX),
        replace(CELL, subject=UUID(int=11)),
        replace(CELL, label="customers.email"),
        replace(CELL, row=UUID(int=21)),
        replace(CELL, subject=CELL.row, row=CELL.subject),
    ],
)
def test_a_value_moved_to_another_cell_is_refused(elsewhere: Cell) -> None:
    here, there = seal(KEY, 1, b"John", CELL), seal(KEY, 1, b"Jane", elsewhere)

    assert {refusal(here, elsewhere), refusal(there, CELL)} == {ONE_REFUSAL}


def test_a_value_relabelled_with_another_key_version_is_refused() -> None:
    first, second = seal(KEY, 1, b"John", CELL), seal(KEY, 2, b"John", CELL)
    swapped = second[:HEADER_BYTES] + first[HEADER_BYTES:], first[:HEADER_BYTES] + second[HEADER_BYTES:]

    assert {refusal(sealed) for sealed in swapped} == {ONE_REFUSAL}


def test_another_key_is_refused() -> None:
    assert refusal(seal(KEY, 1, b"John", CELL), key=OTHER_KEY) == ONE_REFUSAL


def test_an_unknown_suite_is_refused_although_its_tag_is_valid() -> None:
    header = bytes.fromhex("c10200000001")
    associated = bound()[:-HEADER_BYTES] + header
    sealed = header + NONCE + KEY.encrypt(NONCE, COMMITTED + b"\x80" + bytes(31), associated)

    assert refusal(sealed) == ONE_REFUSAL


def test_every_truncation_and_an_extension_are_refused() -> None:
    sealed = seal(KEY, 1, b"John" * 20, CELL)
    bent = [*(sealed[:end] for end in range(len(sealed))), sealed + b"\0", sealed + bytes(32)]

    assert {refusal(raw) for raw in bent} == {ONE_REFUSAL}


@given(st.binary(max_size=200))
def test_bytes_that_nobody_sealed_are_refused(raw: bytes) -> None:
    assert refusal(raw) == ONE_REFUSAL


@pytest.mark.parametrize("place", range(16))
def test_a_valid_tag_without_the_zeros_of_commitment_is_refused(place: int) -> None:
    uncommitted = bytearray(COMMITTED)
    uncommitted[place] = 1

    assert refusal(forged(bytes(uncommitted) + b"John\x80" + bytes(27))) == ONE_REFUSAL


@pytest.mark.parametrize("length", [16, 33, 48, 63])
def test_a_valid_tag_over_a_part_of_a_bucket_is_refused(length: int) -> None:
    sealed = forged(COMMITTED + b"John\x80".ljust(length, b"\0"))

    assert refusal(sealed) == ONE_REFUSAL
    with pytest.raises(CannotOpen):
        reseal(ACME, column(sealed), lambda _: CIPHERS, 2)


def test_what_is_sealed_anew_keeps_its_length_and_its_document() -> None:
    sealed = seal(KEY, 1, b"John" * 20, CELL)

    (anew,) = reseal(ACME, column(sealed), {1: CIPHERS, 2: {SECRETS[0]: OTHER_KEY}}.__getitem__, 2)

    assert anew is not None
    assert (len(anew), anew[:HEADER_BYTES]) == (len(sealed), bytes.fromhex("c10100000002"))
    assert open_sealed(OTHER_KEY, anew, CELL) == b"John" * 20


def test_what_has_a_valid_tag_without_the_zeros_of_commitment_is_not_sealed_anew() -> None:
    with pytest.raises(CannotOpen):
        reseal(ACME, column(forged(b"\1" + bytes(15) + b"John\x80" + bytes(27))), lambda _: CIPHERS, 2)


@pytest.mark.parametrize("padded", [bytes(32), b"John" + bytes(28), b"\x80" + bytes(30) + b"\x01"])
def test_a_valid_tag_over_broken_padding_is_refused(padded: bytes) -> None:
    assert refusal(forged(COMMITTED + padded)) == ONE_REFUSAL


def test_a_ciphertext_valid_under_two_keys_opens_under_one() -> None:
    content = valid_under_both(SECRETS, NONCE, bound(), COMMITTED + bytes(31) + b"\x80")

    assert len(OTHER_KEY.decrypt(NONCE, content, bound())) == 48  # bare AES-GCM takes it
    assert len(open_sealed(KEY, HEADER + NONCE + content, CELL)) == 31
    assert refusal(HEADER + NONCE + content, key=OTHER_KEY) == ONE_REFUSAL


@pytest.mark.parametrize(("length", "buckets"), [(0, 1), (1, 1), (31, 1), (32, 2), (63, 2), (64, 3), (1000, 32)])
def test_lengths_show_in_buckets_of_32_bytes_only(length: int, buckets: int) -> None:
    assert len(seal(KEY, 1, bytes(length), CELL)) == 50 + 32 * buckets


def test_no_two_seals_share_a_nonce() -> None:
    nonces = {seal(KEY, 1, b"", CELL)[HEADER_BYTES : HEADER_BYTES + NONCE_BYTES] for _ in range(SEALS)}

    assert len(nonces) == SEALS


def public_callables() -> Iterator[Callable[..., object]]:
    for module in pkgutil.iter_modules(crypto.__path__, "crypto."):
        for name, found in inspect.getmembers(import_module(module.name)):
            if getattr(found, "__module__", None) != module.name or name.startswith("_"):
                continue
            if inspect.isfunction(found):
                yield found
            elif inspect.isclass(found):
                yield from (member for _, member in inspect.getmembers(found, inspect.isfunction))


def test_nobody_chooses_a_nonce() -> None:
    found = list(public_callables())
    names = {name.lower() for one in found for name in inspect.signature(one).parameters}

    assert {seal, open_sealed, reseal, Sealed.__new__} <= set(found)
    assert not {name for name in names if "nonce" in name or name == "iv"}
