"""A TCP proxy that can be switched off, as a broker that goes away and comes back."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class Proxy:
    host: str
    port: int
    here: int = 0
    hangs: bool = False  # takes what is sent, and hands nothing on
    _server: asyncio.Server | None = None
    _kept: socket.socket | None = None
    _open: set[asyncio.StreamWriter] = field(default_factory=set)

    async def on(self) -> None:
        if not self.here:
            self._keep_port()
        self._server = await asyncio.start_server(self._joined, "127.0.0.1", self.here, reuse_port=True)

    def _keep_port(self) -> None:
        """By a socket that is bound and never listens, so that nobody else gets the port while we are away."""
        self._kept = socket.socket()
        self._kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._kept.bind(("127.0.0.1", 0))
        self.here = self._kept.getsockname()[1]

    async def off(self) -> None:
        """New connections are refused, and open ones cut."""
        if self._server is not None:
            self._server.close()
        for writer in list(self._open):
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _joined(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(self.host, self.port)
        self._open |= {writer, there_writer}
        await asyncio.gather(self._pour(reader, there_writer), self._pour(there_reader, writer))
        self._open -= {writer, there_writer}

    async def _pour(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                if not self.hangs:
                    sink.write(data)
                    await sink.drain()
        sink.close()


@asynccontextmanager
async def proxy(host: str, port: int) -> AsyncIterator[Proxy]:
    made = Proxy(host, port)
    await made.on()
    try:
        yield made
    finally:
        await made.off()
        if made._kept is not None:
            made._kept.close()
