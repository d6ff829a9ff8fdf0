"""Hand-overs over GraphQL: one customer, up to 500 by their ids, or as a job all that a member looks after."""

from collections.abc import Mapping
from typing import Annotated, Any, cast
from uuid import UUID

import strawberry
from strawberry import Info

from api.customer_changes import CustomerOutcome, CustomerPayload, answered, many_answered, outcomes_of
from api.directives import Input, Writes, argument, public, requires
from api.jobs import Job
from api.operation import Operation, fingerprint, key_of
from api.paging import UserError, local_id, user_errors
from domain import hand_overs, jobs, outcomes
from domain.errors import BadInput, Refused
from domain.hand_overs import MOST_AT_ONCE, HandOver
from tenants.access import Permission

_SHAPE = "the shape of a payload"
_HARMLESS = Input(why="an id opens nothing by itself")
_OWNER = Writes(field="Customer.ownerId")


@strawberry.type
class HandOverPayload:
    outcomes: list[CustomerOutcome] = public(
        _SHAPE, description="In the order of `ids`; `customer` is null where you reach it no longer."
    )
    handed_over: int = public(_SHAPE, description="How many of `ids` are the new owner's now.")
    job: Job | None = public(_SHAPE, description="What hands over all customers of `from`.")
    user_errors: list[UserError] = public(_SHAPE, description="Errors of the whole call; those of a row are with it.")


_ID = Annotated[strawberry.ID, argument(_HARMLESS, "The customer's.")]
_TO = Annotated[strawberry.ID, argument(_OWNER, "The active member, or service, who looks after them from now on.")]
_IDS = Annotated[list[strawberry.ID] | None, argument(_HARMLESS, f"1 to {MOST_AT_ONCE} customers.")]
_FROM = Annotated[
    strawberry.ID | None,
    strawberry.argument(name="from", description="The member whose customers they are.", directives=[_HARMLESS]),
]
_VERSION = Annotated[int | None, argument(Input(why="a count of changes"), "The version that was read, to be sure.")]


@strawberry.type
class HandOverMutations:
    @requires(
        Permission.CUSTOMERS_HAND_OVER,
        description="Give a customer to another member; null comes back where you reach it no longer.",
    )
    async def hand_over_customer(
        self, info: Info[Operation], id: _ID, to: _TO, version: _VERSION = None
    ) -> CustomerPayload | None:
        unit, customer, member = info.context.unit, local_id("Customer", id), local_id("Member", to)
        request = {"id": customer, "to": member, "version": version}
        return await answered(info, request, lambda: hand_overs.one(unit, customer, member, version), above=())

    @requires(
        Permission.CUSTOMERS_HAND_OVER,
        description="Give many customers to another member: those of `ids`, each alone, or by a job all of `from`.",
    )
    async def hand_over_customers(
        self, info: Info[Operation], to: _TO, ids: _IDS = None, from_: _FROM = None
    ) -> HandOverPayload | None:
        if (ids is None) == (from_ is None):
            raise BadInput("Give `ids` or `from`, one of them.")
        member = local_id("Member", to)
        try:
            if from_ is not None:
                return await _started(info, HandOver(local_id("Member", from_), member))
            return await _handed_over(info, ids or [], member)
        except Refused as refused:
            return HandOverPayload(outcomes=[], handed_over=0, job=None, user_errors=user_errors(refused))


async def _handed_over(info: Info[Operation], ids: list[strawberry.ID], to: UUID) -> HandOverPayload:
    if not 1 <= len(ids) <= MOST_AT_ONCE or len(set(ids)) < len(ids):
        raise BadInput(f"`ids` has 1 to {MOST_AT_ONCE} ids, each once.")
    unit, local = info.context.unit, [local_id("Customer", id) for id in ids]
    made = await many_answered(info, {"ids": local, "to": to}, lambda: hand_overs.many(unit, local, to))
    count = sum(not isinstance(each, Refused) for each in made)
    return HandOverPayload(outcomes=outcomes_of(made, "ids"), handed_over=count, job=None, user_errors=[])


async def _started(info: Info[Operation], wanted: HandOver) -> HandOverPayload:
    job = await _once(info, {"from": wanted.owner, "to": wanted.to}, wanted)
    found = await jobs.get(info.context.unit, job)
    return HandOverPayload(outcomes=[], handed_over=0, job=cast(Job, found), user_errors=[])


async def _once(info: Info[Operation], request: Mapping[str, Any], wanted: HandOver) -> UUID:
    unit, key, said = info.context.unit, key_of(info), fingerprint(info, request)
    kept = await outcomes.find(unit, key, said) if key else None
    if kept is not None:
        return UUID(kept["job"])
    job = await hand_overs.start(unit, wanted)
    if key:
        await outcomes.keep(unit, key, said, {"job": str(job)})
    return job
