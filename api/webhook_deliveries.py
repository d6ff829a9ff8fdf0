"""The log of webhooks over GraphQL, and what is asked of it: once more, a whole range, a test, a dry run."""

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Annotated, Any, cast
from uuid import UUID

import strawberry
from strawberry import Info
from strawberry.dataloader import DataLoader

from api.directives import Input, argument, public, requires
from api.events import Payload
from api.meanings import described
from api.operation import Operation
from api.paging import Connection, Node, UserError, cursor, global_id, local_id, user_errors, window
from api.webhook_endpoints import WebhookEndpoint, endpoints_of
from domain import normalise
from domain.errors import BadInput, NotFound, Refused
from domain.normalise import Invalid
from domain.webhooks import audience, deliveries, payloads, previews
from domain.webhooks.previews import Question
from tenants.access import Permission, Role
from tenants.events import KINDS
from tenants.webhooks import DeliveryState
from tenants.webhooks import WebhookDelivery as Row

_MANAGE = Permission.WEBHOOKS_MANAGE
_SHAPE = "the shape of a payload"
_LIST = "webhook deliveries"
_HARMLESS = Input(why="an id opens nothing by itself")
_MOMENT = Input(why="a moment")

described(
    DeliveryState,
    "How far a delivery has come.",
    name="WebhookDeliveryState",
    PENDING="It waits for its turn, or to be tried again.",
    DELIVERED="The receiver answered 2xx.",
    SKIPPED="Given up: tried ten times, or the endpoint's roles don't let it hear of it; `reason` says which.",
)


@strawberry.type(description="One request; neither its body nor the receiver's answer is kept.")
class WebhookAttempt:
    number: int = requires(_MANAGE)
    at: datetime = requires(_MANAGE)
    duration_ms: int = requires(_MANAGE)
    status: int | None = requires(_MANAGE, description="The receiver's code of HTTP.")
    reason: str | None = requires(_MANAGE, description="Why nobody answered, as `timed-out`.")
    fields: list[str] | None = requires(
        _MANAGE, description="Of the customer, what was sent at which level: `city:PLAIN`; null as the delivery's."
    )
    body_sha256: str | None = requires(_MANAGE, description="SHA-256 of the body, in hex; null where `fields` is.")


@strawberry.type(description="One event for one endpoint. What it tells is null where the viewer may not hear of it.")
class WebhookDelivery(Node):
    happened_at: datetime = requires(_MANAGE)
    state: DeliveryState = requires(_MANAGE)
    reason: str | None = requires(_MANAGE, description="Why it was not delivered: `ATTEMPTS_SPENT`, `OUT_OF_REACH`.")
    created_at: datetime = requires(_MANAGE)
    ended_at: datetime | None = requires(_MANAGE)

    @requires(_MANAGE, description="Of the event, as in `eventTypes`.")
    async def type(self: Any, info: Info[Operation]) -> str | None:
        return str(self.type) if await _is_heard(info, self) else None

    @requires(_MANAGE, description="Names of the fields that changed.")
    async def fields(self: Any, info: Info[Operation]) -> list[str] | None:
        return list(self.fields) if await _is_heard(info, self) else None

    @requires(_MANAGE, description="`webhook-id`: the same for each attempt.")
    def message_id(self: Any) -> str:
        return payloads.message_id(self.id)

    @requires(_MANAGE)
    def event_id(self: Any) -> strawberry.ID:
        return strawberry.ID(str(self.event_id))

    @requires(_MANAGE, description="The global id of what changed.")
    async def subject(self: Any, info: Info[Operation]) -> strawberry.ID | None:
        return global_id(KINDS[self.type].subject, self.subject) if await _is_heard(info, self) else None

    @requires(_MANAGE, description="When it is sent next; null once it has ended.")
    def due_at(self: Any) -> datetime | None:
        due: datetime = self.due_at
        return due if self.state == DeliveryState.PENDING else None

    @requires(_MANAGE)
    async def endpoint(self: Any, info: Info[Operation]) -> WebhookEndpoint | None:
        return cast(WebhookEndpoint | None, await endpoints_of(info.context).load(self.endpoint_id))

    @requires(_MANAGE, description="In order; the last ten count towards the schedule at most.")
    async def attempts(self: Any, info: Info[Operation]) -> list[WebhookAttempt]:
        is_heard = await _is_heard(info, self)
        return [_attempt(row, is_heard) for row in await _attempts_of(info.context).load(self.id)]

    @classmethod
    def is_type_of(cls, value: object, _info: Any) -> bool:
        return isinstance(value, Row)


