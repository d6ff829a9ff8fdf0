"""The tenant over GraphQL: its profile, and changing it."""

from datetime import datetime
from typing import Annotated, cast
from uuid import UUID

import strawberry
from strawberry import UNSET, Info
from strawberry.dataloader import DataLoader

from api.directives import Input, argument, input_, public, requires
from api.operation import Operation
from api.paging import UserError, global_id, user_errors
from domain import profiles
from domain.errors import Refused
from domain.profiles import Profile
from tenants.access import Permission
from tenants.viewers import TenantState

_OWN = "what one may know of oneself"
_SHAPE = "the shape of a payload"
_MANAGE = Permission.TENANT_MANAGE
_LOADER = "tenant profile"
_SETS = "a setting, for whom the mutation's permission lets"


@strawberry.type(description="The tenant one works for.")
class Tenant:
    slug: str = public(_OWN, description="Names the tenant at sign-in; it never changes.")
    name: str = public(_OWN)
    default_region: str = public(_OWN, description="ISO 3166-1; phone numbers without a country code are read by it.")
    default_language: str = public(_OWN, description="BCP 47.")

    @public(_OWN)
    def id(self, info: Info[Operation]) -> strawberry.ID:
        return global_id("Tenant", info.context.unit.tenant.id)

    @public(_OWN)
    async def status(self, info: Info[Operation]) -> str:
        return (await _profile(info)).status

    @public(_OWN)
    async def created_at(self, info: Info[Operation]) -> datetime:
        return (await _profile(info)).created_at

    @requires(
        _MANAGE, description="Plain values per member and hour, beyond which values are masked; null for no bound."
    )
    async def disclosure_budget(self, info: Info[Operation]) -> int | None:
        return (await _profile(info)).disclosure_budget

    @requires(_MANAGE, description="Whether a reveal needs a fresh proof of who one is.")
    async def reveal_needs_step_up(self, info: Info[Operation]) -> bool | None:
        return (await _profile(info)).reveal_needs_step_up


async def _profile(info: Info[Operation]) -> Profile:
    """Read once per operation, and anew after a change."""
    unit, loaders = info.context.unit, info.context.loaders

    async def load(_keys: list[UUID]) -> list[Profile]:
        return [await profiles.get(unit)]

    loader = loaders.setdefault(_LOADER, DataLoader(load_fn=load))
    return cast(Profile, await loader.load(unit.tenant.id))


@strawberry.input(description="What is left out stays as it is.")
class TenantInput:
    name: str | None = input_(_SETS, default=UNSET, description="What the tenant is called; letters bear it.")
    default_region: str | None = input_(_SETS, default=UNSET, description="ISO 3166-1, two letters.")
    default_language: str | None = input_(_SETS, default=UNSET, description="BCP 47.")
    disclosure_budget: int | None = input_(
        _SETS, default=UNSET, description="1 to 10,000,000, or null for none. Raising or lifting it takes an OWNER."
    )
    reveal_needs_step_up: bool | None = input_(_SETS, default=UNSET, description="Switching it off takes an OWNER.")


@strawberry.type
class TenantPayload:
    tenant: Tenant | None = public(_SHAPE)
    user_errors: list[UserError] = public(_SHAPE)


@strawberry.type
class TenantQueries:
    @public("one's own tenant; without a token, nobody's: null", description="The tenant one works for.")
    def tenant(self, info: Info[Operation]) -> Tenant | None:
        viewer = info.context.viewer
        if viewer is None or viewer.principal is None:
            return None
        return _shown(info.context.unit.tenant)


@strawberry.type
class TenantMutations:
    @requires(_MANAGE, description="Change the tenant's settings.")
    async def update_tenant(
        self,
        info: Info[Operation],
        input: Annotated[TenantInput, argument(Input(why="its fields have rules"), "What to set.")],
    ) -> TenantPayload | None:
        given = {name: value for name, value in vars(input).items() if value is not UNSET}
        try:
            changed = await profiles.change(info.context.unit, given)
        except Refused as refused:
            return TenantPayload(tenant=None, user_errors=user_errors(refused, ("input",)))
        info.context.loaders.pop(_LOADER, None)
        return TenantPayload(tenant=_shown(changed), user_errors=[])


def _shown(known: Profile | TenantState) -> Tenant:
    return Tenant(
        slug=known.slug,
        name=known.name,
        default_region=known.default_region,
        default_language=known.default_language,
    )
