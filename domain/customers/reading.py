"""Reading customers: one by id, a page by filter, those found by a personal value."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.orm import InstrumentedAttribute

from crypto.keys import Purpose
from domain.customers.fields import COLUMN_OF, DOCUMENTS, FIELDS, SEARCHES, Stage
from domain.customers.inputs import edge, input_path
from domain.customers.reach import readable
from domain.customers.rows import Batch, Customer, CustomerToken, CustomerView
from domain.errors import BadInput, NotFound
from domain.normalise import Invalid
from domain.paging import Page, Window, cut, windowed
from domain.tags import CustomerTag
from tenants.documents import BlindIndex
from tenants.owned import places
from tenants.subjects import Subject
from tenants.unit import Unit

_PLACES = places(Customer)
_CLEAR = [
    Customer.id,
    Customer.stage,
    Customer.owner_id,
    Customer.language,
    Customer.source,
    Customer.region,
    Customer.created_at,
    Customer.updated_at,
    Customer.archived_at,
    Customer.version,
]
_FIRST_BITE = 50
SEARCHED = "customer.searched"


class SortField(StrEnum):
    CREATED_AT = "CREATED_AT"
    UPDATED_AT = "UPDATED_AT"


class Direction(StrEnum):
    ASC = "ASC"
    DESC = "DESC"


_SORTED: dict[SortField, InstrumentedAttribute[Any]] = {
    SortField.CREATED_AT: Customer.created_at,
    SortField.UPDATED_AT: Customer.updated_at,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Clear fields only; None does not filter. Archived customers come only when asked for."""

    archived: bool = False
    stages: tuple[Stage, ...] | None = None
    owner: UUID | None = None
    tag: UUID | None = None
    language: str | None = None
    source: str | None = None
    region: str | None = None
    created_since: datetime | None = None
    created_before: datetime | None = None
    updated_since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Order:
    by: SortField = SortField.CREATED_AT
    descending: bool = True


async def get(unit: Unit, customer: UUID, documents: Collection[str] = tuple(DOCUMENTS)) -> CustomerView:
    """Raises `NotFound`, the same for an absent customer and for another tenant's."""
    found = await get_many(unit, [customer], documents)
    if found[0] is None:
        raise NotFound
    return found[0]


async def get_many(
    unit: Unit, customers: Sequence[UUID], documents: Collection[str] = tuple(DOCUMENTS)
) -> list[CustomerView | None]:
    """One statement, in the order asked for; None where there is no such customer."""
    rows = await unit.rows(_selected(unit, documents).where(Customer.id.in_(set(customers))))
    views = {view.id: view for view in Batch(unit, rows).views}
    return [views.get(customer) for customer in customers]


async def page(
    unit: Unit, where: Filter, order: Order, window: Window, documents: Collection[str] = tuple(DOCUMENTS)
) -> Page[CustomerView]:
    """One statement. `documents` names the sealed columns to fetch."""
    columns = (_SORTED[order.by], Customer.id)
    statement = windowed(
        _selected(unit, documents).where(*_conditions(where)), columns, window, descending=order.descending
    )
    rows, has_next, has_previous = cut(await unit.rows(statement), window)
    return Page(Batch(unit, rows).views, has_next, has_previous)


async def count(unit: Unit, where: Filter) -> int:
    statement = select(func.count()).where(Customer.tenant_id == unit.tenant.id, *readable(unit), *_conditions(where))
    return int((await unit.scalars(statement))[0])


