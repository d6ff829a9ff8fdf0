"""Access requests over GraphQL: everything about one customer as JSON, on record before it is answered."""

from typing import Annotated, Any, cast

import strawberry
from strawberry import Info

from api.directives import Input, argument, public, requires, revealed
from api.operation import Operation
from api.paging import UserError, global_id, local_id, user_errors
from domain import access_requests
from domain.errors import Refused
from tenants.access import Permission

_EXPORT = Permission.CUSTOMERS_EXPORT
_SHAPE = "the shape of a payload"


@strawberry.type(description="Everything that is kept about one customer. Every answer with it is on record.")
class CustomerExport:
    json: str = revealed(_EXPORT, description="A document of the format `coffer.access_request.v1`.")
    sha256: str = revealed(_EXPORT, description="Of the document's UTF-8 bytes, in hex.")

    @public(_SHAPE)
    def customer_id(self: Any) -> strawberry.ID:
        return global_id("Customer", self.customer)

    @public(_SHAPE)
    def format(self) -> str:
        return access_requests.FORMAT


@strawberry.type
class CustomerExportPayload:
    export: CustomerExport | None = public(_SHAPE)
    user_errors: list[UserError] = public(_SHAPE)


@strawberry.type
class AccessRequestMutations:
    @requires(
        _EXPORT,
        description="All values, tags, holds and imports of a customer, who read which of its fields when and for what,"
        " and who changed it. For whoever sees each field in plain; counts against the budget.",
    )
    async def export_customer(
        self,
        info: Info[Operation],
        id: Annotated[strawberry.ID, argument(Input(why="an id opens nothing by itself"), "The customer's.")],
        purpose: Annotated[
            str,
            argument(Input(why="a code, never free text"), "As in the header Coffer-Purpose: `access-request`."),
        ],
    ) -> CustomerExportPayload | None:
        try:
            found = await access_requests.request(info.context.unit, local_id("Customer", id), purpose)
        except Refused as refused:
            return CustomerExportPayload(export=None, user_errors=user_errors(refused))
        return CustomerExportPayload(export=cast(CustomerExport, found), user_errors=[])
