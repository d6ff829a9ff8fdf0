"""Customers that are being changed: locked as far as the viewer reaches, and shown as they were written."""

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, select

from domain.customers.fields import DOCUMENTS
from domain.customers.reach import readable
from domain.customers.rows import Batch, Customer, CustomerView
from domain.errors import Refused, UserError
from tenants.documents import Document
from tenants.unit import Unit

Documents = dict[str, Document]
NOT_THERE = UserError("NOT_FOUND", ("id",), "There is no customer of that id.")


async def lock(unit: Unit, customer: UUID) -> Customer:
    """Raises `Refused`: NOT_FOUND, also for one beyond the viewer's reach."""
    rows = await lock_where(unit, Customer.id == customer)
    if not rows:
        raise Refused([NOT_THERE])
    return rows[0]


async def lock_many(unit: Unit, customers: Collection[UUID]) -> dict[UUID, Customer]:
    """By id, without those that are not there or beyond the viewer's reach."""
    return {row.id: row for row in await lock_where(unit, Customer.id.in_(set(customers)))}


async def lock_where(unit: Unit, *where: ColumnElement[bool], most: int | None = None) -> Sequence[Customer]:
    """Ordered by id, so that two who lock many wait for each other, never in a ring."""
    mine = select(Customer).where(Customer.tenant_id == unit.tenant.id, *readable(unit), *where)
    rows: Sequence[Customer] = await unit.scalars(mine.order_by(Customer.id).limit(most).with_for_update())
    await unit.load_subjects([row.id for row in rows])
    return rows


def check_version(row: Customer, version: int) -> None:
    if row.version != version:
        sentence = "The customer was changed since you read it; read it again and repeat the change."
        raise Refused([UserError("STALE_VERSION", ("version",), sentence)])


def touch(unit: Unit, row: Customer) -> None:
    row.updated_at = unit.now
    row.version += 1


def views(unit: Unit, pairs: Sequence[tuple[Customer, Documents | None]]) -> list[CustomerView]:
    """What was just written, without reading it again: the documents that were sealed are known."""
    batch = Batch(unit, [_Written(row, unit) for row, _ in pairs])
    for column in DOCUMENTS:
        if all(documents is not None for _, documents in pairs):
            batch.know(column, [documents[column] for _, documents in pairs if documents is not None])
    return batch.views


class _Written:
    """A customer of the session in the shape of one that was read."""

    def __init__(self, row: Customer, unit: Unit) -> None:
        self._row = row
        self.subject_secret = unit.subject_secret(row.id)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._row, name)
