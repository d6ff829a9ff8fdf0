"""Customers over GraphQL: what the schema shows and takes of them; every rule stands beside its field.

With `domain/customers/fields.py` this is all that a new personal field needs.
"""

from collections.abc import Awaitable, Callable
from datetime import date, datetime
from typing import Annotated, Any, TypeVar, cast

import strawberry
from strawberry import UNSET, Info

from api.directives import (
    Input,
    argument,
    input_,
    personal,
    requires,
    searches,
    writes,
)
from api.meanings import described
from api.members import Member, members_of
from api.operation import Operation
from api.paging import Connection, Node, cursor, local_id, window
from api.tags import Tag, tags_of
from domain import customers, normalise
from domain.customers import CustomerView, Direction, ExternalId, Guarded, Note, Profile, SortField, Stage
from domain.errors import BadInput
from domain.normalise import Invalid
from domain.paging import Page
from tenants.access import Permission
from tenants.documents import Mask
from tenants.unit import Unit

T = TypeVar("T")
_READ = Permission.CUSTOMERS_READ
_PROFILE, _GUARDED = Profile.fields, Guarded.fields

described(
    Stage,
    "How far the relation has come.",
    name="CustomerStage",
    LEAD="Somebody who may become a customer; what a new one is unless told.",
    PROSPECT="Somebody with whom one talks about it.",
    CUSTOMER="A customer.",
    FORMER="A customer no more.",
)
described(
    SortField,
    "Clear fields to sort by.",
    name="CustomerSortField",
    CREATED_AT="When the customer was added.",
    UPDATED_AT="When it was last changed.",
)
described(Direction, "Ascending or descending.", name="SortDirection", ASC="Oldest first.", DESC="Newest first.")


@strawberry.type(description="A postal address; each leaf has its own rule.")
class Address:
    lines: list[str] | None = personal("profile", _PROFILE["address_lines"])
    city: str | None = personal("profile", _PROFILE["city"])
    postal_code: str | None = personal("profile", _PROFILE["postal_code"])
    country: str | None = personal("profile", _PROFILE["country"])


@strawberry.type(description="A person whose data the tenant keeps.")
class Customer(Node):
    given_name: str | None = personal("profile", _PROFILE["given_name"])
    family_name: str | None = personal("profile", _PROFILE["family_name"])
    display_name: str | None = personal("profile", _PROFILE["display_name"])
    emails: list[str] | None = personal("profile", _PROFILE["emails"])
    phones: list[str] | None = personal("profile", _PROFILE["phones"])
    birth_date: date | None = personal("profile", _PROFILE["birth_date"])
    birth_year: int | None = personal("profile", _PROFILE["birth_date"], "birth_year", Mask.KEEP)
    government_id: str | None = personal("guarded", _GUARDED["government_id"])
    note: str | None = personal("note", Note.fields["note"])
    external_id: str | None = personal("external_id", ExternalId.fields["external_id"])
    stage: Stage = requires(_READ)
    language: str | None = requires(_READ)
    source: str | None = requires(_READ)
    region: str | None = requires(_READ)
    created_at: datetime = requires(_READ)
    updated_at: datetime = requires(_READ)
    archived_at: datetime | None = requires(_READ)
    version: int = requires(_READ, description="Send it back with an update.")

    @requires(_READ)
    def address(self: Any) -> Address:
        return cast(Address, self)  # the same row: an address is a part of its customer's profile

    @requires(_READ, description="The member who looks after this customer.")
    async def owner(self: Any, info: Info[Operation]) -> Member | None:
        owner = self.row.owner_id
        return None if owner is None else cast(Member, await members_of(info.context).load(owner))

    @requires(_READ)
    async def tags(self: Any, info: Info[Operation]) -> list[Tag]:
        return cast(list[Tag], await tags_of(info.context).load(self.row.id))

    @classmethod
    def is_type_of(cls, value: object, _info: Any) -> bool:
        return isinstance(value, CustomerView)


@strawberry.input(description="Each value needs the right to write the field.")
class AddressInput:
    lines: list[str] | None = writes("Customer.addressLines", default=UNSET, description="Street, house, c/o.")
    city: str | None = writes("Customer.city", default=UNSET, description="The town's name.")
    postal_code: str | None = writes("Customer.postalCode", default=UNSET, description="As the post writes it.")
    country: str | None = writes("Customer.country", default=UNSET, description="ISO 3166-1 alpha-2.")