async def find(
    unit: Unit, by: str, query: str, window: Window, documents: Collection[str] = tuple(DOCUMENTS)
) -> Page[CustomerView]:
    """Customers, archived ones too, that have this value in the field `by`, or for "name_prefix" begin so.

    Newest first. The blind index finds candidates; the opened value decides. Raises `BadInput` for a value that the
    field can't hold.
    """
    fields = SEARCHES.get(by, (by,))
    query = _asked(unit, fields[0], query)
    fetched = {*documents, *(COLUMN_OF[field] for field in fields)}
    within = readable(unit, *(_index(field).right for field in fields))
    found: list[CustomerView] = []
    reach, exhausted = window, False
    while len(found) <= window.size and not exhausted:
        bite = Window(max(window.size, _FIRST_BITE), reach.after, reach.before, reach.is_last)
        statement = _selected(unit, fetched).where(*within, _bears_token(unit, fields, query))
        statement = windowed(statement, (Customer.created_at, Customer.id), bite, descending=True)
        rows = await unit.rows(statement)
        exhausted = len(rows) <= bite.size
        rows = rows[: bite.size]
        found += _matching(unit, rows, fields, query)
        if rows:
            key = (rows[-1].created_at, rows[-1].id)
            reach = replace(bite, before=key) if bite.is_last else replace(bite, after=key)
    views, has_next, has_previous = cut(found, window)
    # Finding confirms: who looked by which field, and whom they found, is on record even if nothing else is shown.
    labels = sorted(".".join(map(str, input_path(field))) for field in fields)
    unit.audit(SEARCHED, subject_type="Customer", subjects=[view.id for view in views], fields=labels)
    return Page(views, has_next, has_previous)


def _matching(unit: Unit, rows: Sequence[Any], fields: Sequence[str], query: str) -> list[CustomerView]:
    views = Batch(unit, rows).views
    return [view for view in views if any(_has(view, field, query) for field in fields)]


def _has(view: CustomerView, field: str, query: str) -> bool:
    document = view.document(COLUMN_OF[field], "to compare it with a search")
    value = getattr(document, field, None)
    values = value if isinstance(value, tuple) else (value,)
    matches = _index(field).matches
    return any(each is not None and matches(each, query) for each in values)


def _bears_token(unit: Unit, fields: Sequence[str], query: str) -> ColumnElement[bool]:
    tokens = [
        (CustomerToken.index == _index(field).name) & (CustomerToken.token == token)
        for field in fields
        if (token := _token(unit, field, query)) is not None
    ]
    if not tokens:
        raise BadInput("The search value has no letter or digit to search by.")
    either = tokens[0]
    for other in tokens[1:]:
        either = either | other
    return Customer.id.in_(select(CustomerToken.customer_id).where(CustomerToken.tenant_id == unit.tenant.id, either))


def _asked(unit: Unit, field: str, query: str) -> str:
    """The query in the form in which the field's values are kept."""
    try:
        return str(FIELDS[field].parse(query, edge(unit)))
    except Invalid as invalid:
        raise BadInput(f"The search value {invalid.reason}.") from None


def _token(unit: Unit, field: str, query: str) -> bytes | None:
    index = _index(field)
    key = index.lookup(query)
    if key is None:
        return None
    version = unit.keyring.active_version(Purpose.BIK)
    return unit.keyring.token(_PLACES[COLUMN_OF[field]].label, index.name, index.normaliser, key, version)


def _index(field: str) -> BlindIndex:
    index = FIELDS[field].index
    if index is None:
        raise LookupError(f"{field} has no index")
    return index


def _selected(unit: Unit, documents: Collection[str]) -> Select[Any]:
    sealed = [getattr(Customer, column) for column in DOCUMENTS if column in documents]
    columns: list[Any] = [*_CLEAR, *sealed]
    statement: Select[Any] = select(*columns)
    if sealed:
        mine = (Subject.tenant_id == Customer.tenant_id) & (Subject.id == Customer.id)
        statement = select(*columns, Subject.secret.label("subject_secret")).join(Subject, mine)
    return statement.where(Customer.tenant_id == unit.tenant.id, *readable(unit))


def _conditions(where: Filter) -> list[ColumnElement[bool]]:
    optional = {
        Customer.owner_id: where.owner,
        Customer.language: where.language,
        Customer.source: where.source,
        Customer.region: where.region,
    }
    found = [column == value for column, value in optional.items() if value is not None]
    found.append(Customer.archived_at.is_not(None) if where.archived else Customer.archived_at.is_(None))
    if where.stages is not None:
        found.append(Customer.stage.in_([stage.value for stage in where.stages]))
    if where.tag is not None:
        tagged = select(CustomerTag.customer_id).where(
            CustomerTag.tenant_id == Customer.tenant_id, CustomerTag.tag_id == where.tag
        )
        found.append(Customer.id.in_(tagged))
    found += [Customer.created_at >= where.created_since] if where.created_since else []
    found += [Customer.created_at < where.created_before] if where.created_before else []
    found += [Customer.updated_at >= where.updated_since] if where.updated_since else []
    return found
