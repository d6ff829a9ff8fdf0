"""Who runs on which core, so that one core's work is what is measured."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

# The first and the last core we may use: one and the same on a machine of one core.
SERVER_CORE, OTHER_CORE = min(os.sched_getaffinity(0)), max(os.sched_getaffinity(0))


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Run on one core meanwhile; processes started inside stay there."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
