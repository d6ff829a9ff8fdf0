"""What a message looks like: ``type``, ``timestamp`` and ``data``, as Standard Webhooks has it; its schema, an example.

THIN holds ids and names of fields; FULL of a customer besides what the endpoint's roles allow, as GraphQL spells it.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol
from uuid import UUID

import orjson

from domain.customers import FIELDS, Stage
from domain.customers.inputs import input_path
from domain.webhooks.audience import CUSTOMER
from tenants.events import EventKind
from tenants.ids import global_id
from tenants.webhooks import Payload

NONCE_BYTES = 16
_SCHEMA = "https://json-schema.org/draft/2020-12/schema"
_TEXT: dict[str, Any] = {"type": "string"}
_MAYBE: dict[str, Any] = {"type": ["string", "null"]}
_MOMENT: dict[str, Any] = {"type": "string", "format": "date-time"}
_LEVELS = ("MASKED", "PLAIN")
_CLEAR: dict[str, Any] = {
    "stage": {"enum": [stage.value for stage in Stage]},
    "ownerId": _MAYBE,
    "language": _MAYBE,
    "source": _MAYBE,
    "region": _MAYBE,
    "createdAt": _MOMENT,
    "updatedAt": _MOMENT,
    "archivedAt": {"type": ["string", "null"], "format": "date-time"},
    "version": {"type": "integer"},
}


class Told(Protocol):
    """An event as a delivery keeps it."""

    @property
    def event_id(self) -> UUID: ...
    @property
    def type(self) -> str: ...
    @property
    def type_version(self) -> int: ...
    @property
    def happened_at(self) -> datetime: ...
    @property
    def subject(self) -> UUID: ...
    @property
    def fields(self) -> Sequence[str]: ...


def message_id(delivery: UUID) -> str:
    """The same for each attempt."""
    return f"msg_{delivery.hex}"


def body(
    subject: str,
    told: Told,
    customer: Mapping[str, Any] | None = None,
    levels: Mapping[str, str] | None = None,
    nonce: bytes = b"",
) -> bytes:
    """UTF-8 JSON. `customer`, `levels` and `nonce` are of FULL alone; `subject` is the GraphQL type of what changed.

    The log keeps a hash of the body: with 16 random bytes in it, which nobody keeps, it answers no guess at a value.
    """
    data: dict[str, Any] = {
        "eventId": str(told.event_id),
        "version": told.type_version,
        "subject": {"type": subject, "id": global_id(subject, told.subject)},
        "fields": list(told.fields),
    }
    if customer is not None:
        data |= {"customer": customer, "levels": levels, "nonce": b64encode(nonce).decode()}
    return orjson.dumps({"type": told.type, "timestamp": moment(told.happened_at), "data": data})


def moment(at: datetime) -> str:
    """RFC 3339, UTC."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def spelled(name: str) -> tuple[str, ...]:
    """Where a field stands in `customer`."""
    return tuple(map(str, input_path(name)))


def schema(kind: EventKind) -> dict[str, Any]:
    """JSON Schema (2020-12) of the body."""
    names = {"enum": sorted(kind.fields)} if kind.fields else _TEXT
    data: dict[str, Any] = {
        "eventId": {**_TEXT, "format": "uuid"},
        "version": {"const": kind.version},
        "subject": _object({"type": {"const": kind.subject}, "id": _TEXT}),
        "fields": {"type": "array", "items": names, "uniqueItems": True},
    }
    required = list(data)
    if kind.subject == CUSTOMER:
        levels = {"type": "object", "additionalProperties": {"enum": _LEVELS}}
        data |= {"customer": _customer(), "levels": levels, "nonce": _TEXT}
    return {
        "$schema": _SCHEMA,
        "title": kind.name,
        "description": kind.meaning,
        **_object({"type": {"const": kind.name}, "timestamp": _MOMENT, "data": _object(data, required)}),
    }


def example(kind: EventKind, payload: Payload = Payload.THIN) -> bytes:
    """A body of that type, made up."""
    fields = sorted(kind.fields)[:1]
    told = _Example(kind.name, kind.version, fields)
    if payload is Payload.THIN or kind.subject != CUSTOMER:
        return body(kind.subject, told)
    at = moment(told.happened_at)
    clear: dict[str, Any] = dict.fromkeys(_CLEAR) | {"createdAt": at, "updatedAt": at}
    customer = {"givenName": "A.", "emails": ["a***@e***.org"], **clear, "stage": "LEAD", "version": 1}
    return body(kind.subject, told, customer, {"givenName": "MASKED", "emails": "MASKED"}, bytes(NONCE_BYTES))


class _Example:
    event_id = UUID("0198a1b2-c3d4-7e5f-8a6b-7c8d9e0f1a2b")
    subject = UUID("0198a1b2-c3d4-7000-8000-000000000001")
    happened_at = datetime(2026, 1, 31, 12, tzinfo=UTC)

    def __init__(self, name: str, version: int, fields: Sequence[str]) -> None:
        self.type, self.type_version, self.fields = name, version, fields


def _object(properties: dict[str, Any], required: Sequence[str] | None = None) -> dict[str, Any]:
    """Nothing but these properties, all of them unless told."""
    names = list(properties if required is None else required)
    return {"type": "object", "properties": properties, "required": names, "additionalProperties": False}


def _customer() -> dict[str, Any]:
    """Personal fields as far as the endpoint's roles show them; clear ones always."""
    properties: dict[str, Any] = {"birthYear": {"type": ["integer", "null"]}, **_CLEAR}
    address: dict[str, Any] = {}
    for name, column in ((name, spelled(name)) for name in FIELDS):
        holder = address if len(column) == 2 else properties
        is_list = name in ("emails", "phones", "address_lines")
        holder[column[-1]] = {"type": ["array", "null"], "items": _TEXT} if is_list else _MAYBE
    properties["address"] = _object(address, ())
    return _object(properties, list(_CLEAR))
