"""The catalogue of events over GraphQL: every type, what it means, and the JSON Schema of its payload."""

from typing import Annotated

import orjson
import strawberry

from api.directives import Input, argument, public
from api.meanings import described
from domain.webhooks import payloads
from tenants import events
from tenants.webhooks import Payload as Payload  # described below, before any type has it

_OPEN = "the contract that integrations are written against"

described(
    Payload,
    "What is sent of a change.",
    name="WebhookPayload",
    THIN="Ids and names of fields; the receiver asks for more with a key of its own.",
    FULL="Of a customer besides what the endpoint's roles show, masks included, as the row is at that moment.",
)


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

    @public(_OPEN, description="JSON Schema (2020-12) of the message that webhooks carry, as JSON text.")
    def schema(self) -> str:
        return orjson.dumps(payloads.schema(self.kind)).decode()

    @public(_OPEN, description="A message as it is sent, made up, as JSON text; FULL only where it differs.")
    def example(
        self,
        payload: Annotated[Payload, argument(Input(why="a code"), "THIN unless told.")] = Payload.THIN,
    ) -> str:
        return payloads.example(self.kind, payload).decode()


@strawberry.type
class EventQueries:
    @public(_OPEN, description="The catalogue of events, by name.")
    def event_types(self) -> list[EventType]:
        return [EventType(kind=kind) for _, kind in sorted(events.KINDS.items())]
