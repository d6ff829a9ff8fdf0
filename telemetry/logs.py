"""What the log may hold: one JSON object a line, out of which values are dropped by their type.

Our own events and those of the libraries take the same way. Libraries put values into their messages, so of theirs the
template is kept and its arguments are not; and an exception is told by class, code and places, never by its message.
"""

import linecache
import logging
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from types import TracebackType
from typing import Any, TextIO
from uuid import UUID

import orjson
import structlog
from structlog.typing import EventDict, WrappedLogger

from crypto.errors import CofferError
from crypto.values import Sealed, Secret
from tenants.documents import Document

_DROPPED = (Secret, Sealed, Document)
_DEEPEST = 8
_MOST_FRAMES = 30
# Whatever the level: below these, the libraries tell of statements, parameters, headers and bodies.
_TRAPS = (
    *("asyncio", "dramatiq", "graphql", "httpcore", "httpx", "hvac", "opentelemetry", "pika", "redis", "requests"),
    *("sqlalchemy", "sqlalchemy.engine", "sqlalchemy.engine.Engine", "sqlalchemy.pool", "strawberry", "urllib3"),
    *("uvicorn", "websockets"),
)


def configure(level: str, out: TextIO | None = None) -> None:
    """For the whole process; `out` is standard output unless given."""
    stream = sys.stdout if out is None else out
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, *PROCESSORS],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    _route_libraries()
    _route_what_nobody_caught()


def without_values(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Keep plain data; what may hold a value is dropped wherever it stands, and of the rest its type is told."""
    return {name: told for name, value in event.items() if (told := _plain(value, _DEEPEST)) is not _DROP}


def with_places(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """`exc_info`, as structlog and the standard library take it, becomes classes and places."""
    given = event.pop("exc_info", None)
    error = given[1] if isinstance(given, tuple) else sys.exc_info()[1] if given is True else given
    if isinstance(error, BaseException):
        event["exceptions"] = [told(each) for each in chain(error)]
        event["frames"] = places(error)
    return event


def told(error: BaseException) -> str:
    """Class and, for one of ours, code. The message stays here: libraries put parameters into theirs."""
    kind = type(error)
    code = f" {error.code}" if isinstance(error, CofferError) else ""
    return f"{kind.__module__}.{kind.__qualname__}{code}"


def chain(error: BaseException) -> Iterator[BaseException]:
    """The error, those of its group, and what it came from; a chain can be a ring."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting and len(seen) < 16:
        current = waiting.pop(0)
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        waiting += getattr(current, "exceptions", ())
        waiting.append(current.__cause__ or current.__context__)


def places(error: BaseException) -> list[str]:
    frames = traceback.extract_tb(error.__traceback__)[-_MOST_FRAMES:]
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]


_DROP = object()


def _plain(value: Any, depth: int) -> Any:
    if value is None or type(value) in (str, bool, int, float):
        return value
    if isinstance(value, _DROPPED):
        return _DROP
    if isinstance(value, BaseException):
        return told(value)
    if isinstance(value, Enum):
        return _plain(value.value, depth)
    if isinstance(value, UUID | date | time | timedelta | Decimal):
        return str(value)
    return _inside(value, depth - 1) if depth else f"<{type(value).__name__}>"


def _inside(value: Any, depth: int) -> Any:
    if isinstance(value, Mapping):
        return {
            key: told
            for name, each in value.items()
            if isinstance(key := _plain(name, 0), str | int) and (told := _plain(each, depth)) is not _DROP
        }
    if isinstance(value, list | tuple | AbstractSet):
        return [told for each in value if (told := _plain(each, depth)) is not _DROP]
    if is_dataclass(value) and not isinstance(value, type):
        shown = ((each.name, getattr(value, each.name, None)) for each in fields(value) if each.repr)
        return {name: told for name, each in shown if (told := _plain(each, depth)) is not _DROP}
    return f"<{type(value).__name__}>"  # bytes among them: never the repr of what we don't know


def _json(event: Any, **_: Any) -> str:
    # A lone surrogate or an integer of 100 digits must not cost us the line.
    try:
        return orjson.dumps(event, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:
        return orjson.dumps({"event": "unwritable", "level": str(event.get("level"))}).decode()


PROCESSORS: list[Any] = [
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    with_places,
    without_values,
    structlog.processors.JSONRenderer(serializer=_json),
]


class _Routed(logging.Handler):
    """Takes the records of the standard library's loggers to ours."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            logger = structlog.get_logger()
            tell = getattr(logger, record.levelname.lower(), logger.warning)
            place = f"{record.pathname}:{record.lineno}"
            tell(_message(record), logger=record.name, place=place, exc_info=record.exc_info)
        except Exception:  # an edge: no line of a log is worth the request that wrote it
            self.handleError(record)


def _message(record: logging.LogRecord) -> str:
    """The template with its numbers filled in and its texts left out.

    One that was filled in before it came here does not stand in the source, and could say anything.
    """
    template = record.msg.strip() if isinstance(record.msg, str) else ""
    if not template or template not in "".join(linecache.getlines(record.pathname)):
        return "a message made of values"
    arguments = record.args if isinstance(record.args, tuple) else ()
    kept = tuple(each if type(each) in (int, float, bool) else "…" for each in arguments)
    try:
        return template % kept if kept else template
    except (TypeError, ValueError):
        return template


def _route_libraries() -> None:
    logging.getLogger().handlers = [_Routed()]
    for name in ("", "uvicorn.error", "uvicorn.access", *_TRAPS):
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("uvicorn.error", "uvicorn.access", *_TRAPS):
        logging.getLogger(name).handlers = []
        logging.getLogger(name).propagate = True
    logging.raiseExceptions = False  # the standard library prints a record it can't write, arguments and all


def _route_what_nobody_caught() -> None:
    def uncaught(kind: type[BaseException], error: BaseException, _traceback: TracebackType | None) -> None:
        if not issubclass(kind, KeyboardInterrupt):
            structlog.get_logger().critical("uncaught", exc_info=error)

    def warned(_text: Any, category: type[Warning], filename: str, line: int, *_: Any) -> None:
        structlog.get_logger().warning("warning", category=category.__name__, place=f"{filename}:{line}")

    sys.excepthook = uncaught
    threading.excepthook = lambda hooked: structlog.get_logger().error("thread ended", exc_info=hooked.exc_value)
    sys.unraisablehook = lambda hooked: structlog.get_logger().error("unraisable", exc_info=hooked.exc_value)
    warnings.showwarning = warned  # type: ignore[assignment]  # its text, the first argument, may be of any type
