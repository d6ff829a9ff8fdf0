"""Revealing over GraphQL: one value of a customer whole, for a purpose, on record before it is answered."""

from typing import Annotated, Any, cast

import strawberry
from strawberry import Info

from api.directives import Input, argument, public, requires, revealed
from api.operation import Operation
from api.paging import UserError, global_id, local_id, user_errors
from api.roles import CustomerField
from domain import reveals
from domain.errors import Refused
from tenants.access import Permission

_REVEAL = Permission.CUSTOMERS_REVEAL
_SHAPE = "the shape of a payload"
_CODE = Input(why="a code, never free text")


@strawberry.type(description="One value of one customer, whole. Every answer with it is on record.")
class RevealedField:
    values: list[str] = revealed(_REVEAL, description="As text, dates as 2024-12-31; none where there is no value.")

    @public(_SHAPE)
    def customer_id(self: Any) -> strawberry.ID:
        return global_id("Customer", self.customer)

    @public(_SHAPE)
    def field(self: Any) -> CustomerField:  # type: ignore[valid-type]  # an enum made of the fields' table
        return CustomerField(self.field.name)


@strawberry.type
class RevealPayload:
    revealed: RevealedField | None = public(_SHAPE)
    user_errors: list[UserError] = public(_SHAPE)


@strawberry.type
class RevealMutations:
    @requires(_REVEAL, description="One value whole, of a customer of whom one sees its mask. 60 a minute, 500 a day.")
    async def reveal_customer_field(
        self,
        info: Info[Operation],
        id: Annotated[strawberry.ID, argument(Input(why="an id opens nothing by itself"), "The customer's.")],
        field: Annotated[CustomerField, argument(Input(why="the row's level of it is asked"), "Which one.")],  # type: ignore[valid-type]  # as above
        purpose: Annotated[str, argument(_CODE, "As in the header Coffer-Purpose: `support-case`.")],
        ticket: Annotated[str | None, argument(_CODE, "Where the reason stands: `CASE-1042`.")] = None,
    ) -> RevealPayload | None:
        unit, name = info.context.unit, cast(Any, field).value
        try:
            found = await reveals.reveal(unit, local_id("Customer", id), name, purpose, ticket)
        except Refused as refused:
            return RevealPayload(revealed=None, user_errors=user_errors(refused))
        return RevealPayload(revealed=cast(RevealedField, found), user_errors=[])
