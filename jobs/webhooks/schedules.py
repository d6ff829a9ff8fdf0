"""When a delivery that failed is tried again; the standard's own schedule, three days in all."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

RETRIES = (
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=14),
    timedelta(hours=20),
    timedelta(hours=24),
)
JITTER = 0.1  # of a pause, added to it at most
LONGEST_WISH = timedelta(hours=24)  # of a receiver that says when to come back
PATIENCE = timedelta(days=5)  # of failure without a success; then the endpoint is disabled
_WISHING = frozenset({429, 503})


def next_try(tries: int, now: datetime, chance: Callable[[], float], wish: timedelta | None = None) -> datetime | None:
    """When to try again after `tries` failures; None after the last. `chance` is in [0, 1).

    Jitter only adds, so that nobody is asked sooner than promised. A receiver's wish is obeyed where it is later.
    """
    if tries > len(RETRIES):
        return None
    pause = RETRIES[tries - 1] * (1 + JITTER * chance())
    return now + max(pause, wish or timedelta())


def wish_of(status: int | None, header: str | None, now: datetime) -> timedelta | None:
    """Retry-After (RFC 9110, 10.2.3) of a 429 or 503: seconds or a date; no longer than a day, None if unreadable."""
    if status not in _WISHING or header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return min(timedelta(seconds=int(text[:9])), LONGEST_WISH)
    try:
        at = parsedate_to_datetime(text)
        pause = (at if at.tzinfo is not None else at.replace(tzinfo=UTC)) - now
    except (ValueError, OverflowError):
        return None
    return min(max(pause, timedelta()), LONGEST_WISH)
