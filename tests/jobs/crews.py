"""A crew of worker processes that die by SIGKILL and are started again, and the killer who sees to it."""

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Self

import asyncpg

from settings import Settings
from tests.jobs.desk import until
from tests.jobs.worker_process import dumped

_ROOT = Path(__file__).parent.parent.parent
_UP = 60.0  # seconds; only a hang takes so long
_SOON = 5.0  # seconds in which a worker that is up takes a job, if there is one
_MOMENT = 0.7  # seconds; longer than a step takes
_TROUBLE = ("job failed", "hand failed", "loop failed", "linking failed", "Traceback")


@dataclass
class Hand:
    """One worker and its successors, each with a log of its own."""

    arguments: str
    folder: Path
    number: int
    variables: Mapping[str, str] | None = None
    starts: int = 0
    is_up: bool = False
    process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def log(self) -> Path:
        return self.folder / f"hand-{self.number}-{self.starts}.log"

    async def start(self) -> None:
        self.starts += 1
        command = (sys.executable, "-m", "tests.jobs.keys_worker", self.arguments)
        with self.log.open("wb") as log:
            self.process = await asyncio.create_subprocess_exec(
                *command, cwd=_ROOT, stdout=log, stderr=log, env=self.variables
            )
        await until(self._is_ready, _UP)
        self.is_up = True

    async def kill(self) -> None:
        self.refuse_ended()
        self.is_up = False
        await self.end()

    async def end(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    def refuse_ended(self) -> None:
        assert self.process is not None
        assert self.process.returncode is None, self.log.read_text()[-2000:]

    async def _is_ready(self) -> bool:
        self.refuse_ended()
        return self.log.read_text().startswith("ready") or "\nready" in self.log.read_text()


@dataclass
class Crew:
    """`struck` counts by the kind of job what a killed worker was in the middle of."""

    superuser: asyncpg.Connection
    hands: list[Hand]
    struck: Counter[str] = field(default_factory=Counter)
    kills: int = 0
    _restarts: set["asyncio.Task[None]"] = field(default_factory=set)

    @classmethod
    @asynccontextmanager
    async def working(
        cls,
        settings: Settings,
        superuser: asyncpg.Connection,
        folder: Path,
        size: int,
        variables: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Self]:
        made = cls(superuser, [Hand(dumped(settings), folder, number, variables) for number in range(size)])
        try:
            for hand in made.hands:
                made._restart(hand)
            yield made
        finally:
            for restart in made._restarts:
                restart.cancel()
            await asyncio.gather(*made._restarts, return_exceptions=True)
            await asyncio.gather(*(hand.end() for hand in made.hands))

    async def strike(self, chance: Random) -> None:
        """Kill one of them at a random moment, in the middle of a job if there is one."""
        try:
            await until(self._somebody_works, _SOON)
        except AssertionError:
            await self.somebody_up()
        works = await self._at_work()
        victim = chance.choice(works or [hand for hand in self.hands if hand.is_up])
        await asyncio.sleep(chance.uniform(0, _MOMENT))  # the random moment, which is the matter here
        self.struck.update(await self._jobs_of(victim))
        await victim.kill()
        self.kills += 1
        self._restart(victim)

    async def all_up(self) -> None:
        """Raises AssertionError where one did not start, or ended by itself."""
        await asyncio.gather(*self._restarts)
        for hand in self.hands:
            hand.refuse_ended()

    async def somebody_up(self) -> None:
        async def is_up() -> bool:
            return any(hand.is_up for hand in self.hands)

        await until(is_up, _UP)

    def troubles(self) -> Iterator[str]:
        """Lines of the logs that tell of an error which nobody expected; a death is none."""
        for log in sorted({path for hand in self.hands for path in hand.folder.glob("hand-*.log")}):
            for line in log.read_text().splitlines():
                if any(word in line for word in _TROUBLE):
                    yield f"{log.name}: {line}"

    def _restart(self, hand: Hand) -> None:
        self._restarts.add(asyncio.create_task(hand.start()))

    async def _somebody_works(self) -> bool:
        return bool(await self._at_work())

    async def _at_work(self) -> list[Hand]:
        rows = await self.superuser.fetch("SELECT DISTINCT worker FROM jobs WHERE state = 'RUNNING'")
        pids = {int(row["worker"].rpartition(":")[2]) for row in rows}
        return [hand for hand in self.hands if hand.is_up and hand.pid in pids]

    async def _jobs_of(self, hand: Hand) -> list[str]:
        query = "SELECT kind FROM jobs WHERE state = 'RUNNING' AND worker LIKE '%:' || $1"
        return [row["kind"] for row in await self.superuser.fetch(query, str(hand.pid))]
