"""A token names its holder and is read to the letter, or not at all."""

import hashlib
from base64 import urlsafe_b64decode
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenants.signing_in import bearer_tokens

IDS = (uuid4(), uuid4())


def test_a_token_is_read_as_it_was_made() -> None:
    text, kept = bearer_tokens.make("cot_", *IDS)
    read = bearer_tokens.read("cot_", text, 2)
    assert read is not None
    assert (read.ids, read.hash) == (IDS, kept)


def test_what_is_kept_is_the_hash_of_the_secret_alone() -> None:
    text, kept = bearer_tokens.make("cot_", *IDS)
    raw = urlsafe_b64decode(text.removeprefix("cot_") + "==")
    assert hashlib.sha256(raw[32:]).digest() == kept
    assert len(raw[32:]) == 32


def test_no_two_tokens_are_alike() -> None:
    assert len({bearer_tokens.make("cot_", *IDS) for _ in range(1_000)}) == 1_000


def test_a_token_does_not_print_what_it_hashes_to() -> None:
    text, _ = bearer_tokens.make("cot_", *IDS)
    assert "hash" not in repr(bearer_tokens.read("cot_", text, 2))


CHANGES = {
    "another prefix": lambda text: text.replace("cot_", "cor_"),
    "no prefix": lambda text: text.removeprefix("cot_"),
    "two prefixes": lambda text: "cot_" + text,
    "padding": lambda text: text + "==",
    "a blank": lambda text: text + " ",
    "a line break inside": lambda text: text[:20] + "\n" + text[20:],
    "a letter less": lambda text: text[:-1],
    "a letter more": lambda text: text + "A",
    "bits that say nothing": lambda text: text[:-1] + chr(ord(text[-1]) + 1),
    "of the other base64": lambda text: text[:10] + "+/" + text[12:],
    "no ASCII": lambda text: text[:10] + "é" + text[11:],
    "very long": lambda text: text * 100,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_token_that_was_changed_in_form_is_none(change: object) -> None:
    text, _ = bearer_tokens.make("cot_", *IDS)
    assert callable(change)
    assert bearer_tokens.read("cot_", change(text[:-1] + "A"), 2) is None


def test_a_token_of_another_number_of_ids_is_none() -> None:
    text, _ = bearer_tokens.make("cot_", *IDS)
    assert bearer_tokens.read("cot_", text, 1) is None
    assert bearer_tokens.read("cot_", text, 3) is None


@given(st.text())
def test_no_text_breaks_the_reading(text: str) -> None:
    assert bearer_tokens.read("cot_", "cot_" + text, 2) is None
