"""A fleet of real `coffer serve` and `coffer worker` processes, which die by SIGKILL and are started again."""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import httpx

from jobs.brokers import MEMORY
from tests.house import House
from tests.jobs.desk import until
from tests.served import environment

_ROOT = Path(__file__).parent.parent.parent
_UP = 60.0  # seconds; only a hang takes so long
_TROUBLE = ("job failed", "hand failed", "loop failed", "linking failed", "Traceback")


@dataclass
class Process:
    """One command and its successors, each of which writes a log of its own. `leads`: jobs run in it."""

    command: str
    variables: Mapping[str, str]
    folder: Path
    leads: bool
    address: str | None = None
    code: str = "import cli; cli.main()"
    starts: int = 0
    kills: int = 0
    is_up: bool = False
    _process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> Path:
        return self.folder / f"{self.command}-{id(self)}-{self.starts}.log"

    async def start(self) -> None:
        self.starts += 1
        command = (sys.executable, "-c", self.code, self.command)
        with self.log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command, env=self.variables, cwd=_ROOT, stdout=log, stderr=log
            )
        await until(self._is_ready, _UP)
        self.is_up = True

    async def kill(self) -> None:
        """As the kernel does it when memory is short: nothing of the process runs after this."""
        self.refuse_ended()
        self.is_up = False
        self.kills += 1
        await self.end()

    def refuse_ended(self) -> None:
        assert self._process is not None
        assert self._process.returncode is None, self.log.read_text()

    async def end(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def _is_ready(self) -> bool:
        self.refuse_ended()
        if self.address is None:
            return "Coffer works" in self.log.read_text()
        try:
            async with httpx.AsyncClient(base_url=self.address) as client:
                return (await client.get("/readyz")).is_success
        except httpx.TransportError:
            return False


@dataclass
class Fleet:
    servers: list[Process]
    workers: list[Process]
    restarts: set["asyncio.Task[None]"] = field(default_factory=set)

    @classmethod
    @asynccontextmanager
    async def running(
        cls, house: House, folder: Path, broker: str, queue: str, *, servers: int, workers: int
    ) -> AsyncIterator[Self]:
        """They are starting when the block begins. In memory each server is a worker too, and there are no others."""
        common = {"COFFER_BROKER_URL": broker, "COFFER_BROKER_QUEUE": queue, "COFFER_WORKER_THREADS": "4"}
        variables = environment(house, **common)
        is_apart = broker != MEMORY
        made = cls(
            [_server(variables, folder, leads=not is_apart) for _ in range(servers)],
            [Process("worker", variables, folder, leads=True) for _ in range(workers * is_apart)],
        )
        try:
            for process in made.all:
                made.restart(process)
            yield made
        finally:
            for restart in made.restarts:
                restart.cancel()
            await asyncio.gather(*made.restarts, return_exceptions=True)
            await asyncio.gather(*(process.end() for process in made.all))

    @property
    def all(self) -> list[Process]:
        return [*self.servers, *self.workers]

    @property
    def addresses(self) -> list[str]:
        return [server.address for server in self.servers if server.address]

    def restart(self, process: Process) -> None:
        restart = asyncio.create_task(process.start())
        self.restarts.add(restart)

    async def all_up(self) -> None:
        """Raises AssertionError where one did not start, or ended by itself."""
        await asyncio.gather(*self.restarts)
        for process in self.all:
            process.refuse_ended()

    def troubles(self) -> Iterator[str]:
        """Lines of the logs that tell of an error which nobody expected; a death is none."""
        for log in sorted({path for process in self.all for path in process.folder.glob("*.log")}):
            for line in log.read_text().splitlines():
                if any(word in line for word in _TROUBLE):
                    yield f"{log.name}: {line}"


def _server(variables: Mapping[str, str], folder: Path, *, leads: bool) -> Process:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    own = {**variables, "COFFER_PORT": str(port), "PATH": os.environ["PATH"]}
    return Process("serve", own, folder, leads, f"http://127.0.0.1:{port}")