@strawberry.input(description="What to set. A field that is left out stays as it is; null clears it.")
class CustomerInput:
    given_name: str | None = writes("Customer.givenName", default=UNSET, description="1 to 200 characters.")
    family_name: str | None = writes("Customer.familyName", default=UNSET, description="1 to 200 characters.")
    display_name: str | None = writes(
        "Customer.displayName", default=UNSET, description="Where none is given, the other two names make one."
    )
    emails: list[str] | None = writes("Customer.emails", default=UNSET, description="Up to 20; the list is set whole.")
    phones: list[str] | None = writes(
        "Customer.phones", default=UNSET, description="E.164, or as dialled in the tenant's default region."
    )
    address: AddressInput | None = input_(
        "each of its fields has its own right", default=UNSET, description="What it leaves out stays."
    )
    birth_date: date | None = writes("Customer.birthDate", default=UNSET, description="YYYY-MM-DD.")
    government_id: str | None = writes("Customer.governmentId", default=UNSET, description="As the state writes it.")
    note: str | None = writes("Customer.note", default=UNSET, description="Up to 10,000 characters.")
    external_id: str | None = writes(
        "Customer.externalId", default=UNSET, description="The tenant's own id of this customer; unique."
    )
    stage: Stage | None = writes("Customer.stage", default=UNSET, description="LEAD for a new one unless told.")
    owner_id: strawberry.ID | None = writes(
        "Customer.ownerId", default=UNSET, description="An active member's; of a new one oneself unless told."
    )
    tag_ids: list[strawberry.ID] | None = writes("Customer.tagIds", default=UNSET, description="The list is set whole.")
    language: str | None = writes("Customer.language", default=UNSET, description="BCP 47.")
    source: str | None = writes("Customer.source", default=UNSET, description="Where it came from, a word of yours.")
    region: str | None = writes("Customer.region", default=UNSET, description="ISO 3166-2, or its part: US-WA, WA.")


@strawberry.input(description="Clear fields only: a list by a personal value would tell of it.")
class CustomerFilter:
    archived: bool = searches("Customer.archivedAt", default=False, description="Only archived ones, or only others.")
    stages: list[Stage] | None = searches("Customer.stage", default=None, description="In one of these.")
    owner_id: strawberry.ID | None = searches("Customer.ownerId", default=None, description="Of this member.")
    tag_id: strawberry.ID | None = searches("Customer.tagIds", default=None, description="With this tag.")
    language: str | None = searches("Customer.language", default=None, description="BCP 47, as it is stored.")
    source: str | None = searches("Customer.source", default=None, description="As it is stored.")
    region: str | None = searches("Customer.region", default=None, description="As it is stored.")
    created_since: datetime | None = searches("Customer.createdAt", default=None, description="The first moment.")
    created_before: datetime | None = searches("Customer.createdAt", default=None, description="The first one after.")
    updated_since: datetime | None = searches("Customer.updatedAt", default=None, description="The first moment.")


@strawberry.input(description="The order of a list; ties are broken by id.")
class CustomerSort:
    field: SortField = input_("only clear fields can be named", default=SortField.CREATED_AT, description="By what.")
    direction: Direction = input_("a direction", default=Direction.DESC, description="Which way.")


@strawberry.input(one_of=True, description="Exactly one value to find customers by.")
class CustomerSearch:
    email: str | None = searches("Customer.emails", default=UNSET, description="The whole address.")
    phone: str | None = searches(
        "Customer.phones", default=UNSET, description="E.164, or as dialled in the tenant's default region."
    )
    government_id: str | None = searches("Customer.governmentId", default=UNSET, description="The whole number.")
    external_id: str | None = searches("Customer.externalId", default=UNSET, description="The whole id.")
    name_prefix: str | None = searches(
        "Customer.givenName",
        default=UNSET,
        description="The beginning of a given or family name, of 3 characters or more (Chinese, Japanese, Korean: 1).",
    )


CUSTOMER_ID = Annotated[strawberry.ID, argument(Input(why="an id opens nothing by itself"), "The customer's.")]
_FIRST = Annotated[int | None, argument(Input(why="a size"), "1 to 100; 20 unless told.")]
_CURSOR = Annotated[
    str | None, argument(Input(why="holds a clear sort key and an id, under a MAC"), "An end or edge of the list.")
]


