"""GraphQL over WebSocket, the door: who may open a socket, and how many; what is said over it is a conversation.

Speaks the sub-protocol graphql-transport-ws (https://github.com/enisdenjo/graphql-ws, PROTOCOL.md). CORS does not guard
WebSockets, so the Origin is checked here; and credentials never come from cookies, so a forged socket has none.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from api.conversations import Answers, Conversation, Prove, SocketLimits, Subscribe
from api.documents import Documents
from api.http import Execute
from api.rates import Rates
from api.visits import Visits

PROTOCOL = "graphql-transport-ws"


class GraphQLSocket:
    """An ASGI application for a `WebSocketRoute`.

    `identify` gets the Authorization values that were given, one or none; it answers with the credential and the Unix
    second it ends at, or None for a caller without one, or raises a CofferError. `execute` and `subscribe` may raise a
    CofferError, too; `UNAUTHENTICATED` and `TENANT_SUSPENDED` close the socket. `origins` are allowed beside our own.
    """

    def __init__(
        self,
        documents: Documents,
        *,
        identify: Prove,
        execute: Execute,
        subscribe: Subscribe,
        may_introspect: Callable[[Any], bool],
        origins: Sequence[str] = (),
        limits: SocketLimits,
        visits: Visits | None = None,
        rates: Rates | None = None,
    ) -> None:
        self._answers = Answers(
            documents, identify, execute, subscribe, may_introspect, visits or Visits(), rates or Rates(percent=0)
        )
        self._origins = frozenset(origin.lower() for origin in origins)
        self._limits = limits
        self._open: set[Conversation] = set()
        self._is_closing = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        websocket = WebSocket(scope, receive, send)
        await websocket.receive()  # `websocket.connect`, as ASGI has it
        if self._is_foreign(websocket):
            await websocket.close()  # before the accept, so the upgrade is answered with 403
        elif self._is_closing or self._is_full():
            await _deny(websocket, receive)
        elif PROTOCOL not in scope.get("subprotocols", ()):
            await websocket.accept()
            await websocket.close(4406, "Subprotocol not acceptable")
        else:
            await self._converse(websocket, receive)

    @property
    def open(self) -> int:
        """How many sockets are open now."""
        return len(self._open)

    async def close(self) -> None:
        """Close every socket with 1001, refuse new ones, and return once nothing of them runs."""
        self._is_closing = True
        conversations = [*self._open]
        for conversation in conversations:
            conversation.end(1001, "Going away")
        for conversation in conversations:
            await conversation.finished.wait()

    async def _converse(self, websocket: WebSocket, receive: Receive) -> None:
        # `receive` is uvicorn's own method; what Starlette's middleware hands on as `send` is not.
        transport = getattr(getattr(receive, "__self__", None), "transport", None)
        conversation = Conversation(
            websocket, self._answers, self._limits, self._admits, getattr(transport, "abort", None)
        )
        self._open.add(conversation)
        try:
            await websocket.accept(subprotocol=PROTOCOL)
            await conversation.run()
        finally:
            self._open.discard(conversation)
            conversation.finished.set()

    def _is_full(self) -> bool:
        limits, uninitialised = self._limits, sum(not each.is_acknowledged for each in self._open)
        return len(self._open) >= limits.sockets or uninitialised >= limits.uninitialised

    def _admits(self, credential: Any) -> bool:
        """Nobody takes all sockets: not one member or tenant, and not those of whom nothing is known."""
        limits, known = self._limits, [each.credential for each in self._open if each.is_acknowledged]
        if credential is None:
            return known.count(None) < limits.anonymous
        tenants = [_tenant(each) for each in known if each is not None]
        return known.count(credential) < limits.of_member and tenants.count(_tenant(credential)) < limits.of_tenant

    def _is_foreign(self, websocket: WebSocket) -> bool:
        """Clients that are not browsers send no Origin, and could send any."""
        origins = websocket.headers.getlist("origin")
        scheme = "https" if websocket.scope["scheme"] == "wss" else "http"
        own = f"{scheme}://{websocket.headers.get('host', '')}".lower()
        return len(origins) > 1 or any(each.lower() not in (own, *self._origins) for each in origins)


def _tenant(credential: Any) -> Any:
    return getattr(credential, "tenant", None)


async def _deny(websocket: WebSocket, receive: Receive) -> None:
    """Answer the upgrade with a problem (RFC 9457); a server that can't answers 403 by itself."""
    if "websocket.http.response" not in websocket.scope.get("extensions", {}):
        await websocket.close()
        return
    message = "This process holds no more sockets; try again shortly."
    body = {"type": "about:blank", "title": message, "status": 503, "code": "TOO_MANY_SOCKETS"}
    answer = JSONResponse(body, 503, {"retry-after": "1"}, media_type="application/problem+json")
    await websocket.send_denial_response(answer)
    with suppress(TimeoutError):
        async with asyncio.timeout(1):
            # uvicorn logs an error of ours if we return before the connection is gone, which is its second disconnect.
            await receive()
            await receive()
