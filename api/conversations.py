"""One WebSocket's conversation in graphql-transport-ws: its messages, its operations, and its end.

Strict: what the protocol does not have closes the socket, with a reason that quotes nothing of the client's. Every task
that a conversation starts has ended, cleanup and all, before the conversation has. It holds no unit and no connection
to the database; `execute` and `subscribe` own theirs.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson
import uuid_utils
from graphql import ExecutionResult, GraphQLError
from starlette.websockets import WebSocket, WebSocketDisconnect

from api import messages
from api.buckets import Buckets, Draw, Quota
from api.documents import Documents, Prepared, RequestRefused, without_suggestions
from api.errors import is_nobodys, log_internal, refusal
from api.http import Execute
from api.messages import Ended
from api.rates import Caller, RateLimited, Rates
from api.requests import GraphQLRequest
from api.visits import Visits, codes_of, know, prepare
from crypto.errors import CofferError
from telemetry.traces import note, traceparent
from tenants.origins import Origin

Prove = Callable[[Sequence[str]], Awaitable[tuple[Any, float] | None]]
Subscribe = Callable[[Prepared, GraphQLRequest, Any], AsyncIterator[ExecutionResult]]

_SHUT_OUT = {"UNAUTHENTICATED", "TENANT_SUSPENDED"}
_FAREWELL_SECONDS = 1.0
_REFUSALS = Quota("refusals", 100, 1.0)  # of a socket, for being over a limit; then it is closed


@dataclass(frozen=True, slots=True)
class SocketLimits:
    """How many there may be at once: `sockets` a process, and of these by whom; `operations` a socket.

    A message is as long as HTTP's body at most. Without a token a socket ends after `anonymous_seconds`.
    """

    sockets: int = 1_000
    of_tenant: int = 250
    of_member: int = 20
    anonymous: int = 100
    uninitialised: int = 500
    operations: int = 100
    init_seconds: float = 3.0
    anonymous_seconds: float = 30.0
    ping_seconds: float = 20.0
    send_seconds: float = 5.0


@dataclass(frozen=True, slots=True)
class Answers:
    """What a conversation asks of the house; see `GraphQLSocket`."""

    documents: Documents
    identify: Prove
    execute: Execute
    subscribe: Subscribe
    may_introspect: Callable[[Any], bool]
    visits: Visits
    rates: Rates


class Conversation:
    """`admits` tells whether the process takes one more socket of this credential, or of nobody's.

    `abort` drops the connection together with what is still to be sent, if the server can do that.
    """

    def __init__(
        self,
        websocket: WebSocket,
        answers: Answers,
        limits: SocketLimits,
        admits: Callable[[Any], bool],
        abort: Callable[[], object] | None,
    ) -> None:
        self.finished = asyncio.Event()
        self.credential: Any = None
        self.is_acknowledged = False
        self._websocket, self._answers, self._limits = websocket, answers, limits
        self._admits, self._abort = admits, abort
        self._ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        self._running: set[asyncio.Task[None]] = set()  # operations, with those that are leaving
        self._leaving: set[asyncio.Task[None]] = set()  # cancelled by the client, and cleaning up
        self._operations: dict[str, asyncio.Task[None]] = {}
        self._turn = asyncio.Lock()
        self._heard = asyncio.Event()
        self._is_initialised = False
        self._refusals = Buckets(most=1)

    async def run(self) -> None:
        """Talk on an accepted socket until either side ends it."""
        try:
            self._start(self._await_init())
            self._start(self._read())
            ended = await self._ended
        finally:
            await self._stop()
        await self._part(ended)

    def end(self, code: int | None, reason: str = "") -> None:
        """Let `run` close the socket and return; the first end counts."""
        if not self._ended.done():
            self._ended.set_result(Ended(code, reason))

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._running.discard(task)
        self._leaving.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Ended):
            self.end(error.code, error.reason)
        elif error is not None:
            log_internal(error, str(uuid_utils.uuid7()))
            self.end(1011, "Internal error")

    async def _stop(self) -> None:
        # Not a TaskGroup: it cancels those who leave once more, and so cuts off their cleanup.
        for task in self._tasks - self._leaving:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _part(self, ended: Ended) -> None:
        patience = self._limits.send_seconds
        try:
            if ended.code is not None:
                async with asyncio.timeout(_FAREWELL_SECONDS):
                    await self._websocket.close(ended.code, ended.reason)
        except TimeoutError:
            patience = 0
        except (WebSocketDisconnect, RuntimeError):
            pass  # closed meanwhile
        if self._abort is not None:
            # The server sends what it holds before it closes, and to a peer that reads nothing it does so for ever.
            asyncio.get_running_loop().call_later(patience, self._abort)

    async def _read(self) -> None:
        while True:
            event = await self._websocket.receive()
            if event["type"] == "websocket.disconnect":
                raise Ended(None)
            self._heard.set()
            await self._hear(messages.read(event, self._answers.documents.limits))

    async def _hear(self, message: Mapping[str, Any]) -> None:
        kind = message.get("type")
        if kind == "subscribe":
            await self._subscribe(message)
        elif kind == "complete":
            self._complete(messages.id_of(message))
        elif kind == "connection_init":
            await self._initialise(messages.authorizations(message))
        elif kind in ("ping", "pong"):
            if kind == "ping":
                await self._send({"type": "pong"})
        else:
            raise Ended(4400, "Messages of that type are not known.")

    async def _await_init(self) -> None:
        await asyncio.sleep(self._limits.init_seconds)
        if not self._is_initialised:
            raise Ended(4408, "Connection initialisation timeout")

    async def _initialise(self, authorizations: list[str]) -> None:
        if self._is_initialised:
            raise Ended(4429, "Too many initialisation requests")
        self._is_initialised = True
        proof = await self._proof([*self._websocket.headers.getlist("authorization"), *authorizations])
        credential, expires = (None, None) if proof is None else proof
        if not self._admits(credential):
            raise Ended(1013, "Too many sockets are open; try again later.")
        self.credential, self.is_acknowledged = credential, True  # with no await in between, so that it counts
        self._start(self._leave_after_a_while() if expires is None else self._expire(expires))
        await self._send({"type": "connection_ack"})
        self._start(self._keep_alive())

    async def _proof(self, authorizations: list[str]) -> tuple[Any, float] | None:
        if len(authorizations) > 1:
            raise Ended(4400, "Authorization is given twice.")
        try:
            return await self._answers.identify(authorizations)
        except CofferError as error:
            self._count_guess()
            # Clients come back after 1013.
            raise Ended(1013, "Try again later") if error.retryable else Ended(4403, "Forbidden") from None

    def _count_guess(self) -> None:
        rates = self._answers.rates
        try:
            rates.admit(rates.caller(None, self._websocket.client))
        except RateLimited:
            raise Ended(4429, "Too many requests") from None

    async def _expire(self, expires: float) -> None:
        await asyncio.sleep(expires - time.time())
        raise Ended(4403, "The token has expired.")

    async def _leave_after_a_while(self) -> None:
        await asyncio.sleep(self._limits.anonymous_seconds)
        raise Ended(4401, "Without a token a socket is for a short visit.")

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(self._limits.ping_seconds)
            self._heard.clear()
            await self._send({"type": "ping"})
            try:
                async with asyncio.timeout(self._limits.ping_seconds):
                    await self._heard.wait()
            except TimeoutError:
                raise Ended(1001, "A ping was not answered.") from None

    async def _send(self, message: Mapping[str, Any]) -> None:
        """Wait until the server takes the message: each operation holds one at most, and goes on only then."""
        text = orjson.dumps(message).decode()
        try:
            async with self._turn, asyncio.timeout(self._limits.send_seconds):
                await self._websocket.send_text(text)
        except TimeoutError:
            raise Ended(1013, "Messages are not read in time.") from None
        except (WebSocketDisconnect, RuntimeError):  # RuntimeError where the server closed it on its own
            raise Ended(None) from None

    async def _subscribe(self, message: Mapping[str, Any]) -> None:
        if not self.is_acknowledged:
            raise Ended(4401, "Unauthorized")
        name = messages.id_of(message)
        if name in self._operations:
            raise Ended(4409, "Subscriber for this id already exists")
        request_id = str(uuid_utils.uuid7())
        try:
            self._answers.rates.admit(self._caller())
            request = messages.request_of(message, request_id, self._answers.documents)
            if len(self._running) >= self._limits.operations:
                most = self._limits.operations
                raise RequestRefused(refusal("RATE_LIMITED", f"A socket runs at most {most} operations at once."))
        except RequestRefused as refused:
            await self._send({"id": name, **messages.errors(refused.errors, request_id)})
            self._bear(refused)
            return
        task = self._operations[name] = self._start(self._visit(name, request))
        self._running.add(task)

    def _caller(self) -> Caller:
        return self._answers.rates.caller(self.credential, self._websocket.client)

    def _bear(self, refused: RequestRefused) -> None:
        if isinstance(refused, RateLimited) and self._refusals.take([Draw(_REFUSALS, "", 1)])[0].wait:
            raise Ended(4429, "Too many requests")

    async def _visit(self, name: str, request: GraphQLRequest) -> None:
        with self._answers.visits.visit("operation", method=request.method):
            know(request_id=request.request_id, tenant=getattr(self.credential, "tenant", None))
            origin = Origin(request.request_id, request.origin.purpose, traceparent() or request.origin.trace)
            await self._operate(name, replace(request, origin=origin))

    def _complete(self, name: str) -> None:
        task = self._operations.pop(name, None)
        if task is not None:  # else it was complete by itself when the message was on its way
            task.cancel()
            self._leaving.add(task)

    async def _operate(self, name: str, request: GraphQLRequest) -> None:
        is_shut_out, limited = False, None
        try:
            await self._answer(name, request)
            last: dict[str, Any] = {"type": "complete"}
        except Ended:
            raise
        except RequestRefused as refused:
            limited, last = refused, messages.errors(refused.errors, request.request_id)
        except CofferError as error:
            last = messages.errors([GraphQLError(error.message, original_error=error)], request.request_id)
            is_shut_out = error.code in _SHUT_OUT
        except Exception as error:  # the edge, as in HTTP
            log_internal(error, request.request_id)
            last = messages.broken(request.request_id)
        if last["type"] == "error":
            note(codes=codes_of(last["payload"]))
        # Before the message, since whoever got it may use the id again.
        self._operations.pop(name, None)
        await self._send({"id": name, **last})
        if is_shut_out:
            raise Ended(4403, "Forbidden")
        if limited is not None:
            self._bear(limited)

    async def _answer(self, name: str, request: GraphQLRequest) -> None:
        answers, viewer = self._answers, self.credential
        may_introspect = answers.may_introspect(viewer)
        try:
            prepared = prepare(answers.documents, request, may_introspect=may_introspect)
        except RequestRefused:
            answers.rates.charge_read(self._caller(), len(request.query))
            raise
        answers.rates.charge_read(self._caller(), prepared.read)
        await answers.rates.charge(self._caller(), prepared.cost)
        results = answers.subscribe if prepared.kind == "subscription" else self._executed
        iterator = results(prepared, request, viewer)
        try:
            async for result in iterator:
                self._shut_out(result.errors)
                if result.errors and not may_introspect:
                    result.errors = [without_suggestions(error) for error in result.errors]
                _refuse_what_never_ran(result)
                payload = messages.payload_of(result, request.request_id)
                note(codes=codes_of(payload.get("errors", ())))
                await self._send({"id": name, "type": "next", "payload": payload})
        except CofferError as error:
            self._shut_out([GraphQLError(error.message, original_error=error)])
            raise
        finally:
            if hasattr(iterator, "aclose"):
                await iterator.aclose()

    def _shut_out(self, errors: Sequence[GraphQLError] | None) -> None:
        if any(map(is_nobodys, errors or ())):
            self._answers.rates.shut_out(self.credential)

    async def _executed(
        self, prepared: Prepared, request: GraphQLRequest, viewer: Any
    ) -> AsyncIterator[ExecutionResult]:
        yield await self._answers.execute(prepared, request, viewer)


def _refuse_what_never_ran(result: ExecutionResult) -> None:
    """Errors without a path were met before anything ran: they are the request's, as in HTTP."""
    if result.data is None and result.errors and not any(error.path for error in result.errors):
        raise RequestRefused(*result.errors)
