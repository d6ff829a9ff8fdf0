"""Offboarding over GraphQL: ask for the end of one's tenant, approve it as another member, call it off."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Any, cast

import strawberry
from strawberry import Info

from api.directives import Input, argument, public, requires
from api.meanings import described
from api.members import Member, members_of
from api.operation import Operation
from api.paging import UserError, user_errors
from domain import offboardings
from domain.errors import Refused
from domain.offboardings import COOLING_DAYS, MOST_DAYS
from tenants.access import Permission
from tenants.erasures import offboardings as rows
from tenants.erasures.offboardings import OffboardingState
from tenants.unit import Unit

_MANAGE, _CLOSE = Permission.TENANT_MANAGE, Permission.TENANT_CLOSE
_SHAPE = "the shape of a payload"

described(
    OffboardingState,
    "How far the end of a tenant is.",
    REQUESTED="A member asked for it; another one must approve it.",
    COOLING="It was approved: nothing can be changed, all can be read, and it can be called off.",
    CANCELLED="It was called off.",
    SHREDDING="The operator destroys the tenant's key: it can't be called off any more.",
    CLOSED="All of the tenant is deleted.",
)


@strawberry.type(description="The end of a tenant.")
class Offboarding:
    state: OffboardingState = requires(_MANAGE)
    requested_at: datetime = requires(_MANAGE)
    approved_at: datetime | None = requires(_MANAGE)
    cooling_days: int = requires(_MANAGE, description="How long it can be called off once it is approved.")
    shred_after: datetime | None = requires(_MANAGE, description="From then on the operator may destroy the key.")
    ended_at: datetime | None = requires(_MANAGE)

    @requires(_MANAGE)
    async def requested_by(self: Any, info: Info[Operation]) -> Member | None:
        return cast(Member | None, await members_of(info.context).load(self.requested_by))

    @requires(_MANAGE, description="Null where the platform's operator did.")
    async def approved_by(self: Any, info: Info[Operation]) -> Member | None:
        who = self.approved_by
        return None if who is None else cast(Member | None, await members_of(info.context).load(who))


@strawberry.type
class OffboardingPayload:
    offboarding: Offboarding | None = public(_SHAPE)
    user_errors: list[UserError] = public(_SHAPE)


@strawberry.type
class OffboardingQueries:
    @requires(_MANAGE, description="The end of the tenant, if anybody asked for it; also one that was called off.")
    async def offboarding(self, info: Info[Operation]) -> Offboarding | None:
        return cast(Offboarding | None, await offboardings.newest(info.context.unit))


@strawberry.type
class OffboardingMutations:
    @requires(_CLOSE, description="Ask for the end of the tenant. Needs a fresh proof of identity.")
    async def request_offboarding(
        self,
        info: Info[Operation],
        cooling_days: Annotated[
            int, argument(Input(why="a number of days"), f"How long it can be called off: 1 to {MOST_DAYS}.")
        ] = COOLING_DAYS,
    ) -> OffboardingPayload | None:
        return await _answered(info, lambda unit: offboardings.request(unit, cooling_days))

    @requires(
        _CLOSE,
        description="Approve it, as another member than asked: from now on nothing can be changed. Needs a fresh proof"
        " of identity.",
    )
    async def approve_offboarding(self, info: Info[Operation]) -> OffboardingPayload | None:
        return await _answered(info, offboardings.approve)

    @requires(_CLOSE, description="Call it off, until the operator destroys the key. Comes without other mutations.")
    async def cancel_offboarding(self, info: Info[Operation]) -> OffboardingPayload | None:
        return await _answered(info, offboardings.cancel)


async def _answered(info: Info[Operation], act: Callable[[Unit], Awaitable[rows.Offboarding]]) -> OffboardingPayload:
    try:
        row = await act(info.context.unit)
    except Refused as refused:
        return OffboardingPayload(offboarding=None, user_errors=user_errors(refused))
    return OffboardingPayload(offboarding=cast(Offboarding, row), user_errors=[])
