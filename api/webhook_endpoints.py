"""What GraphQL shows of a webhook endpoint: its state, its roles, its secrets without themselves, how it does."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast
from uuid import UUID

import strawberry
from strawberry import Info
from strawberry.dataloader import DataLoader

from api.directives import requires
from api.events import Payload
from api.meanings import described
from api.members import Member, members_of
from api.operation import Operation
from api.paging import Node
from api.roles import OwnRole, roles_of
from domain.webhooks import deliveries, endpoints, secrets
from domain.webhooks.endpoints import EndpointView
from tenants.access import Permission, Role
from tenants.viewers import MemberId
from tenants.webhooks import DisabledWhy, EndpointState

_MANAGE = Permission.WEBHOOKS_MANAGE

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
