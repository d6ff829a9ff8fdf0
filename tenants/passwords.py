"""Passwords by Argon2id, at most two at a time, so that a flood of sign-ins cannot eat the machine's memory."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

from tenants.errors import MemberRefused

_AT_ONCE = 2
_SHORTEST, _LONGEST = 12, 256


class Passwords:
    """RFC 9106, 4: the second recommended setting (64 MiB, 3 passes, 4 lanes)."""

    def __init__(self) -> None:
        self._hasher = PasswordHasher(time_cost=3, memory_cost=64 * 1024, parallelism=4, type=Type.ID)
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="argon2")
        self._nobody = self._hasher.hash("the password of nobody")

    async def hash(self, password: str) -> str:
        """Raises `MemberRefused` for a password of fewer than 12 or more than 256 characters."""
        if not _SHORTEST <= len(password) <= _LONGEST:
            raise MemberRefused(f"A password has {_SHORTEST} to {_LONGEST} characters.")
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._hasher.hash, password)

    async def fits(self, stored: str | None, password: str) -> bool:
        """Costs the same where there is no such member (`stored` is None) and for a password too long to be one."""
        loop, tried = asyncio.get_running_loop(), password[: _LONGEST + 1]
        fits = await loop.run_in_executor(self._threads, self._verify, stored or self._nobody, tried)
        return fits and stored is not None

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _verify(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except (VerificationError, InvalidHashError, UnicodeEncodeError):
            return False
