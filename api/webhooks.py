"""Webhook endpoints over GraphQL: made, changed, tried out; secrets are shown once, to whoever had them made."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, cast
from uuid import UUID

import strawberry
from strawberry import UNSET, Info
from strawberry.dataloader import DataLoader

from api.directives import Input, argument, input_, public, requires
from api.events import Payload
from api.meanings import described
from api.members import Member, members_of
from api.operation import Operation
from api.paging import Connection, Node, UserError, cursor, local_id, user_errors, window
from api.roles import OwnRole, roles_of
from crypto.webhooks import SigningSecret
from domain.errors import Refused
from domain.errors import UserError as Reason
from domain.webhooks import deliveries, endpoints, secrets
from domain.webhooks.endpoints import EndpointView, Wanted
from egress import NotReached
from egress.addresses import AddressRefused
from tenants.access import Permission, Role
from tenants.viewers import MemberId
from tenants.webhooks import DisabledWhy, EndpointState

_MANAGE = Permission.WEBHOOKS_MANAGE
_SHAPE = "the shape of a payload"
_ONCE = "for whoever had the secret made, and this once; it is sealed from then on"
_LIST = "webhook endpoints"
_GIVES = Input(why="only what the giver has may be given")
_HARMLESS = Input(why="an id opens nothing by itself")

described(
    EndpointState,
    "Whether anything is sent to an endpoint.",
    name="WebhookEndpointState",
    ACTIVE="Events are sent.",
    DISABLED="Nothing is sent; what waited keeps waiting, and what happens meanwhile can be replayed.",
)
described(
    DisabledWhy,
    "Why nothing is sent to an endpoint.",
    name="WebhookDisabledWhy",
    BY_MEMBER="Somebody disabled it.",
    GONE="It answered 410.",
    FAILED_FOR_DAYS="It took nothing for five days.",
    SERVICE_DISABLED="The member whose roles it has was disabled.",
    RESTORED="It came back from a backup, which holds no secrets.",
)


@strawberry.type(description="What an endpoint's messages are signed by; the secret itself is not shown again.")
class WebhookSecret:
    public_key: str = requires(_MANAGE, description="`whpk_…`, which verifies signatures of version v1a (Ed25519).")
    created_at: datetime = requires(_MANAGE)
    expires_at: datetime | None = requires(_MANAGE, description="It signs nothing from then on.")


@strawberry.type(description="How an endpoint does; counts are of the attempts of the last 24 hours.")
class WebhookHealth:
    succeeded: int = requires(_MANAGE)
    failed: int = requires(_MANAGE)
    success_rate: float | None = requires(_MANAGE, description="0 to 1; null without attempts.")
    pending: int = requires(_MANAGE, description="Deliveries that wait to be sent, or to be tried again.")
    last_success_at: datetime | None = requires(_MANAGE)
    last_attempt_at: datetime | None = requires(_MANAGE)


@strawberry.type(description="Where events are sent. It is a viewer: its roles decide what it is told, and sees.")
class WebhookEndpoint(Node):
    name: str | None = requires(_MANAGE)
    url: str = requires(_MANAGE)
    payload: Payload = requires(_MANAGE)
    types: list[str] = requires(_MANAGE, description="Of events, as `a.b` or `a.*`; empty: all that it may hear of.")
    state: EndpointState = requires(_MANAGE)
    disabled_why: DisabledWhy | None = requires(_MANAGE)
    failing_since: datetime | None = requires(_MANAGE, description="Null where its last request succeeded.")
    created_at: datetime = requires(_MANAGE)
    updated_at: datetime = requires(_MANAGE)
    version: int = requires(_MANAGE, description="Send it back with an update.")

    @requires(_MANAGE)
    def roles(self: Any) -> list[Role]:
        return sorted(self.roles)

    @requires(_MANAGE)
    async def own_roles(self: Any, info: Info[Operation]) -> list[OwnRole]:
        found = await roles_of(info.context).load_many(sorted(self.own_roles))
        return cast(list[OwnRole], [role for role in found if role is not None])

    @requires(_MANAGE, description="The member that it acts as.")
    async def service(self: Any, info: Info[Operation]) -> Member | None:
        return cast(Member | None, await members_of(info.context).load(MemberId(self.member_id)))

    @requires(_MANAGE, description="What signs its messages now, newest first; two while it is rotated.")
    async def secrets(self: Any, info: Info[Operation]) -> list[WebhookSecret]:
        return cast(list[WebhookSecret], await _secrets_of(info.context).load(self.id))

    @requires(_MANAGE)
    async def health(self: Any, info: Info[Operation]) -> WebhookHealth:
        return cast(WebhookHealth, await _health_of(info.context).load(self.id))

    @classmethod
    def is_type_of(cls, value: object, _info: Any) -> bool:
        return isinstance(value, EndpointView)


@strawberry.type
class WebhookEndpointPayload:
    endpoint: WebhookEndpoint | None = public(_SHAPE)
    user_errors: list[UserError] = public(_SHAPE)


@strawberry.type
class WebhookSecretPayload:
    endpoint: WebhookEndpoint | None = public(_SHAPE)
    secret: str | None = public(_ONCE, description="`whsec_…`: verifies signatures of version v1. Not shown again.")
    public_key: str | None = public(_SHAPE, description="`whpk_…`: verifies signatures of version v1a.")
    user_errors: list[UserError] = public(_SHAPE)


@strawberry.type
class DeleteWebhookEndpointPayload:
    id: strawberry.ID | None = public(_SHAPE)
    user_errors: list[UserError] = public(_SHAPE)


@strawberry.input(description="What an endpoint shall be. What an update leaves out stays as it is.")
class WebhookEndpointInput:
    name: str | None = input_("a name for a service, which is no person", default=UNSET, description="Of the receiver.")
    url: str | None = input_(
        "an address, which is checked to be public", default=UNSET, description="https, of a public host."
    )
    payload: Payload | None = input_("a code", default=UNSET, description="THIN unless told.")
    types: list[str] | None = input_(
        "names of the catalogue", default=UNSET, description="As `customer.updated` or `customer.*`; all unless told."
    )
    roles: list[Role] | None = input_(_GIVES.why, default=UNSET, description="Built-in ones; the list is set whole.")
    own_roles: list[strawberry.ID] | None = input_(
        _GIVES.why, default=UNSET, description="Of the tenant's own; the list is set whole."
    )


_ID = Annotated[strawberry.ID, argument(_HARMLESS, "The endpoint's.")]
_INPUT = Annotated[WebhookEndpointInput, argument(Input(why="each of its fields has its own right"), "What to set.")]
_FIRST = Annotated[int | None, argument(Input(why="a size"), "1 to 100; 20 unless told.")]
_CURSOR = Annotated[
    str | None, argument(Input(why="holds a clear sort key and an id, under a MAC"), "An end or edge of the list.")
]


@strawberry.type
class WebhookQueries:
    @requires(_MANAGE, description="All endpoints, newest first.")
    async def webhook_endpoints(
        self,
        info: Info[Operation],
        first: _FIRST = None,
        after: _CURSOR = None,
        last: _FIRST = None,
        before: _CURSOR = None,
    ) -> Connection[WebhookEndpoint] | None:
        unit = info.context.unit
        within = window(unit, _LIST, first, after, last, before)
        return Connection(
            page=await endpoints.page(unit, within),
            cursor_of=lambda view: cursor(unit, _LIST, (view.created_at, view.id)),
            count=lambda: endpoints.count(unit),
        )


@strawberry.type
class WebhookMutations:
    @requires(
        _MANAGE, description="Have events sent to an address, under roles that one has oneself. The secret comes once."
    )
    async def create_webhook_endpoint(self, info: Info[Operation], input: _INPUT) -> WebhookSecretPayload | None:
        try:
            wanted = _wanted(input)
            if wanted.url is None:
                raise Refused([Reason("REQUIRED", ("url",), "Give a url.")])
            await _check(info.context, wanted)
            view, secret = await endpoints.create(info.context.unit, wanted)
        except Refused as refused:
            return _no_secret(refused, ("input",))
        return _with_secret(view, secret)

    @requires(_MANAGE, description="Change where, what, under which roles; those before and after must be one's own.")
    async def update_webhook_endpoint(
        self,
        info: Info[Operation],
        id: _ID,
        version: Annotated[int, argument(Input(why="a number"), "As it was read.")],
        input: _INPUT,
    ) -> WebhookEndpointPayload | None:
        try:
            wanted = _wanted(input)
            await _check(info.context, wanted)
            view = await endpoints.change(info.context.unit, local_id("WebhookEndpoint", id), version, wanted)
        except Refused as refused:
            return WebhookEndpointPayload(endpoint=None, user_errors=user_errors(refused, ("input",)))
        return _answer(view)

    @requires(_MANAGE, description="Send nothing there any more, and forget its log and its secrets.")
    async def delete_webhook_endpoint(self, info: Info[Operation], id: _ID) -> DeleteWebhookEndpointPayload | None:
        try:
            await endpoints.remove(info.context.unit, local_id("WebhookEndpoint", id))
        except Refused as refused:
            return DeleteWebhookEndpointPayload(id=None, user_errors=user_errors(refused))
        return DeleteWebhookEndpointPayload(id=id, user_errors=[])

    @requires(_MANAGE, description="Send to it again; what waited goes on. Its roles must be one's own.")
    async def enable_webhook_endpoint(self, info: Info[Operation], id: _ID) -> WebhookEndpointPayload | None:
        return await _done(endpoints.enable(info.context.unit, local_id("WebhookEndpoint", id)))

    @requires(_MANAGE, description="Send nothing to it for now; what waits keeps waiting.")
    async def disable_webhook_endpoint(self, info: Info[Operation], id: _ID) -> WebhookEndpointPayload | None:
        return await _done(endpoints.disable(info.context.unit, local_id("WebhookEndpoint", id)))

    @requires(
        _MANAGE, description="A new secret, shown this once; messages are signed by the one before too, for 24 hours."
    )
    async def rotate_webhook_secret(self, info: Info[Operation], id: _ID) -> WebhookSecretPayload | None:
        try:
            view, secret = await endpoints.rotate(info.context.unit, local_id("WebhookEndpoint", id))
        except Refused as refused:
            return _no_secret(refused)
        return _with_secret(view, secret)


def _wanted(sent: WebhookEndpointInput) -> Wanted:
    given = {name: value for name, value in vars(sent).items() if value is not UNSET and value is not None}
    if "own_roles" in given:
        given["own_roles"] = [local_id("OwnRole", role) for role in given["own_roles"]]
    return Wanted(**given)


async def _check(operation: Operation, wanted: Wanted) -> None:
    """Raises `Refused` for an address that is not public; it is checked again whenever it is connected to."""
    try:
        if wanted.url is not None:
            await operation.services.check_address(wanted.url)
    except AddressRefused as refused:
        raise Refused([Reason("INVALID", ("url",), refused.message)]) from None
    except NotReached:
        raise Refused([Reason("INVALID", ("url",), "url names a host that can't be found.")]) from None


async def _done(doing: Any) -> WebhookEndpointPayload:
    try:
        return _answer(await doing)
    except Refused as refused:
        return WebhookEndpointPayload(endpoint=None, user_errors=user_errors(refused))


def _answer(view: EndpointView) -> WebhookEndpointPayload:
    return WebhookEndpointPayload(endpoint=cast(WebhookEndpoint, view), user_errors=[])


def _with_secret(view: EndpointView, secret: SigningSecret) -> WebhookSecretPayload:
    shown = cast(WebhookEndpoint, view)
    return WebhookSecretPayload(endpoint=shown, secret=secret.secret, public_key=secret.public_key, user_errors=[])


def _no_secret(refused: Refused, above: tuple[str, ...] = ()) -> WebhookSecretPayload:
    errors = user_errors(refused, above)
    return WebhookSecretPayload(endpoint=None, secret=None, public_key=None, user_errors=errors)


def endpoints_of(operation: Operation) -> "DataLoader[UUID, EndpointView | None]":
    async def load(ids: list[UUID]) -> list[EndpointView | None]:
        return await endpoints.get_many(operation.unit, ids)

    return cast("DataLoader[UUID, EndpointView | None]", _loader(operation, "webhook endpoints", load))


def _secrets_of(operation: Operation) -> "DataLoader[UUID, Sequence[secrets.SecretView]]":
    async def load(ids: list[UUID]) -> list[Sequence[secrets.SecretView]]:
        found = await secrets.views(operation.unit, ids)
        return [found[id] for id in ids]

    return cast("DataLoader[UUID, Sequence[secrets.SecretView]]", _loader(operation, "webhook secrets", load))


def _health_of(operation: Operation) -> "DataLoader[UUID, deliveries.Health]":
    async def load(ids: list[UUID]) -> list[deliveries.Health]:
        return await deliveries.health(operation.unit, ids)

    return cast("DataLoader[UUID, deliveries.Health]", _loader(operation, "webhook health", load))


def _loader(operation: Operation, name: str, load: Any) -> Any:
    if name not in operation.loaders:
        operation.loaders[name] = DataLoader(load_fn=load)
    return operation.loaders[name]


async def endpoints_by_id(operation: Operation, ids: list[Any]) -> dict[Any, Any]:
    if not operation.may(_MANAGE):
        return {}
    return dict(zip(ids, await endpoints.get_many(operation.unit, ids), strict=True))
