"""One-time codes are those of the RFCs, fit for a minute and a half at most, and once."""

from datetime import UTC, datetime, timedelta

import pytest

from crypto import otp

SECRET = b"12345678901234567890"  # of both RFCs
NOW = datetime(2026, 3, 1, 12, 0, 10, tzinfo=UTC)
STEP = otp.step_at(NOW)
HOTP = ["755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871", "520489"]
TOTP = [
    (59, "94287082"),
    (1111111109, "07081804"),
    (1111111111, "14050471"),
    (1234567890, "89005924"),
    (2000000000, "69279037"),
    (20000000000, "65353130"),
]


@pytest.mark.parametrize(("counter", "code"), list(enumerate(HOTP)))
def test_hotp_is_that_of_rfc_4226(counter: int, code: str) -> None:
    assert otp.hotp(SECRET, counter) == code


@pytest.mark.parametrize(("seconds", "code"), TOTP)
def test_totp_is_that_of_rfc_6238(seconds: int, code: str) -> None:
    assert otp.hotp(SECRET, otp.step_at(datetime.fromtimestamp(seconds, UTC)), digits=8) == code


@pytest.mark.parametrize("off", [-1, 0, 1])
def test_a_clock_may_be_off_by_one_step(off: int) -> None:
    assert otp.find_step(SECRET, otp.hotp(SECRET, STEP + off), NOW, after=-1) == STEP + off


@pytest.mark.parametrize("off", [-2, 2, 100])
def test_a_code_of_another_time_does_not_fit(off: int) -> None:
    assert otp.find_step(SECRET, otp.hotp(SECRET, STEP + off), NOW, after=-1) is None


@pytest.mark.parametrize("code", ["", "000000", "12345", "1234567", "abcdef", "１２３４５６", "\ud800", "0" * 5000])
def test_what_is_no_code_of_the_time_does_not_fit(code: str) -> None:
    assert otp.find_step(SECRET, code, NOW, after=-1) is None


def test_a_code_fits_once() -> None:
    code = otp.hotp(SECRET, STEP)
    step = otp.find_step(SECRET, code, NOW, after=-1)
    assert step is not None
    assert otp.find_step(SECRET, code, NOW, after=step) is None
    assert otp.find_step(SECRET, code, NOW + timedelta(seconds=30), after=step) is None


def test_an_older_code_does_not_fit_behind_a_newer_one() -> None:
    assert otp.find_step(SECRET, otp.hotp(SECRET, STEP - 1), NOW, after=STEP) is None
