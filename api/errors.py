"""What a client may read of an error: things are named, values never."""

import re
import traceback
from collections.abc import Iterator
from typing import Any

import structlog
from graphql import GraphQLError, GraphQLFormattedError

from api.scalars import FORMS
from crypto.errors import CofferError

_log = structlog.get_logger(__name__)


def to_graphql(error: GraphQLError, request_id: str) -> GraphQLFormattedError:
    """Format an error for the client; `extensions` always has `code` and `requestId`.

    What no one meant for a client becomes "Internal error" and is logged by type and place alone.
    """
    message, extensions = _tell(error)
    if extensions["code"] == "INTERNAL":
        log_internal(_origin(error), request_id)
    formatted: GraphQLFormattedError = {"message": message, "extensions": {**extensions, "requestId": request_id}}
    if error.locations:
        formatted["locations"] = [location.formatted for location in error.locations]
    if error.path:
        formatted["path"] = error.path
    return formatted


def refusal(code: str, message: str) -> GraphQLError:
    """Make an error of the edge's own: both arguments are ours and hold nothing of the client's."""
    return GraphQLError(message, extensions={"code": code})


def is_nobodys(error: GraphQLError) -> bool:
    """Whether it says that the credential opens nothing: a good token may name who is gone."""
    return str(_tell(error)[1]["code"]) == "UNAUTHENTICATED"


def _tell(error: GraphQLError) -> tuple[str, dict[str, Any]]:
    origin = _origin(error)
    if isinstance(origin, CofferError):
        return origin.message, {"code": origin.code, **_again(origin)}
    if isinstance(origin, GraphQLError):
        if origin.extensions and "code" in origin.extensions:
            return origin.message, dict(origin.extensions)
        message = without_values(error.message)
        # In a field, a message we don't know may be a serializer that quotes the value it could not write.
        if error.path is None or message.startswith("Argument "):
            return message, {"code": "BAD_USER_INPUT"}
    return "Internal error", {"code": "INTERNAL"}


def _again(error: CofferError) -> dict[str, Any]:
    wait = {} if error.retry_after is None else {"retryAfter": error.retry_after}
    return {"retryable": True, **wait} if error.retryable else {}


def _origin(error: GraphQLError) -> Exception:
    origin: Exception = error
    while isinstance(origin, GraphQLError) and origin.original_error is not None:
        origin = origin.original_error
    # A scalar's ValueError tells of the client's mistake, and graphql-core has put it into words already.
    if error.path is None and not isinstance(origin, CofferError):
        return error
    return origin


_OWNER = (
    r"(?:Variable '\$\w+'(?: defined by fragment '\w+')?|Argument '\w+')"
    r" has invalid (?:default )?value(?: at [\w.\[\]]+)?: "
)
_TYPE = r"'[\w\[\]!]+'"
_DETAILS = (
    rf"Expected value of type {_TYPE} to be an object",
    rf"Expected value of type {_TYPE} to include required field '\w+'",
    rf"Expected value of type {_TYPE} not to include unknown field '\w{{1,64}}'",
    rf"Expected a value of non-null type {_TYPE} to be provided",
    rf"Expected value of non-null type {_TYPE} not to be None",
    rf"Expected value of type {_TYPE}",
    rf"Expected variable '\$\w+' provided to (?:field '\w+' for OneOf Input Object )?(?:non-null )?type {_TYPE}"
    r" (?:to provide a runtime value|not to be None)",
    r"Within OneOf Input Object type '\w+', exactly one field must be specified",
    r"(?:Int|Float|String|Boolean|ID|Enum '\w+') cannot represent (?:a )?(?:non[a-z0-9 -]+ )?value",
    r"(?:String|ID) cannot hold NUL or a lone surrogate",
    *map(re.escape, FORMS.values()),
)
_COERCION = re.compile(
    rf"({_OWNER})?(?:({'|'.join(_DETAILS)})(?=[,.:;]|$)|Value '.*' does not exist in ('\w+') enum)?", re.A | re.S
)


def without_values(message: str) -> str:
    """Rewrite a coercion message of graphql-core, all of which quote the value they refuse.

    It is rebuilt from the parts we know, since a value can hold any text and so can't be found and cut.
    """
    match = _COERCION.match(message)
    owner, detail, enum = match.groups() if match else (None, None, None)
    if enum:
        detail = f"Value does not exist in {enum} enum"
    return f"{owner or ''}{detail or 'The value is not valid'}."


_SYNTAX = re.compile(
    r"Syntax Error: (?:(?:Expected (?:Name|'[^'\w]{1,3}'|'\w+'|<\w+>), found|Unexpected)"
    r" (?:<EOF>|Name|Int|Float|String|BlockString|'[^'\w]{1,3}')"
    r"|Unterminated string|Unexpected character|Invalid number|Invalid character within String"
    r"|Invalid character escape sequence|Invalid Unicode escape sequence"
    r"|Unexpected description|Unexpected variable|Document is nested too deeply)"
)


def without_source(message: str) -> str:
    """Rewrite a syntax error so that it tells kinds of tokens and none of the source; its location says the rest."""
    match = _SYNTAX.match(message)
    return f"{match.group()}." if match else "Syntax Error."


def log_internal(error: BaseException, request_id: str) -> None:
    """Log an error of ours by type and lines of code: messages and locals may hold personal values."""
    _log.error(
        "internal_error",
        request_id=request_id,
        exceptions=[f"{type(each).__module__}.{type(each).__qualname__}" for each in _chain(error)],
        frames=[f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)],
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    current: BaseException | None = error
    for _ in range(8):  # a chain can be a ring
        if current is None:
            return
        yield current
        current = current.__cause__ or current.__context__
