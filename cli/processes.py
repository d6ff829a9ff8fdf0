"""`coffer serve` and `coffer worker`: the processes that stay, each until it is asked to end."""

import asyncio
import signal
import socket
import sys
from contextlib import closing
from dataclasses import replace
from typing import Annotated

import typer

import settings as environment
from local.errors import LocalServiceError


def serve() -> None:
    """Serve the API on COFFER_HOST and COFFER_PORT until SIGTERM or Ctrl-C."""
    settings = environment.read()

    import uvloop

    from api.app import Api
    from api.server import Server
    from jobs.worker import beside
    from telemetry import logs, metrics

    logs.configure(settings.log_level)

    async def serving(listener: socket.socket) -> None:
        counted, where = metrics.Metrics(), (settings.metrics_host, settings.metrics_port)
        async with beside(settings, counted) as ring, metrics.serving(counted, *where):
            api = Api(settings, ring, counted)
            try:
                await api.check()  # here, so that a refusal is one sentence; the lifespan would print a traceback
                typer.echo(f"Coffer serves on {settings.host}:{settings.port}.", err=True)
                await Server(api).serve(sockets=[listener])
            finally:
                await api.close()

    # Else uvicorn, once it has ended, ends us by the same signal, before jobs are given back and spans are sent.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with closing(listening(settings.host, settings.port, "COFFER_PORT=")) as listener:
        try:
            uvloop.run(serving(listener))
        except KeyboardInterrupt:
            sys.exit(0)


def worker(
    threads: Annotated[
        int | None, typer.Option(help="Jobs at once in a process; else COFFER_WORKER_THREADS.", min=1, max=100)
    ] = None,
    processes: Annotated[int, typer.Option(help="With 2 or more, one that dies is started again.", min=1)] = 1,
    alive: Annotated[
        bool, typer.Option("--alive", help="Only tell, by the exit status, whether one works here.")
    ] = False,
) -> None:
    """Do background work until SIGTERM or Ctrl-C; then running steps end, and jobs are given back."""
    from jobs.pulses import is_alive

    if alive:
        sys.exit(0 if is_alive() else 1)
    settings = environment.read()
    settings = settings if threads is None else replace(settings, worker_threads=threads)

    from jobs.supervising import supervise
    from telemetry import logs

    logs.configure(settings.log_level)
    if processes > 1:
        command = [sys.executable, "-c", "import cli; cli.main()", "worker", "--threads", str(settings.worker_threads)]
        sys.exit(asyncio.run(supervise(command, processes)))
    asyncio.run(_working(settings))


async def _working(settings: environment.Settings) -> None:
    from jobs.worker import Worker
    from telemetry import metrics

    made = Worker(settings)
    try:
        await made.check()
        typer.echo(f"Coffer works, {settings.worker_threads} jobs at once.", err=True)
        async with metrics.serving(made.metrics, settings.metrics_host, settings.metrics_port):
            await made.run()
    finally:
        await made.close()


def listening(host: str, port: int, remedy: str) -> socket.socket:
    """Bound before anything is started, so that nobody waits for a start that can't succeed."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
        # Accepted sockets inherit it. asyncio sets it only where the protocol is named, and without it the body of an
        # answer waits 40 ms for the client's delayed acknowledgement of the head.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError:
        other = port + 1 if port < 65535 else 8000
        glue = "" if remedy.endswith("=") else " "
        sentence = f"Port {port} of {host} can't be used, most likely something listens there already; "
        raise LocalServiceError(f"{sentence}stop it, or use `{remedy}{glue}{other}`.") from None
