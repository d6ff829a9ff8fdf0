"""Webhook endpoints over GraphQL: made, changed, tried out; secrets are shown once, to whoever had them made."""

from typing import Annotated, Any, cast

import strawberry
from strawberry import UNSET, Info

from api.directives import Input, argument, input_, public, requires
from api.events import Payload
from api.operation import Operation
from api.paging import Connection, UserError, cursor, local_id, user_errors, window
from api.webhook_endpoints import WebhookEndpoint
from crypto.webhooks import SigningSecret
from domain.errors import Refused
from domain.errors import UserError as Reason
from domain.webhooks import endpoints
from domain.webhooks.endpoints import EndpointView, Wanted
from egress import NotReached
from egress.addresses import AddressRefused
from tenants.access import Permission, Role

_MANAGE = Permission.WEBHOOKS_MANAGE
_SHAPE = "the shape of a payload"
_ONCE = "for whoever had the secret made, and this once; it is sealed from then on"
_LIST = "webhook endpoints"
_GIVES = Input(why="only what the giver has may be given")
_HARMLESS = Input(why="an id opens nothing by itself")


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
            await operation.services.check_address(wanted.url, operation.unit.tenant.id)
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
