"""Reveals: one value of one customer whole, for whoever sees at least its mask, with a purpose and on record.

`reveal` decides and leaves the audit entry in the operation's own transaction; the value stays sealed until the guard
opens it, and no answer goes out before that transaction has committed.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, select

from crypto.keyring import SealedCell
from domain import step_ups
from domain.customers import COLUMN_OF, FIELDS
from domain.customers.inputs import input_path
from domain.customers.reach import check, readable
from domain.customers.rows import Customer
from domain.errors import Forbidden, NotFound, Refused, UserError
from tenants.access import Level, Permission
from tenants.audit.entries import REVEALED, AuditEntry
from tenants.documents import PersonalField
from tenants.errors import Unauthenticated
from tenants.members import Member
from tenants.origins import is_purpose
from tenants.owned import places
from tenants.subjects import Subject
from tenants.unit import Unit
from tenants.viewers import MemberId

# At most so many, by one member, in so long a time.
LIMITS = ((60, timedelta(minutes=1)), (500, timedelta(days=1)))
# A code has a digit and does not begin with one; without dots it is no e-mail, and no bare name or number of a person.
_TICKET = re.compile(r"(?=.*[0-9])[A-Za-z#][A-Za-z0-9_#/-]{0,63}")


@dataclass(frozen=True, slots=True)
class Revealed:
    """What `reveal` decided to let out. Nobody else makes one."""

    customer: UUID
    field: PersonalField
    cell: SealedCell | None
    unit: Unit

    def values(self, why: str) -> list[str]:
        """Opens it: each value as text, dates as RFC 3339 full-date; none where there is nothing."""
        if self.cell is None:
            return []
        place = places(Customer)[COLUMN_OF[self.field.name]]
        value: Any = getattr(self.unit.open(place, [self.cell], why)[0], self.field.shown_as)
        parts = value if isinstance(value, tuple) else () if value is None else (value,)
        return [part.isoformat() if isinstance(part, date) else str(part) for part in parts]


async def reveal(unit: Unit, customer: UUID, name: str, purpose: str, ticket: str | None) -> Revealed:
    """`name` is a field of `FIELDS`.

    Raises `NotFound`; `Forbidden` where the viewer sees not even a mask of it; and `Refused`: INVALID,
    STEP_UP_REQUIRED, RATE_LIMITED.
    """
    member, field = unit.viewer.principal, FIELDS[name]
    if member is None:
        raise Unauthenticated
    _refuse_bad(purpose, ticket)
    row = await _row(unit, customer, COLUMN_OF[name])
    relation = check(unit, row.owner_id, Permission.CUSTOMERS_REVEAL)
    if unit.viewer.levels(field)[relation] is Level.HIDDEN:
        raise Forbidden("Only who sees a mask of this field may have it revealed.")
    if unit.tenant.reveal_needs_step_up:
        await step_ups.require(unit)
    await _refuse_too_many(unit, member)
    unit.audit(
        REVEALED,
        subject_type="Customer",
        subjects=[customer],
        fields=[f"{'.'.join(map(str, ('Customer', *input_path(name))))}:{Level.PLAIN.name}"],
        details={"records": 1, "plain": 1, "masked": 0, **({"ticket": ticket} if ticket else {})},
        origin=replace(unit.origin, purpose=purpose),
    )
    return Revealed(customer, field, _cell(row), unit)


def _refuse_bad(purpose: str, ticket: str | None) -> None:
    errors = [*purpose_errors(purpose), *ticket_errors(ticket)]
    if errors:
        raise Refused(errors)


def purpose_errors(purpose: str) -> list[UserError]:
    """Why that can't be the purpose of a disclosure."""
    sentence = "purpose is a code of up to 40 characters: a-z, 0-9, '.', '_' and '-'."
    return [] if is_purpose(purpose) else [UserError("INVALID", ("purpose",), sentence)]


def ticket_errors(ticket: str | None) -> list[UserError]:
    """Why that can't be the code of a case."""
    sentence = (
        "ticket is a code of up to 64 characters: letters of ASCII, digits, '_', '#', '/' and '-'; it begins with a"
        " letter or '#' and has a digit."
    )
    is_code = ticket is None or _TICKET.fullmatch(ticket)
    return [] if is_code else [UserError("INVALID", ("ticket",), sentence)]


async def _row(unit: Unit, customer: UUID, column: str) -> Row[Any]:
    mine = (Subject.tenant_id == Customer.tenant_id) & (Subject.id == Customer.id)
    sealed = getattr(Customer, column).label("sealed")
    statement = select(Customer.id, Customer.owner_id, sealed, Subject.secret).join(Subject, mine)
    rows = await unit.rows(
        statement.where(Customer.tenant_id == unit.tenant.id, Customer.id == customer, *readable(unit))
    )
    if not rows:
        raise NotFound
    return rows[0]


def _cell(row: Row[Any]) -> SealedCell | None:
    return None if row.sealed is None else SealedCell(row.sealed, row.secret, row.id, row.id)


async def _refuse_too_many(unit: Unit, member: MemberId) -> None:
    """Counted from the audit log under a lock of the member, so that what goes on elsewhere counts as well."""
    mine = (Member.tenant_id == unit.tenant.id, Member.id == member)
    await unit.rows(select(Member.id).where(*mine).with_for_update(key_share=True))
    most, longest = max(LIMITS)
    since = (AuditEntry.at > unit.now - longest, AuditEntry.action == REVEALED)
    earlier = select(AuditEntry.at).where(AuditEntry.tenant_id == unit.tenant.id, AuditEntry.actor == member, *since)
    written = await unit.scalars(earlier.order_by(AuditEntry.at.desc()).limit(most))
    again = _again_at([unit.now] * unit.pending(REVEALED) + list(written), unit.now)
    if again is not None:
        seconds = int((again - unit.now).total_seconds()) + 1
        sentence = f"You revealed too many values; come back in {seconds} s."
        raise Refused([UserError("RATE_LIMITED", (), sentence, seconds)])


def _again_at(moments: Sequence[datetime], now: datetime) -> datetime | None:
    """When the next is free; None for now. `moments` are newest first."""
    full = [moments[most - 1] + span for most, span in LIMITS if len(moments) >= most]
    return max((moment for moment in full if moment > now), default=None)
