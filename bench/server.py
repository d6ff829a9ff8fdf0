"""The measured server: uvicorn on one core, in a process of its own, which learns from stdin what to serve."""

import cProfile
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any

import uvicorn

from api.app import Api
from bench.cores import SERVER_CORE
from bench.costs import Costs
from bench.floor import Floor
from settings import AppRole, Mode, Settings
from telemetry import logs
from tenants.audit.entries import Entry
from tenants.recorder import Recorder


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """`floor` maps static tokens to tenants and is served in place of the API; `is_timed` puts `Costs` around it.

    `is_unrecorded` leaves the record of what is shown away, to see what it costs. `profile` is the file that cProfile
    writes when the server ends.
    """

    floor: dict[str, str] | None = None
    is_timed: bool = False
    is_unrecorded: bool = False
    profile: str | None = None


@contextmanager
def serving(settings: Settings, kind: Kind) -> Iterator[int]:
    """The port of a running server. It may be asked at once: the socket listens before the process starts."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
        port = int(listening.getsockname()[1])
        command = [sys.executable, "-m", "bench.server", str(listening.fileno()), str(SERVER_CORE)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[listening.fileno()])
        assert process.stdin is not None
        process.stdin.write(json.dumps({"settings": asdict(settings), "kind": asdict(kind)}, default=list).encode())
        process.stdin.close()
    try:
        yield port
    finally:
        process.send_signal(signal.SIGINT)  # after SIGTERM uvicorn ends the process before a profile is written
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _serve(descriptor: int, core: int, told: dict[str, Any]) -> None:
    os.sched_setaffinity(0, {core})
    settings, kind = _settings(told["settings"]), Kind(**told["kind"])
    logs.configure(settings.log_level)
    if kind.is_unrecorded:
        setattr(Recorder, "record", _forget)  # noqa: B010  # this process measures, and serves nobody
    app: Any = Api(settings).app if kind.floor is None else Floor(settings, kind.floor)
    config = uvicorn.Config(Costs(app) if kind.is_timed else app, log_level="warning", access_log=False, lifespan="on")
    listening = socket.socket(fileno=descriptor)
    with suppress(KeyboardInterrupt), _profiled(kind.profile):
        uvicorn.Server(config).run(sockets=[listening])


async def _forget(_recorder: Recorder, _entries: Sequence[Entry]) -> None:
    pass


@contextmanager
def _profiled(path: str | None) -> Iterator[None]:
    if path is None:
        yield
        return
    with cProfile.Profile() as profile:
        try:
            yield
        finally:
            profile.dump_stats(path)


def _settings(told: dict[str, Any]) -> Settings:
    parsed: dict[str, Any] = {name: AppRole(**told[name]) for name in ("api_role", "provisioner_role")}
    parsed |= {"cors_origins": tuple(told["cors_origins"]), "egress_allow": frozenset(told["egress_allow"])}
    return Settings(**{**told, **parsed, "mode": Mode(told["mode"])})


if __name__ == "__main__":
    _serve(int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.stdin.buffer.read()))