@strawberry.type
class WebhookDeliveryPayload:
    delivery: WebhookDelivery | None = public(_SHAPE)
    user_errors: list[UserError] = public(_SHAPE)


@strawberry.type
class ReplayWebhooksPayload:
    count: int | None = public(_SHAPE, description="How many events are sent again.")
    user_errors: list[UserError] = public(_SHAPE)


@strawberry.type(description="What would be sent, as far as the viewer sees it too.")
class WebhookPreview:
    is_sent: bool = requires(_MANAGE, description="False where those roles don't let it hear of it.")
    body: str | None = requires(_MANAGE, description="JSON. What the viewer sees masked is masked in it.")
    fields: list[str] = requires(_MANAGE, description="Of the customer, what is in it at which level.")


_FIRST = Annotated[int | None, argument(Input(why="a size"), "1 to 100; 20 unless told.")]
_CURSOR = Annotated[
    str | None, argument(Input(why="holds a clear sort key and an id, under a MAC"), "An end or edge of the list.")
]
_ENDPOINT = Annotated[strawberry.ID, argument(_HARMLESS, "The endpoint's.")]


@strawberry.type
class WebhookDeliveryQueries:
    @requires(_MANAGE, description="What was sent, or waits to be, newest first; it is kept for 30 days.")
    async def webhook_deliveries(
        self,
        info: Info[Operation],
        endpoint: Annotated[strawberry.ID | None, argument(_HARMLESS, "Of this endpoint.")] = None,
        state: Annotated[DeliveryState | None, argument(Input(why="a code"), "In this state.")] = None,
        first: _FIRST = None,
        after: _CURSOR = None,
        last: _FIRST = None,
        before: _CURSOR = None,
    ) -> Connection[WebhookDelivery] | None:
        unit = info.context.unit
        log = deliveries.Log(None if endpoint is None else local_id("WebhookEndpoint", endpoint), state)
        within = window(unit, _LIST, first, after, last, before)
        return Connection(
            page=await deliveries.page(unit, log, within),
            cursor_of=lambda row: cursor(unit, _LIST, (row.created_at, row.id)),
            count=lambda: deliveries.count(unit, log),
        )

    @requires(
        _MANAGE, description="A dry run: what an endpoint, or these roles, would be sent of an event or a customer now."
    )
    async def webhook_preview(
        self,
        info: Info[Operation],
        endpoint: Annotated[strawberry.ID | None, argument(_HARMLESS, "An endpoint's.")] = None,
        roles: Annotated[list[Role] | None, argument(Input(why="shows no more than one has"), "Built-in.")] = None,
        own_roles: Annotated[list[strawberry.ID] | None, argument(_HARMLESS, "Of the tenant's own.")] = None,
        event: Annotated[strawberry.ID | None, argument(_HARMLESS, "As `eventId` of a delivery.")] = None,
        customer: Annotated[strawberry.ID | None, argument(_HARMLESS, "As if it had just been updated.")] = None,
        payload: Annotated[Payload | None, argument(Input(why="a code"), "The endpoint's, or FULL.")] = None,
    ) -> WebhookPreview | None:
        asked = Question(
            endpoint=None if endpoint is None else local_id("WebhookEndpoint", endpoint),
            roles=roles or (),
            own_roles=[local_id("OwnRole", role) for role in own_roles or ()],
            event=None if event is None else _uuid(event),
            customer=None if customer is None else local_id("Customer", customer),
            payload=payload,
        )
        found = await previews.preview(info.context.unit, asked)
        if found is None:
            return WebhookPreview(is_sent=False, body=None, fields=[])
        return WebhookPreview(is_sent=True, body=found.body.decode(), fields=list(found.fields))


