"""Legal holds over GraphQL."""

from datetime import datetime
from typing import Annotated, Any, cast

import strawberry
from strawberry import Info

from api.directives import Input, argument, personal, public, requires
from api.members import Member, members_of
from api.operation import Operation
from api.paging import UserError, global_id, local_id, user_errors
from domain import holds
from domain.errors import Refused
from domain.holds import HoldReason
from tenants.access import Permission

_READ, _HOLD = Permission.CUSTOMERS_READ, Permission.CUSTOMERS_HOLD
_SHAPE = "the shape of a payload"
_HARMLESS = Input(why="an id opens nothing by itself")
_REASON = Input(why="kept sealed; the permission to hold is the right to say why")


@strawberry.type(description="That a customer may not be erased.")
class LegalHold:
    reason: str | None = personal("reason", HoldReason.fields["reason"])
    ticket: str | None = requires(_READ, description="Where the case stands.")
    placed_at: datetime = requires(_READ)
    lifted_at: datetime | None = requires(_READ, description="Since when it doesn't hold any more.")

    @public("an id opens nothing by itself", description="For `liftHold`.")
    def id(self: Any) -> strawberry.ID:
        return global_id("LegalHold", self.row.id)

    @requires(_READ)
    def customer_id(self: Any) -> strawberry.ID:
        return global_id("Customer", self.row.customer_id)

    @requires(_READ)
    async def placed_by(self: Any, info: Info[Operation]) -> Member | None:
        who = self.row.placed_by
        return None if who is None else cast(Member, await members_of(info.context).load(who))

    @requires(_READ)
    async def lifted_by(self: Any, info: Info[Operation]) -> Member | None:
        who = self.row.lifted_by
        return None if who is None else cast(Member, await members_of(info.context).load(who))


@strawberry.type
class LegalHoldPayload:
    hold: LegalHold | None = public(_SHAPE)
    user_errors: list[UserError] = public(_SHAPE)


@strawberry.type
class HoldQueries:
    @requires(_READ, description="All holds that a customer ever had, the newest first.")
    async def legal_holds(
        self, info: Info[Operation], customer: Annotated[strawberry.ID, argument(_HARMLESS, "Whose.")]
    ) -> list[LegalHold] | None:
        return cast(list[LegalHold], await holds.of_customer(info.context.unit, local_id("Customer", customer)))


@strawberry.type
class HoldMutations:
    @requires(_HOLD, description="Keep a customer from being erased until the hold is lifted.")
    async def place_hold(
        self,
        info: Info[Operation],
        customer: Annotated[strawberry.ID, argument(_HARMLESS, "Who is to be kept.")],
        reason: Annotated[str, argument(_REASON, "1 to 10,000 characters.")],
        ticket: Annotated[
            str | None, argument(Input(why="a code, never free text"), "Where the case stands: `LEGAL-12`.")
        ] = None,
    ) -> LegalHoldPayload | None:
        try:
            placed = await holds.place(info.context.unit, local_id("Customer", customer), reason, ticket)
        except Refused as refused:
            return LegalHoldPayload(hold=None, user_errors=user_errors(refused))
        return LegalHoldPayload(hold=cast(LegalHold, placed), user_errors=[])

    @requires(_HOLD, description="Let a customer go; to lift a hold again changes nothing.")
    async def lift_hold(
        self, info: Info[Operation], id: Annotated[strawberry.ID, argument(_HARMLESS, "The hold's.")]
    ) -> LegalHoldPayload | None:
        try:
            lifted = await holds.lift(info.context.unit, local_id("LegalHold", id))
        except Refused as refused:
            return LegalHoldPayload(hold=None, user_errors=user_errors(refused))
        return LegalHoldPayload(hold=cast(LegalHold, lifted), user_errors=[])
