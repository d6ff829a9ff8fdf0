"""The catalogue of events over GraphQL: every type, what it means, and the JSON Schema of its payload."""

import orjson
import strawberry

from api.directives import public
from tenants import events

_OPEN = "the contract that integrations are written against"


@strawberry.type(description="A type of event. What a version means never changes.")
class EventType:
    kind: strawberry.Private[events.EventKind]

    @public(_OPEN, description="As in `customer.updated`.")
    def name(self) -> str:
        return self.kind.name

    @public(_OPEN)
    def version(self) -> int:
        return self.kind.version

    @public(_OPEN, description="The type of what changed.")
    def subject(self) -> str:
        return self.kind.subject

    @public(_OPEN)
    def meaning(self) -> str:
        return self.kind.meaning

    @public(_OPEN, description="Names that may stand in an event's `fields`.")
    def fields(self) -> list[str]:
        return sorted(self.kind.fields)

    @public(_OPEN, description="JSON Schema (2020-12) of the payload, as JSON text.")
    def schema(self) -> str:
        return orjson.dumps(self.kind.schema()).decode()


@strawberry.type
class EventQueries:
    @public(_OPEN, description="The catalogue of events, by name.")
    def event_types(self) -> list[EventType]:
        return [EventType(kind=kind) for _, kind in sorted(events.KINDS.items())]