@strawberry.type
class WebhookDeliveryMutations:
    @requires(_MANAGE, description="Send a message of type `webhook.test`, which tells of nothing.")
    async def send_test_event(self, info: Info[Operation], endpoint: _ENDPOINT) -> WebhookDeliveryPayload | None:
        return await _done(deliveries.test(info.context.unit, local_id("WebhookEndpoint", endpoint)))

    @requires(_MANAGE, description="Send a delivery that has ended once more, under the same id.")
    async def redeliver_webhook(
        self, info: Info[Operation], id: Annotated[strawberry.ID, argument(_HARMLESS, "The delivery's.")]
    ) -> WebhookDeliveryPayload | None:
        return await _done(deliveries.redeliver(info.context.unit, local_id("WebhookDelivery", id)))

    @requires(_MANAGE, description="Send all events of a range, of the last 30 days, under the ids they have or get.")
    async def replay_webhooks(
        self,
        info: Info[Operation],
        endpoint: _ENDPOINT,
        since: Annotated[datetime, argument(_MOMENT, "The first moment.")],
        until: Annotated[datetime, argument(_MOMENT, "The first one after.")],
        types: Annotated[
            list[str] | None, argument(Input(why="names of the catalogue"), "All that it wants, unless told.")
        ] = None,
    ) -> ReplayWebhooksPayload | None:
        local, given = local_id("WebhookEndpoint", endpoint), types or ()
        began, ended = _moment("since", since), _moment("until", until)
        try:
            count = await deliveries.replay(info.context.unit, local, began, ended, given)
        except Refused as refused:
            return ReplayWebhooksPayload(count=None, user_errors=user_errors(refused))
        return ReplayWebhooksPayload(count=count, user_errors=[])


async def _done(doing: Any) -> WebhookDeliveryPayload:
    try:
        made = await doing
    except Refused as refused:
        return WebhookDeliveryPayload(delivery=None, user_errors=user_errors(refused))
    return WebhookDeliveryPayload(delivery=cast(WebhookDelivery, made), user_errors=[])


def _moment(name: str, at: datetime) -> datetime:
    try:
        return normalise.instant(at)
    except Invalid as invalid:
        raise BadInput(f"`{name}` {invalid.reason}.") from None


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise NotFound from None


def _attempt(row: Any, is_heard: bool) -> WebhookAttempt:
    """A body without values can be guessed from what its event tells, and its hash would confirm it."""
    return WebhookAttempt(
        number=row.number,
        at=row.at,
        duration_ms=row.duration_ms,
        status=row.status,
        reason=row.reason,
        fields=list(row.fields) if is_heard else None,
        body_sha256=row.body_hash.hex() if is_heard else None,
    )


async def _is_heard(info: Info[Operation], row: Any) -> bool:
    """Whether the viewer may know of that delivery's event; all rows of an answer are asked for at once."""
    operation = info.context
    if "webhook audience" not in operation.loaders:
        operation.loaders["webhook audience"] = DataLoader(load_fn=partial(audience.heard, operation.unit))
    loader = cast("DataLoader[tuple[str, UUID], bool]", operation.loaders["webhook audience"])
    return await loader.load((row.type, row.subject))


def _attempts_of(operation: Operation) -> "DataLoader[UUID, Sequence[Any]]":
    async def load(ids: list[UUID]) -> list[Sequence[Any]]:
        return list(await deliveries.attempts(operation.unit, ids))

    if "webhook attempts" not in operation.loaders:
        operation.loaders["webhook attempts"] = DataLoader(load_fn=load)
    return cast("DataLoader[UUID, Sequence[Any]]", operation.loaders["webhook attempts"])


async def deliveries_by_id(operation: Operation, ids: list[Any]) -> dict[Any, Any]:
    if not operation.may(_MANAGE):
        return {}
    return dict(zip(ids, await deliveries.get_many(operation.unit, ids), strict=True))
