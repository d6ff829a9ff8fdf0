"""GraphQL over HTTP, strictly: what is not a well-formed request is refused before anything of ours runs.

Follows the draft at https://graphql.github.io/graphql-over-http. Credentials come from the Authorization header only,
never from cookies, so a forged cross-site request has none; POST takes JSON only, which browsers preflight; a GET runs
queries only, and without an Authorization header, which browsers preflight too, it reaches what is public.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson
from graphql import ExecutionResult, GraphQLError, GraphQLFormattedError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.documents import Documents, Prepared, RequestRefused, without_suggestions
from api.errors import is_nobodys, log_internal, refusal, to_graphql
from api.rates import RateLimited, Rates
from api.requests import LEGACY, GraphQLRequest, HTTPRefused, negotiate, read, refuse, request_id_of
from api.visits import codes_of, know, prepare
from crypto.errors import CofferError
from telemetry.traces import note, span

# Of request errors in the modern media type; any other code is 400, or 503 where trying again may help.
STATUS = {"INTERNAL": 500, "UNAUTHENTICATED": 401, "FORBIDDEN": 403, "RATE_LIMITED": 429}


Execute = Callable[[Prepared, GraphQLRequest, Any], Awaitable[ExecutionResult]]
Identify = Callable[[Request], Awaitable[Any]]


class GraphQLEndpoint:
    """An ASGI application for one path; `identify` may raise any CofferError, UNAUTHENTICATED becomes 401.

    `execute` gets what `identify` returned and answers with a result. A CofferError it raises is a request error, but
    for UNAUTHENTICATED, which becomes 401 here too.
    """

    def __init__(
        self,
        documents: Documents,
        execute: Execute,
        identify: Identify,
        may_introspect: Callable[[Any], bool],
        rates: Rates | None = None,
    ) -> None:
        """`rates` of None: nobody is limited."""
        self._documents = documents
        self._execute = execute
        self._identify = identify
        self._may_introspect = may_introspect
        self._rates = rates or Rates(percent=0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        reply = _Reply(request_id_of(request))
        know(request_id=reply.request_id)
        response = await self._answer(request, reply)
        await response(scope, receive, send)

    async def _answer(self, request: Request, reply: "_Reply") -> Response:
        try:
            reply.media_type = negotiate(request)
            return await self._serve(request, reply)
        except HTTPRefused as refused:
            return reply.refuse(refused)
        except RateLimited as limited:
            return reply.refuse(HTTPRefused(429, limited.errors[0], limited.headers))
        except RequestRefused as refused:
            return reply.result(ExecutionResult(None, refused.errors))
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        except Exception as error:  # the edge: a bug of ours tells the client its request id and no more
            log_internal(error, reply.request_id)
            return reply.broken()

    async def _serve(self, request: Request, reply: "_Reply") -> Response:
        try:
            sent, viewer = await self._known(request, reply)
        except HTTPRefused:  # counted, so that guessing tokens is slow
            reply.headers = self._rates.admit(self._rates.caller(None, request.client))
            raise
        caller = self._rates.caller(viewer, request.client)
        reply.headers = self._rates.admit(caller)
        may_introspect = self._may_introspect(viewer)
        try:
            prepared = prepare(self._documents, sent, may_introspect=may_introspect)
        except RequestRefused:
            self._rates.charge_read(caller, len(sent.query))
            raise
        self._rates.charge_read(caller, prepared.read)
        _check_kind(prepared, sent.method)
        reply.headers = await self._rates.charge(caller, prepared.cost)
        result = await self._executed(request, prepared, sent, viewer)
        if result.errors and not may_introspect:
            result.errors = [without_suggestions(error) for error in result.errors]
        return reply.result(result)

    async def _known(self, request: Request, reply: "_Reply") -> tuple[GraphQLRequest, Any]:
        try:
            sent = await read(request, reply.request_id, self._documents)
        except RequestRefused:  # a persisted query that nobody sent yet; it counts for whoever asks for it
            caller = self._rates.caller(await self._identified(request), request.client)
            reply.headers = self._rates.admit(caller)
            raise
        return sent, await self._identified(request)

    async def _identified(self, request: Request) -> Any:
        try:
            with span("identify"):
                viewer = await self._identify(request)
        except CofferError as error:
            raise _refused(error, request) from error
        know(tenant=getattr(viewer, "tenant", None))
        return viewer

    async def _executed(
        self, request: Request, prepared: Prepared, sent: GraphQLRequest, viewer: Any
    ) -> ExecutionResult:
        try:
            result = await self._execute(prepared, sent, viewer)
        except CofferError as error:
            if error.code == "UNAUTHENTICATED":  # only the unit tells that whom a good token names is gone
                self._rates.shut_out(viewer)
                raise _refused(error, request) from error
            return ExecutionResult(None, [_located(error)])
        if any(map(is_nobodys, result.errors or ())):
            self._rates.shut_out(viewer)
        return result


def _located(error: CofferError) -> GraphQLError:
    return GraphQLError(error.message, original_error=error)


def _refused(error: CofferError, request: Request) -> HTTPRefused:
    return HTTPRefused(_status_of(error.code, error.retryable), _located(error), _challenge(error, request))


def _challenge(error: CofferError, request: Request) -> dict[str, str]:
    """RFC 6750, section 3: a request without a credential is told of no error."""
    if error.code != "UNAUTHENTICATED":
        return {}
    return {"www-authenticate": 'Bearer error="invalid_token"' if "authorization" in request.headers else "Bearer"}


def _status_of(code: Any, retryable: bool) -> int:
    return STATUS.get(code, 503 if retryable else 400)


def _check_kind(prepared: Prepared, method: str) -> None:
    if prepared.kind == "subscription":
        raise RequestRefused(refusal("SUBSCRIPTION_OVER_HTTP", "Subscriptions run over the WebSocket."))
    if prepared.kind == "mutation" and method == "GET":
        refuse(405, "METHOD_NOT_ALLOWED", "A mutation is sent by POST.", {"allow": "POST"})


class _Reply:
    """Renders every answer of one request; legacy until a media type was negotiated."""

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self.media_type = LEGACY
        self.headers: Mapping[str, str] = {}  # what the caller may still ask for

    def result(self, result: ExecutionResult) -> Response:
        errors = [to_graphql(error, self.request_id) for error in result.errors or ()]
        # An error with a path was met while running, so `data` is a result even where it is null.
        ran = result.data is not None or any("path" in error for error in errors)
        body = {
            **({"errors": errors} if errors else {}),
            **({"data": result.data} if ran or not errors else {}),
            **({"extensions": result.extensions} if result.extensions else {}),
        }
        status = 200 if result.data is not None or not errors else self._status(errors, ran)
        return self._send(status, body)

    def refuse(self, refused: HTTPRefused) -> Response:
        return self._send(refused.status, {"errors": [to_graphql(refused.error, self.request_id)]}, refused.headers)

    def broken(self) -> Response:
        extensions = {"code": "INTERNAL", "requestId": self.request_id}
        return self._send(500, {"errors": [{"message": "Internal error", "extensions": extensions}]})

    def _status(self, errors: list[GraphQLFormattedError], ran: bool) -> int:
        if self.media_type == LEGACY:
            return 200
        if any(error["extensions"].get("retryable") for error in errors):
            return 503
        return 200 if ran else _status_of(errors[0]["extensions"]["code"], retryable=False)

    def _send(self, status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
        note(codes=codes_of(body.get("errors") or ()))
        return Response(
            orjson.dumps(body),
            status,
            {
                "content-type": f"{self.media_type}; charset=utf-8",
                "cache-control": "no-store",
                "vary": "Accept",
                "x-content-type-options": "nosniff",
                "x-request-id": self.request_id,
                **({"retry-after": "1"} if status == 503 else {}),
                **self.headers,
                **(headers or {}),
            },
        )
