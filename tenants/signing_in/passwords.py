"""Passwords by Argon2id, at most two at a time, so that a flood of sign-ins cannot eat the machine's memory.

Who waits for it waits in a fair queue, so that the flood is not everybody's either.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

from tenants.errors import MemberRefused, SignInBusy
from tenants.jobs.fair_queues import HOUSE, Asking, FairQueue, QueueFull

T = TypeVar("T")
_AT_ONCE = 2
_WAITING, _OF_ONE = 64, 8  # of one address or member; a process does some seven a second
_SHORTEST, _LONGEST = 12, 256


class Passwords:
    """RFC 9106, 4: the second recommended setting (64 MiB, 3 passes, 4 lanes)."""

    def __init__(self) -> None:
        self._hasher = PasswordHasher(time_cost=3, memory_cost=64 * 1024, parallelism=4, type=Type.ID)
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="argon2")
        self._queue = FairQueue(_AT_ONCE, most=_WAITING, of_one=_OF_ONE)
        self._nobody = self._hasher.hash("the password of nobody")

    async def hash(self, password: str, asking: Asking = HOUSE) -> str:
        """Raises `MemberRefused` for a password of fewer than 12 or more than 256 characters, and `SignInBusy`."""
        self.check(password)
        return await self._worked(asking, self._hasher.hash, password)

    def check(self, password: str) -> None:
        """Raises `MemberRefused`, as `hash` would."""
        if not _SHORTEST <= len(password) <= _LONGEST:
            raise MemberRefused(f"A password has {_SHORTEST} to {_LONGEST} characters.")

    async def fits(self, stored: str | None, password: str, asking: Asking = HOUSE) -> bool:
        """Costs the same where there is no such member (`stored` is None) and for a password too long to be one.

        Raises `SignInBusy`.
        """
        fits = await self._worked(asking, self._verify, stored or self._nobody, password[: _LONGEST + 1])
        return fits and stored is not None

    def refuse_busy(self, asking: Asking) -> None:
        """Raises `SignInBusy` where a password would not be looked at now: ask before an attempt is counted."""
        try:
            self._queue.refuse_full(asking)
        except QueueFull:
            raise SignInBusy from None

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _worked(self, asking: Asking, work: Callable[..., T], *given: str) -> T:
        try:
            async with self._queue.turn(asking):
                return await asyncio.get_running_loop().run_in_executor(self._threads, work, *given)
        except QueueFull:
            raise SignInBusy from None

    def _verify(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except (VerificationError, InvalidHashError, UnicodeEncodeError):
            return False
