"""A real `coffer serve` with its logs, metrics and spans at hand, and a collector that keeps what it gets."""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from settings import AppRole
from tests.house import House, settings_for

_ROOT = Path(__file__).parent.parent


@dataclass
class Collector:
    """What came in by OTLP over HTTP, as it came."""

    address: str = ""
    bodies: list[bytes] = field(default_factory=list)

    def spans(self) -> list[Span]:
        """All spans so far, of every service."""
        found: list[Span] = []
        for body in self.bodies:
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    found += scope.spans
        return found


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # the library's name
            collector.bodies.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector.address = f"http://127.0.0.1:{server.server_address[1]}"
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()


@dataclass
class Served:
    """`logs` is all that the process wrote to standard output and error, once it has ended."""

    address: str
    metrics_address: str
    logs: bytes = b""

    async def scrape(self) -> str:
        async with httpx.AsyncClient() as client:
            return (await client.get(f"{self.metrics_address}/metrics")).text


def environment(house: House, **more: str) -> dict[str, str]:
    """The settings of a house as variables."""
    settings = settings_for(house.server, house.database, house.vault)
    made = {
        "PATH": os.environ["PATH"],
        "COFFER_ENV": "development",
        "COFFER_DATABASE_URL": settings.database_url,
        "COFFER_PLATFORM_DATABASE_URL": settings.platform_database_url,
        "COFFER_RECORDER_DATABASE_URL": settings.recorder_database_url,
        "COFFER_VAULT_ADDR": settings.vault_address,
        "COFFER_ISSUER": settings.issuer,
        "COFFER_AUDIT_STORE": settings.audit_store,
        "COFFER_RATE_PERCENT": str(settings.rate_percent),
    }
    assert settings.provisioner_role is not None
    return made | _role("API", settings.api_role) | _role("PROVISIONER", settings.provisioner_role) | more


def _role(name: str, role: AppRole) -> dict[str, str]:
    return {f"COFFER_VAULT_{name}_ROLE_ID": role.role_id, f"COFFER_VAULT_{name}_SECRET_ID": role.secret_id}


@asynccontextmanager
async def served(house: House, **more: str) -> AsyncIterator[Served]:
    """As `served_again`, without the jobs that other tests left: its worker would do them first."""
    await house.forget_jobs()
    async with served_again(house, **more) as server:
        yield server


@asynccontextmanager
async def served_again(house: House, **more: str) -> AsyncIterator[Served]:
    """`coffer serve` on this house, with these variables; its worker runs beside it."""
    port, metrics_port = _free(), _free()
    variables = environment(house, COFFER_PORT=str(port), COFFER_METRICS_PORT=str(metrics_port), **more)
    command = [sys.executable, "-c", "import cli; cli.main()", "serve"]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command, env=variables, cwd=_ROOT, stdout=pipe, stderr=asyncio.subprocess.STDOUT
    )
    made = Served(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{metrics_port}")
    reading = asyncio.ensure_future(process.communicate())
    try:
        await _ready(made.address, reading)
        yield made
    finally:
        if process.returncode is None:
            process.terminate()
        made.logs = (await asyncio.wait_for(reading, 60))[0]


async def _ready(address: str, ended: "asyncio.Future[tuple[bytes, bytes]]") -> None:
    async with httpx.AsyncClient(base_url=address) as client, asyncio.timeout(60):
        while not ended.done():
            try:
                if (await client.get("/readyz")).is_success:
                    return
            except httpx.TransportError:
                await asyncio.sleep(0.1)
    raise AssertionError(ended.result()[0].decode())


def _free() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
