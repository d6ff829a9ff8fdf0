"""Changes of customers over GraphQL, and what is answered again where a change is sent again."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any, cast
from uuid import UUID

import strawberry
from strawberry import Info

from api.customers import CUSTOMER_ID, Customer, CustomerInput, sent_by
from api.directives import Input, argument, public, requires
from api.operation import Operation, fingerprint, key_of
from api.paging import UserError, local_id, user_errors
from domain import customers, outcomes
from domain import errors as domain_errors
from domain.customers import CustomerView
from domain.errors import BadInput, Refused
from tenants.access import Permission
from tenants.unit import Unit

_WRITE = Permission.CUSTOMERS_WRITE
_SHAPE = "the shape of a payload"
_VERSION = Annotated[int, argument(Input(why="a count of changes"), "The version that was read.")]
_INPUT = Annotated[CustomerInput, argument(Input(why="each of its fields has its own right"), "What to set.")]


@strawberry.type
class CustomerPayload:
    customer: Customer | None = public(_SHAPE)
    user_errors: list[UserError] = public(_SHAPE)


@strawberry.type(description="What became of one row, in the order of the input.")
class CustomerOutcome:
    row: int = public(_SHAPE)
    customer: Customer | None = public(_SHAPE)
    user_errors: list[UserError] = public(_SHAPE)


@strawberry.type
class CustomersPayload:
    outcomes: list[CustomerOutcome] = public(_SHAPE)
    created: int = public(_SHAPE)
    user_errors: list[UserError] = public(_SHAPE, description="Errors of the whole call; those of a row are with it.")


@strawberry.type
class CustomerMutations:
    @requires(_WRITE, description="Make a customer. With an Idempotency-Key, asking again makes no second one.")
    async def create_customer(self, info: Info[Operation], input: _INPUT) -> CustomerPayload | None:
        unit, sent = info.context.unit, sent_by(input)
        return await answered(info, sent, lambda: customers.create(unit, sent))

    @requires(_WRITE, description="Make up to 500 customers; each row succeeds or fails alone.")
    async def create_customers(
        self,
        info: Info[Operation],
        input: Annotated[
            list[CustomerInput], argument(Input(why="each of its fields has its own right"), "1 to 500 customers.")
        ],
    ) -> CustomersPayload | None:
        if not 1 <= len(input) <= customers.MOST_AT_ONCE:
            raise BadInput(f"`input` has 1 to {customers.MOST_AT_ONCE} rows.")
        rows = [sent_by(row) for row in input]
        made = await many_answered(info, rows, lambda: customers.create_many(info.context.unit, rows))
        created = sum(not isinstance(each, Refused) for each in made)
        return CustomersPayload(outcomes=outcomes_of(made, "input"), created=created, user_errors=[])

    @requires(_WRITE, description="Set the given fields of the version that was read.")
    async def update_customer(
        self,
        info: Info[Operation],
        id: CUSTOMER_ID,
        version: _VERSION,
        input: _INPUT,
    ) -> CustomerPayload | None:
        unit, sent, local = info.context.unit, sent_by(input), local_id("Customer", id)
        request = {"id": local, "version": version, "input": sent}
        return await answered(info, request, lambda: customers.update(unit, local, version, sent))

    @requires(Permission.CUSTOMERS_ARCHIVE, description="Take a customer out of the lists, to be restored at any time.")
    async def archive_customer(self, info: Info[Operation], id: CUSTOMER_ID) -> CustomerPayload | None:
        unit, local = info.context.unit, local_id("Customer", id)
        return await answered(info, {"id": local}, lambda: customers.archive(unit, local))

    @requires(Permission.CUSTOMERS_ARCHIVE, description="Bring an archived customer back into the lists.")
    async def restore_customer(self, info: Info[Operation], id: CUSTOMER_ID) -> CustomerPayload | None:
        unit, local = info.context.unit, local_id("Customer", id)
        return await answered(info, {"id": local}, lambda: customers.restore(unit, local))


async def answered(
    info: Info[Operation],
    request: Mapping[str, Any],
    change: Callable[[], Awaitable[CustomerView]],
    above: tuple[str, ...] = ("input",),
) -> CustomerPayload:
    """The payload of a change to one customer, remembered under the request's Idempotency-Key if it has one."""
    try:
        view = await _once(info, request, change)
    except Refused as refused:
        return CustomerPayload(customer=None, user_errors=user_errors(refused, above))
    return CustomerPayload(customer=_within_reach(view), user_errors=[])


async def _once(
    info: Info[Operation], request: Mapping[str, Any], change: Callable[[], Awaitable[CustomerView]]
) -> CustomerView | None:
    unit, key, said = info.context.unit, key_of(info), fingerprint(info, request)
    kept = await outcomes.find(unit, key, said) if key else None
    if kept is not None:
        (before,) = await customers.get_many(unit, [UUID(kept["customer"])])
        if before is None and kept["shown"]:
            raise outcomes.gone(("id",) if "id" in request else ())
        return before
    view = await change()
    if key:
        await outcomes.keep(unit, key, said, {"customer": str(view.id), "shown": view.is_within_reach})
    return view


Many = Sequence[CustomerView | Refused | None]


async def many_answered(info: Info[Operation], request: Any, change: Callable[[], Awaitable[Many]]) -> Many:
    """What became of many customers, remembered as `answered` does; None for one that the change put out of reach."""
    unit, key, said = info.context.unit, key_of(info), fingerprint(info, request)
    kept = await outcomes.find(unit, key, said) if key else None
    if kept is not None:
        return await _replayed(unit, kept["rows"], kept["away"])
    made = await change()
    if key:
        rows = [_kept(each) for each in made if each is not None]
        away = [str(each.id) for each in made if isinstance(each, CustomerView) and not each.is_within_reach]
        await outcomes.keep(unit, key, said, {"rows": rows, "away": away})
    return made


def outcomes_of(many: Many, above: str) -> list[CustomerOutcome]:
    """`above` is the argument whose rows they are."""
    return [
        CustomerOutcome(row=n, customer=None, user_errors=user_errors(each, (above, str(n))))
        if isinstance(each, Refused)
        else CustomerOutcome(row=n, customer=_within_reach(each), user_errors=[])
        for n, each in enumerate(many)
    ]


def _within_reach(view: CustomerView | None) -> Customer | None:
    """What was just changed can be beyond the viewer's reach by that: then only that it was changed is told."""
    return cast(Customer, view) if view is not None and view.is_within_reach else None


def _kept(outcome: CustomerView | Refused) -> Any:
    if isinstance(outcome, Refused):
        return [[error.code, list(error.path), error.message] for error in outcome.errors]
    return str(outcome.id)


async def _replayed(unit: Unit, kept: list[Any], away: list[str]) -> Many:
    found = iter(await customers.get_many(unit, [UUID(each) for each in kept if isinstance(each, str)]))
    return [
        next(found) or (None if each in away else outcomes.gone())
        if isinstance(each, str)
        else Refused([domain_errors.UserError(code, tuple(path), message) for code, path, message in each])
        for each in kept
    ]
