"""Legal holds: customers that may not be erased for now, and why; the reason is sealed under the customer's own key."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Index, Text, Uuid, func, select
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.orm import Mapped

from crypto.values import Secret
from domain import normalise, required
from domain.customers.changing import lock
from domain.customers.reach import check, readable
from domain.customers.rows import Customer
from domain.errors import Refused, UserError
from domain.normalise import Blank
from domain.reveals import ticket_errors
from tenants.access import Permission, Relation, Sensitivity
from tenants.backups import freezes
from tenants.documents import Document, Mask, personal
from tenants.erasures import offboardings
from tenants.ids import global_id, new_id
from tenants.owned import Backup, TenantOwned, clear, sealed
from tenants.unit import GUARD, Unit

MOST = 20  # of one customer at a time
_NOT_THERE = Refused([UserError("NOT_FOUND", ("id",), "There is no hold of that id.")])


class HoldReason(Document):
    reason: str | None = personal(Sensitivity.FREE_TEXT, Mask.TEXT)


class LegalHold(TenantOwned, backup=Backup.NEVER, rights="SELECT INSERT UPDATE DELETE"):
    """No foreign key: a restore replaces customers, and the holds of today stay."""

    __tablename__ = "legal_holds"
    __table_args__ = (Index("ix_legal_holds_customer", "tenant_id", "customer_id", "id"),)

    id: Mapped[UUID] = clear("made at random", primary_key=True)
    customer_id: Mapped[UUID] = clear("who may not be erased", Uuid)
    reason: Mapped[Any] = sealed(HoldReason, place="legal_holds.reason", subject="customer_id")
    ticket: Mapped[str | None] = clear("a code, never free text", Text, nullable=True)
    placed_by: Mapped[UUID | None] = clear("a member's random id", Uuid, nullable=True)
    placed_at: Mapped[datetime] = clear("since when it holds", TIMESTAMP(timezone=True))
    lifted_by: Mapped[UUID | None] = clear("a member's random id", Uuid, nullable=True)
    lifted_at: Mapped[datetime | None] = clear("since when it doesn't", TIMESTAMP(timezone=True), nullable=True)


class HoldView:
    """One hold as read; its reason stays sealed until a rule lets it out. Its relation is the customer's."""

    __slots__ = ("_unit", "relation", "row")

    def __init__(self, row: LegalHold, relation: Relation, unit: Unit) -> None:
        self.row = row
        self.relation = relation
        self._unit = unit

    def __getattr__(self, name: str) -> Any:
        """The clear columns by their own names."""
        return getattr(self.row, name)

    def document(self, column: str, why: str) -> HoldReason | None:
        if why == GUARD:
            self._unit.disclose("LegalHold", [self.row.id], relation=self.relation)
        reason: HoldReason | None = self._unit.open_row(self.row, column, why)
        return reason


async def of_customer(unit: Unit, customer: UUID) -> list[HoldView]:
    """All that ever were, the newest first; none of one that the viewer may not read."""
    owners = await unit.rows(
        select(Customer.owner_id).where(Customer.tenant_id == unit.tenant.id, Customer.id == customer, *readable(unit))
    )
    if not owners:
        return []
    await unit.load_subjects([customer])
    relation = unit.viewer.relation(owners[0].owner_id)
    rows = await unit.scalars(select(LegalHold).where(*_of(unit, customer)).order_by(LegalHold.id.desc()))
    return [HoldView(row, relation, unit) for row in rows]


async def count(unit: Unit, customer: UUID) -> int:
    """How many hold that customer now."""
    statement = select(func.count()).where(*_of(unit, customer), LegalHold.lifted_at.is_(None))
    return int((await unit.scalars(statement))[0])


async def open_ones(unit: Unit, customer: UUID | None = None) -> str:
    """The holds of now, of that customer or of the whole tenant, by id and ticket as in a sentence; a few, if many."""
    where = [LegalHold.tenant_id == unit.tenant.id, LegalHold.lifted_at.is_(None)]
    where += [] if customer is None else [LegalHold.customer_id == customer]
    rows = await unit.rows(select(LegalHold.id, LegalHold.ticket).where(*where).order_by(LegalHold.id).limit(MOST + 1))
    named = [f"{global_id('LegalHold', row.id)}{f' ({row.ticket})' if row.ticket else ''}" for row in rows[:MOST]]
    return ", ".join([*named, *(["and more"] if len(rows) > MOST else [])])


async def place(unit: Unit, customer: UUID, reason: str, ticket: str | None) -> HoldView:
    """Raises `TenantFrozen` during a restore, `Forbidden`, `Refused`: NOT_FOUND, REQUIRED, INVALID, TOO_MANY."""
    freezes.refuse_restoring(unit)
    await offboardings.refuse_shredding(unit)
    row = await lock(unit, customer)
    relation = check(unit, row.owner_id, Permission.CUSTOMERS_HOLD)
    if errors := ticket_errors(ticket):
        raise Refused(errors)
    said = required.one(("reason",), reason, _reason)
    if await count(unit, customer) >= MOST:
        raise Refused([UserError("TOO_MANY", ("id",), f"A customer has at most {MOST} holds at a time.")])
    hold = LegalHold(
        tenant_id=unit.tenant.id,
        id=new_id(),
        customer_id=customer,
        reason=Secret(HoldReason(reason=said)),
        ticket=ticket,
        placed_by=unit.viewer.principal,
        placed_at=unit.now,
    )
    unit.add(hold)
    await unit.flush()
    unit.audit("customer.hold_placed", **_whose(hold))
    return HoldView(hold, relation, unit)


async def lift(unit: Unit, hold: UUID) -> HoldView:
    """To lift one again changes nothing. Raises `TenantFrozen` during a restore, `Forbidden`, `Refused`: NOT_FOUND."""
    freezes.refuse_restoring(unit)
    mine = (LegalHold.tenant_id == unit.tenant.id, LegalHold.id == hold)
    found: Sequence[LegalHold] = await unit.scalars(select(LegalHold).where(*mine).with_for_update())
    if not found:
        raise _NOT_THERE
    row, customers = found[0], await _owner(unit, found[0].customer_id)
    if not customers:
        raise _NOT_THERE
    relation = check(unit, customers[0], Permission.CUSTOMERS_HOLD)
    await unit.load_subjects([row.customer_id])
    if row.lifted_at is None:
        row.lifted_by, row.lifted_at = unit.viewer.principal, unit.now
        await unit.flush()
        unit.audit("customer.hold_lifted", **_whose(row))
    return HoldView(row, relation, unit)


def _reason(text: str) -> str:
    if not text.strip():
        raise Blank("has no visible character")
    return normalise.note(text)


async def _owner(unit: Unit, customer: UUID) -> Sequence[UUID | None]:
    mine = (Customer.tenant_id == unit.tenant.id, Customer.id == customer, *readable(unit))
    return await unit.scalars(select(Customer.owner_id).where(*mine))


def _whose(hold: LegalHold) -> dict[str, Any]:
    details = {"hold": str(hold.id), **({"ticket": hold.ticket} if hold.ticket else {})}
    return {"subject_type": "Customer", "subjects": [hold.customer_id], "details": details}


def _of(unit: Unit, customer: UUID) -> tuple[Any, Any]:
    return LegalHold.tenant_id == unit.tenant.id, LegalHold.customer_id == customer
