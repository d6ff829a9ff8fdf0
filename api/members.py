"""Members over GraphQL: who I am, and who looks after a customer."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, cast
from uuid import UUID

import strawberry
from strawberry import Info
from strawberry.dataloader import DataLoader

from api.budgets import DisclosureBudget, own_budget
from api.directives import personal, public, requires
from api.meanings import described
from api.operation import Operation
from api.paging import Node, global_id
from api.roles import OwnRole, roles_of
from api.sessions import Session
from api.tenant import Tenant
from domain import sessions
from domain.members import MemberKind, MemberStatus, MemberView, get_many
from tenants import members, rights
from tenants.access import Level, Permission, Role
from tenants.members import MemberIdentity
from tenants.rights import Held
from tenants.signing_in import second_factors
from tenants.unit import GUARD

_OWN = "what one may know of oneself"
_READ = Permission.MEMBERS_READ
described(
    MemberStatus,
    "INVITED has not accepted yet; DISABLED is shut out.",
    INVITED="Has not accepted the invitation yet, and can't sign in.",
    ACTIVE="May sign in.",
    DISABLED="Is shut out; `enableMember` lets it in again.",
)
described(
    MemberKind,
    "A person who signs in, or a service that has an API key.",
    PERSON="Signs in by password or by the tenant's provider.",
    SERVICE="Signs in by an API key, or by a token of the tenant's provider.",
)


@strawberry.type(description="A person who works for the tenant.")
class Member(Node):
    name: str | None = personal("identity", MemberIdentity.fields["name"])
    email: str | None = personal("identity", MemberIdentity.fields["email"])
    # Nullable, so that who may not know these still gets the name of whoever looks after a customer.
    status: MemberStatus | None = requires(_READ)
    kind: MemberKind | None = requires(_READ)
    created_at: datetime | None = requires(_READ)

    @requires(_READ, description="The built-in ones; with those of the tenant's own they add up.")
    async def roles(self: Any, info: Info[Operation]) -> list[Role] | None:
        held = await _held_of(info.context).load(self.id)
        return [] if held is None else sorted(held.roles)

    @requires(_READ, description="Roles of the tenant's own that the member has.")
    async def own_roles(self: Any, info: Info[Operation]) -> list[OwnRole] | None:
        held = await _held_of(info.context).load(self.id)
        return [] if held is None else await _named(info.context, held.own_roles)

    @requires(_READ, description="When its newest session began; null where that was long ago, or never.")
    async def last_signed_in_at(self: Any, info: Info[Operation]) -> datetime | None:
        return await _newest_of(info.context).load(self.id)

    @requires(Permission.MEMBERS_MANAGE, description="Whether signing in takes a code beside the password.")
    async def has_second_factor(self: Any, info: Info[Operation]) -> bool | None:
        return await _guarded_of(info.context).load(self.id)

    @classmethod
    def is_type_of(cls, value: object, _info: Any) -> bool:
        return isinstance(value, MemberView)


@strawberry.type(description="The member who is asking.")
class Me:
    id: strawberry.ID = public(_OWN)
    name: str | None = public(_OWN)
    email: str | None = public(_OWN)
    roles: list[Role] = public(_OWN)
    permissions: list[Permission] = public(_OWN)
    tenant: Tenant = public(_OWN)

    @public(_OWN, description="Roles of the tenant's own that one has.")
    async def own_roles(self, info: Info[Operation]) -> list[OwnRole]:
        viewer = info.context.viewer
        return [] if viewer is None else await _named(info.context, viewer.own_roles)

    @public(_OWN, description="The session that one asks by; null for an API key.")
    async def session(self, info: Info[Operation]) -> Session | None:
        unit = info.context.unit
        asking = unit.viewer.session
        return None if asking is None else cast(Session, (await sessions.get_many(unit, [asking])).get(asking))

    @public(_OWN, description="Null where the tenant sets no bound.")
    async def disclosure_budget(self, info: Info[Operation]) -> DisclosureBudget | None:
        return await own_budget(info.context.unit)

    @public(_OWN, description="Whether signing in takes a code beside the password.")
    async def has_second_factor(self, info: Info[Operation]) -> bool:
        unit = info.context.unit
        return bool(unit.viewer.principal and await second_factors.holders(unit, [unit.viewer.principal]))


@strawberry.type
class MemberQueries:
    @public("who is signed in; without a token, nobody: null", description="Oneself: the member who asks, or null.")
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


def members_of(operation: Operation) -> DataLoader[UUID, MemberView | None]:
    """Members by id, of all customers of a page in one statement."""
    if "members" not in operation.loaders:
        operation.loaders["members"] = DataLoader(load_fn=lambda ids: get_many(operation.unit, ids))
    return cast("DataLoader[UUID, MemberView | None]", operation.loaders["members"])


def _held_of(operation: Operation) -> DataLoader[UUID, Held | None]:
    """Which roles members have, of a page in one statement."""

    async def load(ids: list[UUID]) -> list[Held | None]:
        found = await rights.held(operation.unit, ids)
        return [found.get(member) for member in ids]

    if "held" not in operation.loaders:
        operation.loaders["held"] = DataLoader(load_fn=load)
    return cast("DataLoader[UUID, Held | None]", operation.loaders["held"])


def _guarded_of(operation: Operation) -> DataLoader[UUID, bool]:
    """Who has a second factor, of a page in one statement."""

    async def load(ids: list[UUID]) -> list[bool]:
        found = await second_factors.holders(operation.unit, ids)
        return [member in found for member in ids]

    if "second_factors" not in operation.loaders:
        operation.loaders["second_factors"] = DataLoader(load_fn=load)
    return cast("DataLoader[UUID, bool]", operation.loaders["second_factors"])


def _newest_of(operation: Operation) -> DataLoader[UUID, datetime | None]:
    """When the newest sessions of members began, of a page in one statement."""

    async def load(ids: list[UUID]) -> list[datetime | None]:
        found = await sessions.newest(operation.unit, ids)
        return [found.get(member) for member in ids]

    if "newest_sessions" not in operation.loaders:
        operation.loaders["newest_sessions"] = DataLoader(load_fn=load)
    return cast("DataLoader[UUID, datetime | None]", operation.loaders["newest_sessions"])


async def _named(operation: Operation, own_roles: Iterable[UUID]) -> list[OwnRole]:
    """By name; without one that was deleted meanwhile."""
    found = await roles_of(operation).load_many(list(own_roles))
    return cast(list[OwnRole], sorted(filter(None, found), key=lambda role: role.name.casefold()))
