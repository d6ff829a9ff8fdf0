"""Members over GraphQL: who I am, who looks after a customer, and signing in."""

from typing import Annotated, Any, cast
from uuid import UUID

import strawberry
from strawberry import Info
from strawberry.dataloader import DataLoader

from api.directives import Input, argument, personal, public
from api.operation import Operation
from api.paging import Node, UserError, global_id
from domain.errors import BadInput
from tenants import members
from tenants.access import Level, Permission, Role
from tenants.errors import SignInRefused, TooManyAttempts
from tenants.members import MemberIdentity
from tenants.unit import GUARD, Unit
from tenants.viewers import MemberId

_OWN = "what one may know of oneself"
_SHAPE = "the shape of a payload"
_TOKEN_TYPE = "Bearer"  # noqa: S105  # the name of a kind of token
strawberry.enum(Role, description="A built-in role; roles add up.")


class MemberView:
    """A member's id and opened identity, which the guard lets out by rule."""

    __slots__ = ("_identity", "_unit", "id")

    def __init__(self, id: MemberId, identity: MemberIdentity, unit: Unit) -> None:
        self.id = id
        self._identity = identity
        self._unit = unit

    def document(self, _column: str, why: str) -> MemberIdentity:
        if why == GUARD:
            self._unit.disclose("Member", [self.id])
        return self._identity


@strawberry.type(description="A person who works for the tenant.")
class Member(Node):
    name: str | None = personal("identity", MemberIdentity.fields["name"])
    email: str | None = personal("identity", MemberIdentity.fields["email"])

    @classmethod
    def is_type_of(cls, value: object, _info: Any) -> bool:
        return isinstance(value, MemberView)


@strawberry.type(description="The tenant one works for.")
class Tenant:
    slug: str = public(_OWN)
    name: str = public(_OWN)
    default_region: str = public(_OWN)
    default_language: str = public(_OWN)


@strawberry.type(description="The member who is asking.")
class Me:
    id: strawberry.ID = public(_OWN)
    name: str | None = public(_OWN)
    email: str | None = public(_OWN)
    roles: list[Role] = public(_OWN)
    permissions: list[Permission] = public(_OWN)
    tenant: Tenant = public(_OWN)


@strawberry.type
class SignInPayload:
    access_token: str | None = public(_SHAPE, description="Send it as `Authorization: Bearer …`.")
    token_type: str = public(_SHAPE)
    expires_in: int = public(_SHAPE, description="Seconds.")
    user_errors: list[UserError] = public(_SHAPE)


@strawberry.type
class MemberQueries:
    @public("who is signed in; without a token, nobody: null")
    async def me(self, info: Info[Operation]) -> Me | None:
        viewer = info.context.viewer
        if viewer is None or viewer.principal is None:
            return None
        unit, own = info.context.unit, None
        shown = sorted({"Me.name", "Me.email"} & info.context.selected)
        if shown:
            own = (await members.identities(unit, [viewer.principal], GUARD))[viewer.principal]
            unit.disclose("Member", [viewer.principal], [f"{field}:{Level.PLAIN.name}" for field in shown])
        return Me(
            id=global_id("Member", viewer.principal),
            name=own.name if own else None,
            email=own.email if own else None,
            roles=sorted(viewer.roles),
            permissions=sorted(viewer.grants.permissions),
            tenant=Tenant(
                slug=unit.tenant.slug,
                name=unit.tenant.name,
                default_region=unit.tenant.default_region,
                default_language=unit.tenant.default_language,
            ),
        )


_CREDENTIAL = Input(why="part of a credential")


@strawberry.type
class MemberMutations:
    @public("how one becomes a viewer", description="A token for 15 minutes. Slows down after failures.")
    async def sign_in(
        self,
        info: Info[Operation],
        tenant: Annotated[str, argument(_CREDENTIAL, "The tenant's slug.")],
        email: Annotated[str, argument(_CREDENTIAL)],
        password: Annotated[str, argument(_CREDENTIAL)],
    ) -> SignInPayload | None:
        if info.context.viewer is not None:
            # Its unit holds a connection while signing in waits for others: a few of these could stall everybody.
            raise BadInput("Send signIn without an access token.")
        services = info.context.services
        try:
            credential = await services.sign_ins.sign_in(tenant, email, password, info.context.request.origin)
        except (SignInRefused, TooManyAttempts) as refused:
            errors = [UserError(code=refused.code, path=[], message=refused.message)]
            return SignInPayload(access_token=None, token_type=_TOKEN_TYPE, expires_in=0, user_errors=errors)
        token = await services.tokens.issue(credential)
        return SignInPayload(
            access_token=token, token_type=_TOKEN_TYPE, expires_in=services.tokens.lifetime, user_errors=[]
        )


def members_of(operation: Operation) -> DataLoader[UUID, MemberView | None]:
    """Members by id, of all customers of a page in one statement."""

    async def load(ids: list[UUID]) -> list[MemberView | None]:
        known = await members.identities(operation.unit, map(MemberId, ids), GUARD)
        mine = operation.unit
        return [MemberView(MemberId(i), known[MemberId(i)], mine) if MemberId(i) in known else None for i in ids]

    if "members" not in operation.loaders:
        operation.loaders["members"] = DataLoader(load_fn=load)
    return cast("DataLoader[UUID, MemberView | None]", operation.loaders["members"])
