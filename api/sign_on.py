"""Single sign-on over GraphQL: a tenant's OpenID providers, and the way of a browser to one and back."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, cast
from uuid import UUID

import strawberry
from strawberry import UNSET, Info

from api.code_flow import Begun, Return
from api.directives import Input, argument, input_, public, requires
from api.meanings import described
from api.operation import Operation
from api.paging import Node, UserError, global_id, local_id, user_errors
from api.roles import OwnRole, roles_of
from api.sign_in import CREDENTIAL, SignInPayload, alone, no_tokens, signed_in, tokens_of, told
from domain import sign_on
from domain.errors import Refused
from domain.errors import UserError as Reason
from domain.sign_on import Entry, Wanted
from tenants.access import Permission, Role
from tenants.errors import RedirectRefused, SignOnRefused, SignOnUnavailable, SignOnUnknown
from tenants.signing_in import sign_on as kept
from tenants.signing_in.sign_on import Roles
from tenants.signing_in.sign_on import SignOnProvider as Row

_MANAGE = Permission.SIGN_ON_MANAGE
_SHAPE = "the shape of a payload"
_SCOPES = ("openid", "profile", "email")
_HARMLESS = Input(why="an id opens nothing by itself")
_SETTING = "a setting of the tenant's"
_GRANT = "nobody grants beyond their own rights"


class AccessTokens(StrEnum):
    NONE = "NONE"
    AT_JWT = "AT_JWT"
    JWT = "JWT"


described(
    AccessTokens,
    "Which access tokens of the provider services may bear here.",
    NONE="None.",
    AT_JWT="Those of the type at+jwt (RFC 9068).",
    JWT="Untyped ones too; they need an audience of their own, that is not the client's id.",
)


@strawberry.type(description="Roles for whoever has a value in the role claim.")
class MappedRole:
    entry: strawberry.Private[Any]

    @requires(_MANAGE)
    def value(self) -> str:
        return cast(str, self.entry["value"])

    @requires(_MANAGE)
    def roles(self) -> list[Role]:
        return [Role(role) for role in self.entry["roles"]]

    @requires(_MANAGE, description="Those that are still there.")
    async def own_roles(self, info: Info[Operation]) -> list[OwnRole]:
        return await _named(info.context, list(map(UUID, self.entry["ownRoles"])))


@strawberry.type(description="An OpenID provider that vouches for members of the tenant.")
class SignOnProvider(Node):
    name: str = requires(_MANAGE)
    issuer: str = requires(_MANAGE)
    client_id: str = requires(_MANAGE)
    audience: str | None = requires(_MANAGE, description="Of services' access tokens; null where none are taken.")
    scopes: list[str] = requires(_MANAGE)
    role_claim: str | None = requires(_MANAGE)
    is_enabled: bool = requires(_MANAGE)
    created_at: datetime = requires(_MANAGE)
    updated_at: datetime = requires(_MANAGE)

    @requires(_MANAGE, description="The secret itself is never shown.")
    def has_client_secret(self: Any) -> bool:
        return self.secret is not None

    @requires(_MANAGE)
    def access_tokens(self: Any) -> AccessTokens:
        return AccessTokens(self.access_tokens)

    @requires(_MANAGE)
    def role_map(self: Any) -> list[MappedRole]:
        return [MappedRole(entry=entry) for entry in self.role_map]

    @requires(_MANAGE, description="For whom no value of the map fits; with none at all such a person is refused.")
    def default_roles(self: Any) -> list[Role]:
        return [Role(role) for role in self.default_roles]

    @requires(_MANAGE)
    async def default_own_roles(self: Any, info: Info[Operation]) -> list[OwnRole]:
        return await _named(info.context, list(self.default_own_roles))

    @classmethod
    def is_type_of(cls, value: object, _info: Any) -> bool:
        return isinstance(value, Row)


@strawberry.input(description="Roles for whoever has this value in the role claim.")
class MappedRoleInput:
    value: str = input_(_SETTING, description="As the claim has it.")
    roles: list[Role] = input_(_GRANT, default_factory=list, description="Built-in ones.")
    own_roles: list[strawberry.ID] = input_(_GRANT, default_factory=list, description="Of the tenant's own.")


@strawberry.input(description="The whole of a provider's settings: what is left out becomes its default.")
class SignOnInput:
    issuer: str = input_(_SETTING, description="As the provider spells it: `https://login.example.org`")
    client_id: str = input_(_SETTING, description="What the provider calls this tenant's Coffer.")
    client_secret: str | None = input_(
        "write-only", default=UNSET, description="Left out, it stays; null: a public client."
    )
    name: str | None = input_(_SETTING, default=None, description="The issuer's host unless told.")
    access_tokens: AccessTokens = input_(_SETTING, default=AccessTokens.AT_JWT, description="Of services.")
    audience: str | None = input_(_SETTING, default=None, description="The client's id unless told.")
    scopes: list[str] = input_(_SETTING, default_factory=lambda: list(_SCOPES), description="What is asked of it.")
    role_claim: str | None = input_(
        _SETTING, default=None, description="A claim's name; dots lead into objects: `realm_access.roles`"
    )
    role_map: list[MappedRoleInput] = input_(_GRANT, default_factory=list, description="Needs a roleClaim.")
    default_roles: list[Role] = input_(_GRANT, default_factory=list, description="For whom no value fits.")
    default_own_roles: list[strawberry.ID] = input_(_GRANT, default_factory=list, description="Likewise.")
    is_enabled: bool = input_(_SETTING, default=True, description="False lets nobody in by it.")


@strawberry.type
class SignOnPayload:
    provider: SignOnProvider | None = public(_SHAPE)
    user_errors: list[UserError] = public(_SHAPE)


@strawberry.type
class RemoveSignOnPayload:
    removed_id: strawberry.ID | None = public(_SHAPE)
    user_errors: list[UserError] = public(_SHAPE)


@strawberry.type
class BeginSignOnPayload:
    authorization_url: str | None = public(_SHAPE, description="Send the browser there.")
    handle: str | None = public(_SHAPE, description="Keep it in this browser, and give it to completeSignOn.")
    user_errors: list[UserError] = public(_SHAPE)


@strawberry.type
class SignOnQueries:
    @requires(_MANAGE, description="The tenant's sign-on providers, oldest first; there are at most 5.")
    async def sign_on(self, info: Info[Operation]) -> list[SignOnProvider] | None:
        return cast(list[SignOnProvider], await kept.providers(info.context.unit))


_ID = argument(_HARMLESS, "A provider's; the oldest unless told.")
_REDIRECT = argument(Input(why="held against a list of origins"), "Where the browser comes back to: an origin of ours.")


@strawberry.type
class SignOnMutations:
    @requires(
        _MANAGE,
        description="Add a provider, or change that one. Where issuer, client or audience change, sessions by it end.",
    )
    async def set_sign_on(
        self,
        info: Info[Operation],
        input: Annotated[SignOnInput, argument(Input(why=_GRANT), "All of its settings.")],
        id: Annotated[strawberry.ID | None, argument(_HARMLESS, "Left out: a new provider.")] = None,
    ) -> SignOnPayload | None:
        operation, provider = info.context, None if id is None else local_id("SignOnProvider", id)
        try:
            row = await sign_on.set_(operation.unit, provider, _wanted(operation, input))
        except Refused as refused:
            return SignOnPayload(provider=None, user_errors=user_errors(refused, ("input",)))
        return SignOnPayload(provider=cast(SignOnProvider, row), user_errors=[])

    @requires(_MANAGE, description="Sessions and links by it end; whom it vouched for stay members.")
    async def remove_sign_on(
        self, info: Info[Operation], id: Annotated[strawberry.ID, argument(_HARMLESS, "The provider's.")]
    ) -> RemoveSignOnPayload | None:
        provider = local_id("SignOnProvider", id)
        try:
            await sign_on.remove(info.context.unit, provider)
        except Refused as refused:
            return RemoveSignOnPayload(removed_id=None, user_errors=user_errors(refused))
        return RemoveSignOnPayload(removed_id=global_id("SignOnProvider", provider), user_errors=[])

    @public("how one becomes a viewer", description="The way to the tenant's provider, for 10 minutes.")
    async def begin_sign_on(
        self,
        info: Info[Operation],
        tenant: Annotated[str, argument(CREDENTIAL, "The tenant's slug.")],
        redirect_uri: Annotated[str, _REDIRECT],
        provider: Annotated[strawberry.ID | None, _ID] = None,
        fresh: Annotated[
            bool, argument(Input(why="asks for more"), "Have the provider ask for a proof anew, for what wants it.")
        ] = False,
    ) -> BeginSignOnPayload | None:
        operation, chosen = alone(info), _provider(provider)
        begin, sent = operation.services.code_flow.begin, operation.request
        came = (sent.device.address, sent.origin)
        try:
            return _begun(await begin(tenant, chosen, redirect_uri, *came, is_fresh=fresh))
        except (SignOnRefused, SignOnUnavailable) as refused:
            return _not_begun(refused)

    @public(
        "for whoever is signed in, and of that member alone",
        description="As beginSignOn; whoever comes back is linked to the member who asked, and can sign in as it.",
    )
    async def link_sign_on(
        self,
        info: Info[Operation],
        redirect_uri: Annotated[str, _REDIRECT],
        provider: Annotated[strawberry.ID | None, _ID] = None,
    ) -> BeginSignOnPayload | None:
        operation, credential = signed_in(info)
        begin, address = operation.services.code_flow.begin_link, operation.request.device.address
        try:
            return _begun(await begin(credential, _provider(provider), redirect_uri, address))
        except (SignOnRefused, SignOnUnavailable) as refused:
            return _not_begun(refused)
        except Refused as refused:
            return BeginSignOnPayload(authorization_url=None, handle=None, user_errors=user_errors(refused))

    @public("how one becomes a viewer", description="Opens a session for whom the provider vouches. Once.")
    async def complete_sign_on(
        self,
        info: Info[Operation],
        state: Annotated[str, argument(CREDENTIAL, "As it came back in the address.")],
        code: Annotated[str, argument(CREDENTIAL, "As it came back in the address.")],
        handle: Annotated[str, argument(CREDENTIAL, "From beginSignOn: whoever stole the other two has not got it.")],
        iss: Annotated[str | None, argument(CREDENTIAL, "As it came back, if it did (RFC 9207).")] = None,
    ) -> SignInPayload | None:
        operation = alone(info)
        sent = operation.request
        try:
            opened = await operation.services.code_flow.complete(
                Return(state, code, handle, iss), sent.origin, sent.device
            )
        except (SignOnRefused, SignOnUnavailable) as refused:
            return no_tokens(refused)
        return await tokens_of(operation, *opened)


def _begun(begun: Begun) -> BeginSignOnPayload:
    return BeginSignOnPayload(authorization_url=begun.url, handle=begun.handle, user_errors=[])


def _not_begun(refused: SignOnRefused | SignOnUnavailable) -> BeginSignOnPayload:
    path = {RedirectRefused.code: ["redirectUri"], SignOnUnknown.code: ["provider"]}.get(refused.code, [])
    return BeginSignOnPayload(authorization_url=None, handle=None, user_errors=told(refused, *path))


def _provider(id: strawberry.ID | None) -> UUID | None:
    return None if id is None else local_id("SignOnProvider", id)


def _wanted(operation: Operation, input: SignOnInput) -> Wanted:
    """Raises `Refused` for an issuer that can't be one."""
    if not operation.services.is_issuer(input.issuer):
        raise Refused(
            [Reason("INVALID", ("issuer",), "issuer must be the https address of a provider at a public host.")]
        )
    return Wanted(
        name=input.name or input.issuer.partition("//")[2].partition("/")[0],
        issuer=input.issuer,
        client_id=input.client_id,
        secret=input.client_secret or None,
        changes_secret=input.client_secret is not UNSET,
        audience=input.audience,
        access_tokens=input.access_tokens.value,
        scopes=tuple(input.scopes),
        role_claim=input.role_claim,
        role_map=[Entry(each.value, _roles(each.roles, each.own_roles)) for each in input.role_map],
        default_roles=_roles(input.default_roles, input.default_own_roles),
        is_enabled=input.is_enabled,
    )


def _roles(built_in: Sequence[Role], own: Sequence[strawberry.ID]) -> Roles:
    return Roles(frozenset(built_in), frozenset(local_id("OwnRole", each) for each in own))


async def _named(operation: Operation, own_roles: list[UUID]) -> list[OwnRole]:
    found = await roles_of(operation).load_many(own_roles)
    return cast(list[OwnRole], sorted(filter(None, found), key=lambda role: role.name.casefold()))


async def providers_by_id(operation: Operation, ids: list[Any]) -> dict[Any, Any]:
    if not operation.may(_MANAGE):
        return {}
    found = {row.id: row for row in await kept.providers(operation.unit)}
    return {each: found[each] for each in ids if each in found}
