"""Names of hosts, looked up on threads of their own: one of each name at a time, and so many for one asker."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from weakref import WeakValueDictionary

THREADS = 256  # they begin as they are needed
OF_ONE_ASKER = 64
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
_threads = ThreadPoolExecutor(THREADS, "names")  # so that silent name servers hold up nothing but names


async def resolve_by_system(host: str, port: int) -> Sequence[str]:
    """A thread waits until the system gives up, which it may do long after whoever asked."""
    asked = asyncio.get_running_loop().run_in_executor(_threads, _by_system, host, port)
    return await asked


def _by_system(host: str, port: int) -> Sequence[str]:
    return [str(sockaddr[0]) for *_, sockaddr in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


class Lookups:
    """For one event loop. A look-up goes on though nobody waits for it any more, so what is counted is what is busy.

    Promised: however many ask for one silent name, one look-up of it is busy for each asker; and an asker, however many
    silent names it has, leaves the threads beyond `of_one` to others. Its own further names wait meanwhile.
    """

    def __init__(self, resolve: Resolve, of_one: int = OF_ONE_ASKER) -> None:
        self._resolve, self._of_one = resolve, of_one
        self._busy: dict[tuple[Hashable, str, int], asyncio.Task[Sequence[str]]] = {}
        self._turns: WeakValueDictionary[Hashable, asyncio.Semaphore] = WeakValueDictionary()

    async def find(self, asker: Hashable, host: str, port: int) -> Sequence[str]:
        """Raises OSError where the name is not known."""
        key = (asker, host, port)
        looking = self._busy.get(key)
        if looking is None:
            looking = self._busy[key] = asyncio.create_task(self._look(asker, host, port))
            looking.add_done_callback(lambda done: self._ended(key, done))
        return await asyncio.shield(looking)

    async def _look(self, asker: Hashable, host: str, port: int) -> Sequence[str]:
        turns = self._turns.get(asker)
        if turns is None:
            turns = self._turns[asker] = asyncio.Semaphore(self._of_one)
        async with turns:
            return await self._resolve(host, port)

    def _ended(self, key: tuple[Hashable, str, int], done: asyncio.Task[Sequence[str]]) -> None:
        del self._busy[key]
        if not done.cancelled():
            done.exception()  # else it would be logged, with the name, where nobody waits for it any more
