"""What is told of each visit, be it an HTTP request or an operation on a socket: a line of the log, counts, a span.

Told are names of the schema, codes, ids and times. Names that a client chose are not: an operation may be called after
a person, and a hash of its text would let somebody try persons until one fits.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from time import perf_counter
from typing import Any

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.documents import Documents, Prepared
from api.requests import GraphQLRequest
from telemetry.metrics import Metrics
from telemetry.traces import Journey, Tracing, note, span

_log = structlog.get_logger(__name__)
_OTHER = "(other)"
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "WEBSOCKET"))
_QUIET = frozenset(("/livez", "/readyz"))


class Visits:
    """By itself it logs nothing and counts nothing, for tests of a single endpoint."""

    def __init__(self, tracing: Tracing | None = None, metrics: Metrics | None = None) -> None:
        self._tracing = tracing or Tracing()
        self._metrics = metrics

    @contextmanager
    def visit(self, name: str, *, method: str, path: str = "/graphql", trace: str | None = None) -> Iterator[Journey]:
        """`trace` is the traceparent that the client gave."""
        began = perf_counter()
        with self._tracing.journey(name, continues=trace) as journey:
            bound = structlog.contextvars.bind_contextvars(**({"trace": journey.trace_id} if journey.trace_id else {}))
            before = structlog.contextvars.get_contextvars().keys() - bound.keys()
            journey.facts = {"method": method if method in _METHODS else _OTHER, "path": path}
            try:
                yield journey
            finally:
                if self._metrics is not None:
                    self._tell(self._metrics, journey, perf_counter() - began)
                structlog.contextvars.unbind_contextvars(*structlog.contextvars.get_contextvars().keys() - before)

    def _tell(self, metrics: Metrics, journey: Journey, seconds: float) -> None:
        facts = journey.facts
        tell = _log.debug if facts["path"] in _QUIET else _log.info
        tell("request", **facts, ms=round(seconds * 1000, 1))
        if "request_id" in facts:
            metrics.request(facts.get("kind", "none"), facts.get("codes", ()), seconds, journey.seconds)


class Visited:
    """ASGI middleware around the whole application, so that nothing is answered without a line."""

    def __init__(self, app: ASGIApp, visits: Visits, paths: Collection[str]) -> None:
        self._app, self._visits, self._paths = app, visits, frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                note(status=message["status"])
            await send(message)

        # A path that is none of ours is the client's own text.
        path = scope["path"] if scope["path"] in self._paths else _OTHER
        trace = Headers(scope=scope).get("traceparent")
        with self._visits.visit("request", method=scope["method"], path=path, trace=trace):
            await self._app(scope, receive, sending)


def know(**facts: Any) -> None:
    """Have the rest of this visit's lines say this, too: its request and tenant."""
    told = {name: str(value) for name, value in facts.items() if value is not None}
    if note(**told):
        structlog.contextvars.bind_contextvars(**told)


def prepare(documents: Documents, sent: GraphQLRequest, *, may_introspect: bool) -> Prepared:
    """As `Documents.prepare`; notes what is asked for."""
    with span("prepare"):
        prepared = documents.prepare(sent.query, sent.operation_name, sent.variables, may_introspect=may_introspect)
    note(kind=prepared.kind, fields=_roots(prepared), shape=_shape(prepared.selected))
    return prepared


def codes_of(errors: Sequence[Mapping[str, Any]]) -> list[str]:
    return sorted({str(error["extensions"]["code"]) for error in errors})


def _roots(prepared: Prepared) -> list[str]:
    """The root fields as the schema has them, a page's worth at most."""
    root = f"{prepared.kind.capitalize()}."
    return sorted(name.removeprefix(root) for name in prepared.selected if name.startswith(root))[:20]


def _shape(selected: Collection[str]) -> str:
    """The same for operations that select the same fields of the schema, whatever they are called or given."""
    return sha256("\n".join(sorted(selected)).encode()).hexdigest()[:16]
