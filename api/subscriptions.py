"""What can be subscribed to: changes of customers, and the progress of a job."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, cast
from uuid import UUID

import strawberry
from graphql import GraphQLResolveInfo
from strawberry import Info
from strawberry.dataloader import DataLoader

from api.customers import Customer
from api.directives import Input, Public, Requires, argument, public, requires
from api.jobs import Job
from api.operation import Operation
from api.paging import local_id
from domain import customers, jobs
from domain.customers import CustomerView
from domain.errors import BadInput
from tenants.access import Permission
from tenants.events import Event
from tenants.feeds import Fact, Watching, find_many
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
        return cast(Customer | None, await _customers_of(info.context).load(self.event.subject))


async def _change(fact: Fact, info: GraphQLResolveInfo[Operation], **_ids: object) -> CustomerChange | None:
    """None where the event was forgotten meanwhile, or is of a customer beyond reach; then nothing is sent."""
    operation = info.context
    found = await _events_of(operation).load(fact.id)
    is_open = customers.is_everything(operation.unit) or await _customers_of(operation).load(fact.subject) is not None
    return CustomerChange(event=found) if found is not None and is_open else None


def _events_of(operation: Operation) -> "DataLoader[UUID, Event | None]":
    async def load(ids: list[UUID]) -> list[Event | None]:
        return await find_many(operation.unit, ids)

    if "events" not in operation.loaders:
        operation.loaders["events"] = DataLoader(load_fn=load)
    return cast("DataLoader[UUID, Event | None]", operation.loaders["events"])


def _customers_of(operation: Operation) -> "DataLoader[UUID, CustomerView | None]":
    async def load(ids: list[UUID]) -> list[CustomerView | None]:
        return await customers.get_many(operation.unit, ids, operation.columns("Customer"))

    if "changed" not in operation.loaders:
        operation.loaders["changed"] = DataLoader(load_fn=load)
    return cast("DataLoader[UUID, CustomerView | None]", operation.loaders["changed"])


def _concerning(ids: Sequence[str] | None) -> Callable[[Fact], bool]:
    """Decided before anything is read for a stream: most events are nobody's concern here."""
    wanted = None if ids is None else {local_id("Customer", id) for id in ids}
    return lambda fact: fact.type.startswith("customer.") and (wanted is None or fact.subject in wanted)


@dataclass(frozen=True, slots=True)
class _Watch:
    """A job that moved, and whom to tell that it will move no more."""

    job: UUID
    watching: Watching


async def _moved(watch: _Watch, info: GraphQLResolveInfo[Operation], **_id: str) -> Job:
    found = await jobs.get(info.context.unit, watch.job)
    if found.state in ENDED:
        watch.watching.end()
    return cast(Job, found)


@strawberry.type
class Subscription:
    @strawberry.subscription(
        directives=[Requires(permission=_READ)],
        metadata={"load": _change},
        description="Each change of a customer as it commits: of all, or of up to 100.",
    )
    async def customer_changed(
        self,
        info: Info[Operation],
        ids: Annotated[list[strawberry.ID] | None, argument(_HARMLESS, "Customers'.")] = None,
    ) -> AsyncIterator[CustomerChange | None]:
        if ids is not None and not 1 <= len(ids) <= _MOST:
            raise BadInput(f"`ids` has 1 to {_MOST} ids.")
        feed, tenant = info.context.services.feed, info.context.unit.tenant.id
        with feed.events(tenant, _concerning(ids)) as following:
            await feed.ready(following)
            async for facts in following.facts():
                yield cast(CustomerChange, facts)  # as many as wait together; see api/streams.py

    @strawberry.subscription(
        directives=[Public(reason="for who started the job, or holds JOBS_READ; to all others it is NOT_FOUND")],
        metadata={"load": _moved},
        description="How a job stands, now and whenever it moved; ends with the job.",
    )
    async def job_progress(
        self, info: Info[Operation], id: Annotated[strawberry.ID, argument(_HARMLESS, "The job's.")]
    ) -> AsyncIterator[Job | None]:
        feed, tenant, job = info.context.services.feed, info.context.unit.tenant.id, local_id("Job", id)
        with feed.job(tenant, job) as watching:
            await feed.ready(watching)
            watching.tell(job)
            async for moved in watching.moves():
                yield cast(Job, [_Watch(moved, watching)])