@strawberry.type
class CustomerQueries:
    @requires(_READ, description="One customer, or NOT_FOUND.")
    async def customer(
        self, info: Info[Operation], id: CUSTOMER_ID
    ) -> Customer | None:  # the argument's name in GraphQL
        operation = info.context
        found = await customers.get(operation.unit, local_id("Customer", id), operation.columns("Customer"))
        return cast(Customer, found)

    @requires(_READ, description="Customers by clear fields, newest first unless told; archived ones when asked for.")
    async def customers(
        self,
        info: Info[Operation],
        filter: Annotated[
            CustomerFilter | None,
            argument(Input(why="each of its fields has its own right"), "Customers must fit all that is given."),
        ] = None,
        sort: Annotated[
            CustomerSort | None, argument(Input(why="only clear fields can be named"), "Newest first unless told.")
        ] = None,
        first: _FIRST = None,
        after: _CURSOR = None,
        last: _FIRST = None,
        before: _CURSOR = None,
    ) -> Connection[Customer] | None:
        operation, wanted, order = info.context, _filter(filter), _order(sort)
        name = f"customers {order.by} {order.descending}"
        within = window(operation.unit, name, first, after, last, before)
        page = await customers.page(operation.unit, wanted, order, within, operation.columns("Customer"))
        attribute = "created_at" if order.by is SortField.CREATED_AT else "updated_at"
        return _connection(operation.unit, name, attribute, page, lambda: customers.count(operation.unit, wanted))

    @requires(_READ, description="Customers that have exactly this value, archived ones too; newest first.")
    async def find_customers(
        self,
        info: Info[Operation],
        by: Annotated[CustomerSearch, argument(Input(why="each of its fields has its own right"), "One of these.")],
        first: _FIRST = None,
        after: _CURSOR = None,
        last: _FIRST = None,
        before: _CURSOR = None,
    ) -> Connection[Customer] | None:
        operation = info.context
        ((name, value),) = _given(by).items()
        if not isinstance(value, str):
            raise BadInput("The search value can't be null.")
        within = window(operation.unit, "found", first, after, last, before)
        page = await customers.find(operation.unit, name, value, within, operation.columns("Customer"))
        return _connection(operation.unit, "found", "created_at", page, None)


def _given(input_: Any) -> dict[str, Any]:
    """The fields of an input that the client named, null ones too."""
    return {name: value for name, value in vars(input_).items() if value is not UNSET}


def sent_by(input_: CustomerInput) -> dict[str, Any]:
    """In the names of the domain: the address flat, ids as uuids; a null address clears all of it."""
    sent = _given(input_)
    if "address" in sent:
        address = sent.pop("address")
        lines = _given(address) if address is not None else dict.fromkeys(("lines", "city", "postal_code", "country"))
        sent |= {"address_lines" if name == "lines" else name: value for name, value in lines.items()}
    if sent.get("owner_id") is not None:
        sent["owner_id"] = local_id("Member", sent["owner_id"])
    if sent.get("tag_ids") is not None:
        sent["tag_ids"] = [local_id("Tag", tag) for tag in sent["tag_ids"]]
    return sent


def _filter(where: CustomerFilter | None) -> customers.Filter:
    if where is None:
        return customers.Filter()
    return customers.Filter(
        archived=where.archived,
        stages=None if where.stages is None else tuple(where.stages),
        owner=None if where.owner_id is None else local_id("Member", where.owner_id),
        tag=None if where.tag_id is None else local_id("Tag", where.tag_id),
        language=_read("language", normalise.language, where.language),
        source=where.source,
        region=_read("region", normalise.region, where.region),
        created_since=_read("createdSince", normalise.instant, where.created_since),
        created_before=_read("createdBefore", normalise.instant, where.created_before),
        updated_since=_read("updatedSince", normalise.instant, where.updated_since),
    )


def _read(name: str, normaliser: Callable[[T], T], value: T | None) -> T | None:
    try:
        return None if value is None else normaliser(value)
    except Invalid as invalid:
        raise BadInput(f"`{name}` {invalid.reason}.") from None


def _order(sort: CustomerSort | None) -> customers.Order:
    return customers.Order() if sort is None else customers.Order(sort.field, sort.direction is Direction.DESC)


def _connection(
    unit: Unit, name: str, attribute: str, page: Page[CustomerView], count: Callable[[], Awaitable[int]] | None
) -> Connection[Customer]:
    def cursor_of(view: CustomerView) -> str:
        return cursor(unit, name, (getattr(view.row, attribute), view.id))

    return Connection(page=page, cursor_of=cursor_of, count=count)
