"""The threads in which backups are sealed, coded and hashed: few, and sharing what the C library keeps when freed."""

import asyncio
import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from typing import ParamSpec, TypeVar

_M_ARENA_MAX = -8

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """As `asyncio.to_thread`, which has more threads than memory is worth; waiting for disks is left to those."""
    return await asyncio.get_running_loop().run_in_executor(_threads(), lambda: work(*args, **kwargs))


@cache
def _threads() -> ThreadPoolExecutor:
    _share_freed_memory()
    return ThreadPoolExecutor(2, "backups")


def _share_freed_memory() -> None:
    """By glibc's M_ARENA_MAX (mallopt(3)): else every thread, of obstore's too, keeps chunks that it once held."""
    with suppress(OSError, AttributeError):  # another C library has no such number, and no such habit
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)
