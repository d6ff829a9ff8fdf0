"""One-time codes: HOTP (RFC 4226) and TOTP (RFC 6238) with HMAC-SHA-1, which is what authenticator apps speak.

SHA-1's collisions do not matter here: HMAC needs none of the resistance that broke (RFC 6194, 3.3).
"""

import hmac
from datetime import datetime

DIGITS = 6
STEP_SECONDS = 30
SECRET_BYTES = 20  # RFC 4226, 4, R6: as long as the hash
_WINDOW = 1  # steps that a clock may be off, either way


def hotp(secret: bytes, counter: int, digits: int = DIGITS) -> str:
    """RFC 4226, 5.3."""
    digest = hmac.digest(secret, counter.to_bytes(8, "big"), "sha1")
    start = digest[-1] & 0x0F
    number = int.from_bytes(digest[start : start + 4], "big") & 0x7FFFFFFF
    return str(number % 10**digits).zfill(digits)


def step_at(moment: datetime) -> int:
    return int(moment.timestamp()) // STEP_SECONDS


def find_step(secret: bytes, code: str, moment: datetime, after: int) -> int | None:
    """The step whose code this is, of those near `moment` and behind `after`; None where there is none.

    Whoever keeps the step as the next `after` takes each code once.
    """
    now, tried = step_at(moment), code.encode(errors="replace")
    fitting = [
        step
        for step in range(now - _WINDOW, now + _WINDOW + 1)
        if hmac.compare_digest(hotp(secret, step).encode(), tried) and step > after
    ]
    return max(fitting, default=None)
