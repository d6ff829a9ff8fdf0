"""A Secret shows itself to no one but `reveal`, and a Sealed is never text."""

import copy
import json
import logging
import operator
import pickle
from collections.abc import Callable

import pytest

from crypto.errors import CannotOpen
from crypto.values import Sealed, Secret

CANARY = "canary-4711"
SECRET = Secret(CANARY)
RAW = bytes.fromhex("c101") + b"\x00\x00\x01\x02" + b"S" * 76
PRINTERS: list[Callable[[object], str]] = [
    repr,
    str,
    ascii,
    format,
    "{}".format,
    "{!r}".format,
    lambda value: f"{value} {value!s}",
    lambda value: "%s %r" % (value, value),  # noqa: UP031  # the form that logging uses
    lambda value: repr([value, {"name": value}]),
    lambda value: json.dumps({"name": value}, default=str),
]


def test_reveal_gives_the_value_back() -> None:
    assert SECRET.reveal() is CANARY


@pytest.mark.parametrize("shown", PRINTERS)
def test_a_secret_prints_nothing_of_its_value(shown: Callable[[object], str]) -> None:
    assert "Secret(…)" in shown(SECRET) or r"Secret(\u2026)" in shown(SECRET)
    assert CANARY not in shown(SECRET)


@pytest.mark.parametrize(
    "shown", [vars, lambda value: value.__dict__, lambda value: value.value, json.dumps, len, iter]
)
def test_a_secret_gives_nothing_to_those_who_look_inside(shown: Callable[[object], object]) -> None:
    with pytest.raises((TypeError, AttributeError)) as raised:
        shown(SECRET)

    assert CANARY not in str(raised.value)


def test_a_format_specification_is_refused_without_the_value() -> None:
    with pytest.raises(TypeError) as raised:
        format(SECRET, ">20")

    assert CANARY not in str(raised.value)


def test_a_logged_secret_stays_secret(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("test").error("sealing %s", SECRET, extra={"value": SECRET})

    assert CANARY not in caplog.text
    assert CANARY not in repr(vars(caplog.records[0]))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_secret_is_never_pickled(protocol: int) -> None:
    with pytest.raises(TypeError, match="never serialised"):
        pickle.dumps({"name": SECRET}, protocol)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_secret_is_never_copied(copied: Callable[[object], object]) -> None:
    with pytest.raises(TypeError, match="never serialised"):
        copied(SECRET)


@pytest.mark.parametrize("other", [Secret(CANARY), CANARY, None, 1])
def test_a_secret_is_never_compared(other: object) -> None:
    with pytest.raises(TypeError):
        operator.eq(SECRET, other)
    with pytest.raises(TypeError):
        operator.ne(other, SECRET)


def test_a_secret_is_never_hashed_or_ordered() -> None:
    with pytest.raises(TypeError):
        hash(SECRET)
    with pytest.raises(TypeError):
        sorted([SECRET, Secret("other")])  # type: ignore[type-var]  # that is the test


@pytest.mark.parametrize("shown", PRINTERS[:8])
def test_a_sealed_value_prints_its_length_only(shown: Callable[[object], str]) -> None:
    assert "Sealed(82 bytes)" in shown(Sealed(RAW))
    assert "SSS" not in shown(Sealed(RAW))


def test_a_sealed_value_is_its_bytes_and_tells_its_key_version() -> None:
    assert Sealed(RAW) == RAW
    assert Sealed(RAW).dek_version == 258


@pytest.mark.parametrize(
    "raw",
    [b"", b"\xc1", RAW[:-1], RAW + b"\0", RAW[:50], b"\xc2" + RAW[1:], b"\xc1\x02" + RAW[2:], CANARY.encode()],
)
def test_bytes_that_cannot_be_sealed_are_refused_as_all_that_do_not_open(raw: bytes) -> None:
    with pytest.raises(CannotOpen) as raised:
        Sealed(raw)

    assert raised.value.args == CannotOpen().args
