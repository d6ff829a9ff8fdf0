"""How long a job that failed is put off before it is tried again."""

import random
from datetime import timedelta

LONGEST_PAUSE = 60.0  # seconds between two tries


def pause_before(attempt: int) -> timedelta:
    """Exponential with full jitter, so that those who failed together do not come back together."""
    return timedelta(seconds=random.uniform(0, min(LONGEST_PAUSE, 2.0**attempt)))  # noqa: S311  # spreads load only


def pause_after(last: timedelta) -> timedelta:
    """Exponential where no attempts are counted: between one second and three times the last pause."""
    most = min(LONGEST_PAUSE, max(1.0, last.total_seconds()) * 3)
    return timedelta(seconds=random.uniform(1, most))  # noqa: S311  # likewise
