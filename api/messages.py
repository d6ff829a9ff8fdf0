"""Messages of graphql-transport-ws: read strictly, as HTTP reads its requests, and written.

Whatever is malformed ends the conversation, with a reason that quotes nothing of the client's.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from graphql import ExecutionResult, GraphQLError

from api.documents import Documents
from api.errors import to_graphql
from api.limits import Limits
from api.requests import GraphQLRequest, HTTPRefused, json_of, object_of, query_of, text_of
from tenants.origins import Origin, is_purpose

T = TypeVar("T")
_LONGEST_ID = 128  # characters; clients send a UUID or a counter


class Ended(Exception):
    """The socket is to be closed; `code` is None where the peer is gone already."""

    def __init__(self, code: int | None, reason: str = "") -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


def read(event: Mapping[str, Any], limits: Limits) -> Mapping[str, Any]:
    """A `websocket.receive` as a message: an object whose `payload`, if there is one, is an object."""
    text = event.get("text")
    if text is None:
        _invalid("Messages are text, not binary.")
    raw = text.encode()
    if len(raw) > limits.body_bytes:
        raise Ended(1009, f"A message holds at most {limits.body_bytes} bytes.")
    sent = _strictly(lambda: json_of(raw, limits, around=2))
    if not isinstance(sent, dict):
        _invalid("A message is one JSON object.")
    _strictly(lambda: object_of(sent, "payload"))
    return sent


def id_of(message: Mapping[str, Any]) -> str:
    name = message.get("id")
    if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_ID:
        _invalid(f"`id` is a string of 1 to {_LONGEST_ID} characters.")
    return name


def authorizations(message: Mapping[str, Any]) -> list[str]:
    """What `connection_init` gives as Authorization, whatever its case."""
    payload = object_of(message, "payload")
    found = [value for key, value in payload.items() if key.lower() == "authorization" and value is not None]
    if not all(isinstance(value, str) for value in found):
        _invalid("`authorization` is a string.")
    return found


def request_of(message: Mapping[str, Any], request_id: str, documents: Documents) -> GraphQLRequest:
    """What `subscribe` asks for. Raises RequestRefused for a persisted query that is not known."""
    return _strictly(lambda: _request(object_of(message, "payload"), request_id, documents))


def _request(payload: Mapping[str, Any], request_id: str, documents: Documents) -> GraphQLRequest:
    extensions = object_of(payload, "extensions")
    return GraphQLRequest(
        query=query_of(payload, extensions, documents),
        operation_name=text_of(payload, "operationName") or None,
        variables=object_of(payload, "variables"),
        extensions=extensions,
        method="WEBSOCKET",
        request_id=request_id,
        idempotency_key=None,
        origin=Origin(request_id, _purpose(extensions)),
    )


def _purpose(extensions: Mapping[str, Any]) -> str | None:
    """Browsers can't set headers on a socket, so `Coffer-Purpose` stands among the extensions."""
    purpose = text_of(extensions, "purpose")
    if purpose is not None and not is_purpose(purpose):
        _invalid("`extensions.purpose` is a code of up to 40 characters: a-z, 0-9, '.', '_' and '-'.")
    return purpose


def _strictly(parse: Callable[[], T]) -> T:
    try:
        return parse()
    except HTTPRefused as refused:
        _invalid(refused.error.message)


def _invalid(reason: str) -> NoReturn:
    raise Ended(4400, reason) from None


def errors(found: Sequence[GraphQLError], request_id: str) -> dict[str, Any]:
    return {"type": "error", "payload": [to_graphql(error, request_id) for error in found]}


def broken(request_id: str) -> dict[str, Any]:
    extensions = {"code": "INTERNAL", "requestId": request_id}
    return {"type": "error", "payload": [{"message": "Internal error", "extensions": extensions}]}


def payload_of(result: ExecutionResult, request_id: str) -> dict[str, Any]:
    found = [to_graphql(error, request_id) for error in result.errors or ()]
    extensions = {"extensions": result.extensions} if result.extensions else {}
    return {**({"errors": found} if found else {}), "data": result.data, **extensions}
