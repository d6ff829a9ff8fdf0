"""A data key enters memory only if it is the one that was checked in, and each derivation stands alone."""

from dataclasses import replace
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from crypto.errors import KeyRefused
from crypto.keys import DataKey, KeyState, Purpose, WrappedKey, check_value, derive, mac, unlock, wrapping_context

ACME, GLOBEX = UUID(int=1), UUID(int=2)
KEY_ID, OTHER_ID = UUID(int=3), UUID(int=4)
SECRET = bytes(range(32))
CHECK = check_value(ACME, KEY_ID, Purpose.DEK, SECRET)
WRAPPED = WrappedKey(ACME, KEY_ID, Purpose.DEK, 7, "vault:v1:…", CHECK, KeyState.ACTIVE)


def test_the_right_secret_unlocks_its_key() -> None:
    assert unlock(WRAPPED, SECRET) == DataKey(Purpose.DEK, 7, KeyState.ACTIVE, secret=SECRET)


@pytest.mark.parametrize("secret", [b"", SECRET[:31], SECRET + b"\0", SECRET[::-1], bytes(32)])
def test_a_wrong_secret_is_refused(secret: bytes) -> None:
    with pytest.raises(KeyRefused, match="check value"):
        unlock(WRAPPED, secret)


@pytest.mark.parametrize("length", [0, 16, 31, 33, 64])
def test_a_secret_of_another_length_is_refused_although_it_was_checked_in(length: int) -> None:
    short = bytes(length)
    wrapped = replace(WRAPPED, check_value=check_value(ACME, KEY_ID, Purpose.DEK, short))

    with pytest.raises(KeyRefused):
        unlock(wrapped, short)


@pytest.mark.parametrize(
    "moved",
    [
        replace(WRAPPED, tenant=GLOBEX),
        replace(WRAPPED, id=OTHER_ID),
        replace(WRAPPED, purpose=Purpose.BIK),
        replace(WRAPPED, check_value=CHECK[:7]),
        replace(WRAPPED, check_value=b""),
    ],
)
def test_a_key_under_another_name_is_refused(moved: WrappedKey) -> None:
    with pytest.raises(KeyRefused):
        unlock(moved, SECRET)


def test_the_error_of_a_wrong_key_shows_no_key() -> None:
    with pytest.raises(KeyRefused) as raised:
        unlock(WRAPPED, b"canary" * 5 + b"42")

    assert "canary" not in repr(raised.value)


def test_an_open_key_does_not_print_its_secret() -> None:
    shown = repr(DataKey(Purpose.DEK, 1, KeyState.ACTIVE, secret=b"canary"))

    assert "canary" not in shown
    assert "secret" not in shown


def test_contexts_and_check_values_differ_by_purpose_tenant_and_id() -> None:
    names = [(tenant, key, purpose) for tenant in (ACME, GLOBEX) for key in (KEY_ID, OTHER_ID) for purpose in Purpose]

    assert len({wrapping_context(*name) for name in names}) == 12
    assert len({check_value(*name, SECRET) for name in names}) == 12
    assert {len(check_value(*name, SECRET)) for name in names} == {8}


INFO = st.lists(st.binary(max_size=6), max_size=4).map(tuple)


@given(INFO, INFO)
def test_different_labels_derive_different_keys(left: tuple[bytes, ...], right: tuple[bytes, ...]) -> None:
    assert (derive(SECRET, *left) == derive(SECRET, *right)) is (left == right)


def test_derivation_leaves_out_the_extract_step() -> None:
    with_extract = HKDF(SHA256(), length=32, salt=None, info=b"\0\0\0\1a").derive(SECRET)

    assert derive(SECRET, b"a") != with_extract
    assert derive(SECRET, b"a") == mac(SECRET, b"\0\0\0\1a\x01")


def test_a_mac_is_that_of_rfc_4231() -> None:
    # RFC 4231, 4.3 (test case 2)
    expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"

    assert mac(b"Jefe", b"what do ya want for nothing?").hex() == expected
