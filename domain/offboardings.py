"""Offboarding: a tenant leaves. Two people want it, it is frozen, time passes, and an operator destroys its key.

What the operator does is in `tenants.erasures.shredding`; until then everything can be called off.
"""

from datetime import timedelta
from typing import Any

from sqlalchemy import select, update

from domain import holds, step_ups
from domain.errors import Refused, UserError
from tenants.erasures.offboardings import Offboarding, OffboardingState
from tenants.events import EventKind
from tenants.ids import new_id
from tenants.rights import has_other_owner
from tenants.tenants import tenants
from tenants.unit import Unit

COOLING_DAYS = 14
MOST_DAYS = 365
FROZEN = "OFFBOARDING"
REQUESTED = EventKind("tenant.offboarding_requested", "Tenant", "A member asked for the end of the tenant.")
APPROVED = EventKind(
    "tenant.offboarding_approved", "Tenant", "The end of the tenant was approved: nothing can be changed any more."
)
CANCELLED = EventKind("tenant.offboarding_cancelled", "Tenant", "The end of the tenant was called off.")


async def newest(unit: Unit) -> Offboarding | None:
    """The one that is open, or else the last one."""
    mine = select(Offboarding).where(Offboarding.tenant_id == unit.tenant.id)
    rows = await unit.scalars(mine.order_by(Offboarding.ended_at.is_(None).desc(), Offboarding.id.desc()).limit(1))
    return next(iter(rows), None)


async def request(unit: Unit, cooling_days: int = COOLING_DAYS) -> Offboarding:
    """Who asks again gets the one that is open.

    Raises `Refused`: INVALID, STEP_UP_REQUIRED, OFFBOARDING_OPEN, LEGAL_HOLD.
    """
    assert unit.viewer.principal is not None  # noqa: S101  # a rule of the schema let a member in
    await step_ups.require(unit)
    await _refuse_held(unit)
    if not 1 <= cooling_days <= MOST_DAYS:
        raise Refused([UserError("INVALID", ("coolingDays",), f"coolingDays is 1 to {MOST_DAYS}.")])
    row = await _locked(unit)
    if row is not None:
        if row.requested_by == unit.viewer.principal:
            return row
        sentence = "Another member asked for it already; approve it with approveOffboarding, or call it off."
        raise Refused([UserError("OFFBOARDING_OPEN", (), sentence)])
    made = Offboarding(
        tenant_id=unit.tenant.id,
        id=new_id(),
        state=OffboardingState.REQUESTED,
        requested_by=unit.viewer.principal,
        requested_at=unit.now,
        cooling_days=cooling_days,
    )
    unit.add(made)
    await unit.flush()
    _publish(unit, REQUESTED, made)
    return made


async def approve(unit: Unit) -> Offboarding:
    """By another member than asked; without a principal by the platform's operator, where there is no other owner.

    From then on the tenant is frozen. Raises `Refused`: STEP_UP_REQUIRED, NO_OFFBOARDING, SECOND_MEMBER_NEEDED,
    LEGAL_HOLD.
    """
    member = unit.viewer.principal
    if member is not None:
        await step_ups.require(unit)
    row = _there(await _locked(unit))
    if row.state != OffboardingState.REQUESTED:
        return row
    await _refuse_held(unit)
    if member == row.requested_by:
        sentence = "Another member must approve this; of a tenant with one owner the platform's operator does."
        raise Refused([UserError("SECOND_MEMBER_NEEDED", (), sentence)])
    if member is None and await has_other_owner(unit, row.requested_by):
        sentence = "The tenant has another owner, who must approve this."
        raise Refused([UserError("SECOND_MEMBER_NEEDED", (), sentence)])
    row.state, row.approved_by, row.approved_at = OffboardingState.COOLING, member, unit.now
    row.shred_after = unit.now + timedelta(days=row.cooling_days)
    await unit.flush()
    await _freeze(unit, FROZEN)
    _publish(unit, APPROVED, row)
    return row


async def cancel(unit: Unit) -> Offboarding:
    """Raises `Refused`: NO_OFFBOARDING, also once the key is being destroyed. The unit thaws."""
    row = await _locked(unit)
    row = _there(None if row is not None and row.state == OffboardingState.SHREDDING else row)
    row.state, row.cancelled_by, row.ended_at = OffboardingState.CANCELLED, unit.viewer.principal, unit.now
    await unit.flush()
    if unit.tenant.frozen == FROZEN:
        await _freeze(unit, None)
    _publish(unit, CANCELLED, row)
    return row


async def _refuse_held(unit: Unit) -> None:
    if kept := await holds.open_ones(unit):
        sentence = f"Legal holds keep customers of this tenant: {kept}. Lift them first."
        raise Refused([UserError("LEGAL_HOLD", (), sentence)])


def _there(row: Offboarding | None) -> Offboarding:
    if row is None:
        raise Refused([UserError("NO_OFFBOARDING", (), "Nobody has asked for the end of this tenant.")])
    return row


async def _locked(unit: Unit) -> Offboarding | None:
    """The one that is open; the tenant's row is locked first, so that two can't begin at once."""
    await unit.rows(select(tenants.c.id).where(tenants.c.id == unit.tenant.id).with_for_update(key_share=True))
    mine = (Offboarding.tenant_id == unit.tenant.id, Offboarding.ended_at.is_(None))
    fresh: Any = select(Offboarding).where(*mine).with_for_update().execution_options(populate_existing=True)
    return next(iter(await unit.scalars(fresh)), None)


async def _freeze(unit: Unit, why: str | None) -> None:
    await unit.run(update(tenants).where(tenants.c.id == unit.tenant.id).values(frozen=why))


def _publish(unit: Unit, kind: EventKind, row: Offboarding) -> None:
    unit.publish(kind, [unit.tenant.id], details={"offboarding": str(row.id), "coolingDays": row.cooling_days})
