"""API keys over GraphQL: listed, made, rotated and revoked; a secret is shown once, to whoever made it."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any, cast

import strawberry
from strawberry import Info

from api.directives import Input, argument, public, requires
from api.members import Member, members_of
from api.operation import Operation
from api.paging import Connection, Node, UserError, cursor, local_id, user_errors, window
from api.roles import OwnRole, roles_of
from domain import api_keys
from domain.api_keys import KeyView
from domain.errors import Refused
from domain.errors import UserError as Reason
from tenants.access import Permission, Role
from tenants.viewers import MemberId

_MANAGE = Permission.API_KEYS_MANAGE
_SHAPE = "the shape of a payload"
_ONCE = "for whoever made the key, and this once; only its hash is kept"
_LIST = "api keys"


@strawberry.type(description="What a service signs in with. Two of one service overlap while it is rotated.")
class ApiKey(Node):
    name: str | None = requires(_MANAGE, description="The service's.")
    prefix: str = requires(_MANAGE, description="The key's beginning and its end: tells keys apart, opens nothing.")
    created_at: datetime = requires(_MANAGE)
    expires_at: datetime | None = requires(_MANAGE)
    revoked_at: datetime | None = requires(_MANAGE)
    last_used_at: datetime | None = requires(_MANAGE, description="To a minute or so.")

    @requires(_MANAGE)
    def roles(self: Any) -> list[Role]:
        return sorted(self.roles)

    @requires(_MANAGE)
    async def own_roles(self: Any, info: Info[Operation]) -> list[OwnRole]:
        found = await roles_of(info.context).load_many(sorted(self.own_roles))
        return cast(list[OwnRole], [role for role in found if role is not None])

    @requires(_MANAGE, description="The member that the key acts as.")
    async def service(self: Any, info: Info[Operation]) -> Member | None:
        return cast(Member | None, await members_of(info.context).load(MemberId(self.member_id)))

    @classmethod
    def is_type_of(cls, value: object, _info: Any) -> bool:
        return isinstance(value, KeyView)


@strawberry.type
class ApiKeyPayload:
    api_key: ApiKey | None = public(_SHAPE)
    user_errors: list[UserError] = public(_SHAPE)


@strawberry.type
class ApiKeySecretPayload:
    api_key: ApiKey | None = public(_SHAPE)
    secret: str | None = public(_ONCE, description="Send it as `Authorization: Bearer …`. It is not shown again.")
    user_errors: list[UserError] = public(_SHAPE)


_ID = Annotated[strawberry.ID, argument(Input(why="an id opens nothing by itself"), "The key's.")]
_FIRST = Annotated[int | None, argument(Input(why="a size"), "1 to 100; 20 unless told.")]
_CURSOR = Annotated[
    str | None, argument(Input(why="holds a clear sort key and an id, under a MAC"), "An end or edge of the list.")
]
_GIVES = Input(why="only what the giver has may be given")


@strawberry.type
class ApiKeyQueries:
    @requires(_MANAGE, description="API keys of all services, newest first; those that have ended too.")
    async def api_keys(
        self,
        info: Info[Operation],
        first: _FIRST = None,
        after: _CURSOR = None,
        last: _FIRST = None,
        before: _CURSOR = None,
    ) -> Connection[ApiKey] | None:
        unit = info.context.unit
        within = window(unit, _LIST, first, after, last, before)
        return Connection(
            page=await api_keys.page(unit, within),
            cursor_of=lambda key: cursor(unit, _LIST, (key.created_at, key.id)),
            count=lambda: api_keys.count(unit),
        )


@strawberry.type
class ApiKeyMutations:
    @requires(
        _MANAGE,
        description="A new service with its first API key, or one more key of a service that has or had one, which is "
        "let in again. Nobody gives more than they have.",
    )
    async def create_api_key(
        self,
        info: Info[Operation],
        name: Annotated[
            str | None, argument(Input(why="a name for a service, which is no person"), "Of a new service.")
        ] = None,
        roles: Annotated[list[Role] | None, argument(_GIVES, "Built-in ones, of a new service.")] = None,
        own_roles: Annotated[
            list[strawberry.ID] | None, argument(_GIVES, "Of the tenant's own, of a new service.")
        ] = None,
        expires_at: Annotated[datetime | None, argument(Input(why="a moment"), "Never, unless told.")] = None,
        service: Annotated[
            strawberry.ID | None,
            argument(Input(why="an id opens nothing by itself"), "Another key of this one, in place of a new service."),
        ] = None,
    ) -> ApiKeySecretPayload | None:
        unit, own = info.context.unit, [local_id("OwnRole", role) for role in own_roles or ()]
        try:
            if service is None:
                key, secret = await api_keys.create(unit, name, roles or [], own, expires_at)
            else:
                _refuse_given({"name": name, "roles": roles, "ownRoles": own_roles})
                key, secret = await api_keys.create_another(unit, local_id("Member", service), expires_at)
        except Refused as refused:
            return ApiKeySecretPayload(api_key=None, secret=None, user_errors=user_errors(refused))
        return ApiKeySecretPayload(api_key=cast(ApiKey, key), secret=secret, user_errors=[])

    @requires(
        _MANAGE,
        description="A successor of a key; the old one ends after the overlap. Asked again, where the answer was lost, "
        "it gives another, and ends the one before unless that was used.",
    )
    async def rotate_api_key(
        self,
        info: Info[Operation],
        id: _ID,
        overlap_seconds: Annotated[int, argument(Input(why="a time"), "At most 30 days; 0 ends it at once.")] = 86_400,
    ) -> ApiKeySecretPayload | None:
        unit, local = info.context.unit, local_id("ApiKey", id)
        try:
            key, secret = await api_keys.rotate(unit, local, timedelta(seconds=overlap_seconds))
        except Refused as refused:
            return ApiKeySecretPayload(api_key=None, secret=None, user_errors=user_errors(refused))
        return ApiKeySecretPayload(api_key=cast(ApiKey, key), secret=secret, user_errors=[])

    @requires(_MANAGE, description="End a key at once. With its last one a service is disabled.")
    async def revoke_api_key(self, info: Info[Operation], id: _ID) -> ApiKeyPayload | None:
        try:
            key = await api_keys.revoke(info.context.unit, local_id("ApiKey", id))
        except Refused as refused:
            return ApiKeyPayload(api_key=None, user_errors=user_errors(refused))
        return ApiKeyPayload(api_key=cast(ApiKey, key), user_errors=[])


def _refuse_given(parts: Mapping[str, Any]) -> None:
    given = [name for name, value in parts.items() if value is not None]
    if given:
        raise Refused([Reason("INVALID", (name,), f"{name} is for a new service; leave it out.") for name in given])


async def keys_by_id(operation: Operation, ids: list[Any]) -> dict[Any, Any]:
    if not operation.may(_MANAGE):
        return {}
    return dict(zip(ids, await api_keys.get_many(operation.unit, ids), strict=True))
