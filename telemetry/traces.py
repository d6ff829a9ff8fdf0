"""Where a request or a job is on its way, and how long each stop took; exported as OpenTelemetry spans if asked to.

Nothing here is global: whoever begins a journey brings its tracing, and outside of a journey every call does nothing.
What is told of a stop are ids, counts and codes by type; an error is told by its code, never by its message.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import Enum
from time import perf_counter
from types import TracebackType
from typing import Any
from uuid import UUID

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, StatusCode, TraceFlags, Tracer

_TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.:-]{0,63}")


@dataclass(slots=True)
class Journey:
    """One request or job. `facts` are what `note` was told.

    `seconds` by stop: those of several visits added up, and without those of the stops inside of it.
    """

    tracer: Tracer | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    root: Span | None = None

    @property
    def trace_id(self) -> str | None:
        return None if self.root is None else f"{self.root.get_span_context().trace_id:032x}"


_now: ContextVar[Journey | None] = ContextVar("journey", default=None)
_stop: "ContextVar[_Stop | None]" = ContextVar("stop", default=None)
_NOWHERE: AbstractContextManager[None] = nullcontext()


def span(name: str, **attributes: object) -> AbstractContextManager[None]:
    """A stop of the present journey; must end in the task that began it."""
    journey = _now.get()
    return _NOWHERE if journey is None else _Stop(journey, name, attributes)


def note(**facts: Any) -> bool:
    """Tell what became known about the present journey: ids, counts and codes. False: there is none."""
    journey = _now.get()
    if journey is None:
        return False
    journey.facts.update(facts)
    if journey.root is not None:
        journey.root.set_attributes(harmless(facts))
    return True


def traceparent() -> str | None:
    """The present span as W3C Trace Context has it (https://www.w3.org/TR/trace-context/), for what follows from it."""
    journey = _now.get()
    context = trace.get_current_span().get_span_context()
    if journey is None or journey.tracer is None or not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"


def harmless(attributes: Mapping[str, object]) -> dict[str, Any]:
    """Numbers, UUIDs and codes; whatever else stood there, a `Secret` or `Sealed` among it, is dropped by its type."""
    return {name: told for name, value in attributes.items() if (told := _told(value)) is not None}


def _told(value: object) -> Any:
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, UUID):
        return str(value)
    if type(value) in (bool, int, float):
        return value
    if type(value) is str and (_CODE.fullmatch(value) or _UUID.fullmatch(value)):
        return value
    if type(value) in (list, tuple):
        codes = [each for each in value if type(each) is str and _CODE.fullmatch(each)]  # type: ignore[attr-defined]
        return codes or None
    return None


class Tracing:
    """Sends spans to an OTLP/HTTP collector, as ``https://collector:4318``; None: nothing is made or sent."""

    def __init__(self, endpoint: str | None = None, *, ca_file: str | None = None, service: str = "coffer") -> None:
        self._provider: Any = None
        self.tracer: Tracer | None = None
        if endpoint is not None:
            self._provider = _provider(endpoint, ca_file, service)
            self.tracer = self._provider.get_tracer("coffer")

    @contextmanager
    def journey(
        self, name: str, *, continues: str | None = None, follows: str | None = None, **attributes: object
    ) -> Iterator[Journey]:
        """`continues` and `follows` are traceparents: of the caller's span, and of one that this is only linked to."""
        journey = Journey(self.tracer)
        token, _ = _now.set(journey), _stop.set(None)
        try:
            with self._root(name, continues, follows, attributes) as journey.root:
                try:
                    yield journey
                except BaseException as error:
                    _fail(journey.root, error)
                    raise
        finally:
            _now.reset(token)

    def _root(
        self, name: str, continues: str | None, follows: str | None, attributes: Mapping[str, object]
    ) -> AbstractContextManager[Span | None]:
        if self.tracer is None:
            return nullcontext()
        parent, link = _remote(continues), _remote(follows)
        return self.tracer.start_as_current_span(
            name,
            trace.set_span_in_context(NonRecordingSpan(parent), Context()) if parent else Context(),
            SpanKind.CONSUMER if link else SpanKind.SERVER,
            harmless(attributes),
            [Link(link)] if link else None,
            record_exception=False,
            set_status_on_exception=False,
        )

    def close(self) -> None:
        """Send what is waiting; blocks for some seconds if the collector is away."""
        if self._provider is not None:
            self._provider.shutdown()


class _Stop:
    __slots__ = ("_above", "_attributes", "_journey", "_name", "_since", "_span", "inside")

    def __init__(self, journey: Journey, name: str, attributes: Mapping[str, object]) -> None:
        self._journey, self._name, self._attributes = journey, name, attributes
        self._span: AbstractContextManager[Span] | None = None
        self.inside = 0.0

    def __enter__(self) -> None:
        self._above = _stop.get()
        _stop.set(self)
        tracer = self._journey.tracer
        if tracer is not None:
            self._span = tracer.start_as_current_span(
                self._name,
                attributes=harmless(self._attributes),
                record_exception=False,
                set_status_on_exception=False,
            )
            self._span.__enter__()
        self._since = perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _stop.set(self._above)
        took, seconds = perf_counter() - self._since, self._journey.seconds
        if self._above is not None:
            self._above.inside += took
        # Stops of siblings that ran at once can add up to more than took.
        seconds[self._name] = seconds.get(self._name, 0.0) + max(took - self.inside, 0.0)
        if self._span is not None:
            if error is not None:
                _fail(trace.get_current_span(), error)
            self._span.__exit__(kind, error, traceback)


def _fail(span: Span | None, error: BaseException) -> None:
    if span is not None and isinstance(error, Exception):
        span.set_status(StatusCode.ERROR)
        span.set_attribute("error.type", str(getattr(type(error), "code", type(error).__name__)))


def _remote(text: str | None) -> SpanContext | None:
    found = _TRACEPARENT.fullmatch(text or "")
    if found is None:
        return None
    trace_id, span_id, flags = (int(part, 16) for part in found.groups())
    return SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags & TraceFlags.SAMPLED))


def _provider(endpoint: str, ca_file: str | None, service: str) -> Any:
    # Here, because the SDK is half a second of imports that nobody needs who exports nothing.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    # A bare resource: the default one tells of the process, its command line and the environment.
    provider = TracerProvider(resource=Resource({"service.name": service}), shutdown_on_exit=False)
    exporter = OTLPSpanExporter(f"{endpoint}/v1/traces", certificate_file=ca_file, timeout=5)
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=1_000))
    return provider
