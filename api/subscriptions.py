"""What can be subscribed to: changes of customers, and the progress of a job."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, cast
from uuid import UUID

import strawberry
from graphql import GraphQLResolveInfo
from strawberry import Info

from api.customers import Customer
from api.directives import Input, Public, Requires, argument, public, requires
from api.jobs import Job
from api.operation import Operation
from api.paging import local_id
from domain import customers, jobs
from domain.errors import BadInput
from tenants import events
from tenants.access import Permission
from tenants.events import Event
from tenants.feeds import Following
from tenants.jobs import ENDED

_MOST = 100
_HARMLESS = Input(why="an id opens nothing by itself")
_READ = Permission.CUSTOMERS_READ
_FACT = "a fact of the catalogue: names and ids"


@strawberry.type(description="What happened to a customer; `customer` is as the viewer may see it now.")
class CustomerChange:
    event: strawberry.Private[Event]

    @public(_FACT)
    def id(self) -> strawberry.ID:
        return strawberry.ID(str(self.event.id))

    @public(_FACT, description="As in the catalogue of events: `customer.updated`.")
    def type(self) -> str:
        return self.event.type

    @public(_FACT)
    def at(self) -> datetime:
        return self.event.at

    @public(_FACT, description="Names of the fields that changed.")
    def fields(self) -> list[str]:
        return list(self.event.fields)

    @requires(_READ)
    async def customer(self, info: Info[Operation]) -> Customer | None:
        operation = info.context
        views = await customers.get_many(operation.unit, [self.event.subject], operation.columns("Customer"))
        return cast(Customer | None, views[0])


async def _change(
    event: UUID, info: GraphQLResolveInfo[Operation], ids: list[str] | None = None
) -> CustomerChange | None:
    """None where the event tells of something else; then nothing is sent."""
    found = await events.find(info.context.unit, event)
    if found is None or not found.type.startswith("customer."):
        return None
    wanted = None if ids is None else {local_id("Customer", id) for id in ids}
    return CustomerChange(event=found) if wanted is None or found.subject in wanted else None


@dataclass(frozen=True, slots=True)
class _Watch:
    """A job that moved, and whom to tell that it will move no more."""

    job: UUID
    following: Following


async def _moved(watch: _Watch, info: GraphQLResolveInfo[Operation], **_id: str) -> Job:
    found = await jobs.get(info.context.unit, watch.job)
    if found.state in ENDED:
        watch.following.end()
    return cast(Job, found)


@strawberry.type
class Subscription:
    @strawberry.subscription(
        directives=[Requires(permission=_READ)],
        metadata={"load": _change},
        description="Each change of a customer as it commits: of all, or of up to 100.",
    )
    async def customer_changed(
        self, info: Info[Operation], ids: Annotated[list[strawberry.ID] | None, argument(_HARMLESS)] = None
    ) -> AsyncIterator[CustomerChange | None]:
        if ids is not None and not 1 <= len(ids) <= _MOST:
            raise BadInput(f"`ids` has 1 to {_MOST} ids.")
        feed, tenant = info.context.services.feed, info.context.unit.tenant.id
        with feed.events(tenant) as following:
            await feed.ready(following)
            async for event in following.ids():
                yield cast(CustomerChange, event)

    @strawberry.subscription(
        directives=[Public(reason="for who started the job, or holds JOBS_READ; to all others it is NOT_FOUND")],
        metadata={"load": _moved},
        description="How a job stands, now and whenever it moved; ends with the job.",
    )
    async def job_progress(
        self, info: Info[Operation], id: Annotated[strawberry.ID, argument(_HARMLESS)]
    ) -> AsyncIterator[Job | None]:
        feed, tenant, job = info.context.services.feed, info.context.unit.tenant.id, local_id("Job", id)
        with feed.job(tenant, job) as following:
            await feed.ready(following)
            following.tell(job)
            async for moved in following.ids():
                yield cast(Job, _Watch(moved, following))
