"""How Coffer runs uvicorn: sockets are told goodbye before the server hangs up, and nothing is logged by it."""

import socket

import uvicorn

from api.app import Api
from api.limits import Limits


class Server(uvicorn.Server):
    """`goodbye` is how many seconds running requests get to end in."""

    def __init__(self, api: Api, *, goodbye: int = 30) -> None:
        super().__init__(
            uvicorn.Config(
                api.app,
                access_log=False,
                log_config=None,
                server_header=False,
                timeout_graceful_shutdown=goodbye,
                timeout_keep_alive=65,  # longer than proxies and clients keep theirs, or we hang up on a request
                ws_max_size=Limits().body_bytes,
                ws_per_message_deflate=False,  # its state costs memory for each socket
                ws_ping_interval=None,  # the protocol has pings of its own
            )
        )
        self._api = api

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._api.socket.close()  # before uvicorn closes them, which it does without 1001
        await super().shutdown(sockets)
