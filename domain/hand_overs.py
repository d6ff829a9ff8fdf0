"""Hand-overs: a customer, many, or all that a member looks after, go to another member of the tenant.

All of one member's are handed over by a job, in steps, under the rights that whoever started it has by then.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import func, select

from domain.customers.changing import NOT_THERE, check_version, lock, lock_many, lock_where, touch, views
from domain.customers.events import HANDED_OVER
from domain.customers.inputs import input_path
from domain.customers.reach import check, gains, readable
from domain.customers.rows import Customer, CustomerView
from domain.errors import Forbidden, Refused, UserError
from tenants.access import Permission
from tenants.jobs import JobId, JobKind
from tenants.members import Member
from tenants.unit import Unit

MOST_AT_ONCE = 500
_STEP = 500
_RIGHT = Permission.CUSTOMERS_HAND_OVER
_OWNER = "".join(map(str, input_path("owner_id")))


@dataclass(frozen=True, slots=True)
class HandOver:
    """From which member to which."""

    owner: UUID
    to: UUID


HAND_OVER = JobKind("hand_over_customers", HandOver, "Give all customers of one member to another.")


async def one(unit: Unit, customer: UUID, to: UUID, version: int | None = None) -> CustomerView:
    """Asking again changes nothing. Raises `Forbidden`, `Refused`: NOT_FOUND, STALE_VERSION, BEYOND_YOUR_RIGHTS."""
    row = await lock(unit, customer)
    check(unit, row.owner_id, _RIGHT)
    if version is not None:
        check_version(row, version)
    errors = [*await _unknown(unit, to), *_gains(unit, row, to)]
    if errors:
        raise Refused(errors)
    await _move(unit, [row], to)
    return views(unit, [(row, None)])[0]


async def many(unit: Unit, customers: Sequence[UUID], to: UUID) -> list[CustomerView | Refused]:
    """An outcome per id, in order; what is refused holds up no other. Raises `Refused` where nobody is to get them."""
    unknown = await _unknown(unit, to)
    if unknown:
        raise Refused(unknown)
    rows = await lock_many(unit, customers)
    refused = {id: refusal for id, row in rows.items() if (refusal := _refusal(unit, row, to))}
    moved = [row for id, row in rows.items() if id not in refused]
    await _move(unit, moved, to)
    _record(unit, refused)
    made = {view.id: view for view in views(unit, [(row, None) for row in moved])}
    return [made.get(id) or refused.get(id) or Refused([NOT_THERE]) for id in customers]


async def start(unit: Unit, wanted: HandOver) -> JobId:
    """Enqueue the job that hands over all customers of a member. Raises `Forbidden`, `Refused`."""
    errors = await _errors(unit, wanted)
    if wanted.owner == wanted.to:
        errors.append(UserError("INVALID", ("to",), "to is the member whose customers they are already."))
    if errors:
        raise Refused(errors)
    mine = (Customer.tenant_id == unit.tenant.id, Customer.owner_id == wanted.owner)
    total = (await unit.scalars(select(func.count()).where(*mine, *readable(unit))))[0]
    job = await unit.enqueue(HAND_OVER, wanted, total=total)
    unit.audit("hand_over.started", subject_type="Job", subjects=[job], details={"customers": total})
    return job


async def work(unit: Unit, wanted: HandOver, after: UUID, most: int = _STEP) -> tuple[UUID, int]:
    """Hand over the next customers behind that id: the last one's, and how many. None left: 0.

    Raises `Forbidden` or `Refused` once the viewer may not do it any more, or nobody is to get them.
    """
    errors = await _errors(unit, wanted)
    if errors:
        raise Refused(errors)
    rows = await lock_where(unit, Customer.owner_id == wanted.owner, Customer.id > after, most=most)
    await _move(unit, rows, wanted.to)
    return (rows[-1].id if rows else after), len(rows)


async def _errors(unit: Unit, wanted: HandOver) -> list[UserError]:
    relation = check(unit, wanted.owner, _RIGHT)
    return [*await _unknown(unit, wanted.to), *gains(unit, relation, wanted.to, ("to",))]


async def _unknown(unit: Unit, to: UUID) -> list[UserError]:
    """Why nobody is to get the customers: whoever is not there, or may not enter, looks after none."""
    there = select(Member.id).where(Member.tenant_id == unit.tenant.id, Member.id == to, Member.status == "ACTIVE")
    return [] if await unit.scalars(there) else [UserError("NOT_FOUND", ("to",), "to is no active member's id.")]


def _gains(unit: Unit, row: Customer, to: UUID) -> list[UserError]:
    return gains(unit, unit.viewer.relation(row.owner_id), to, ("to",))


def _refusal(unit: Unit, row: Customer, to: UUID) -> Refused | None:
    try:
        check(unit, row.owner_id, _RIGHT)
    except Forbidden as forbidden:
        return Refused([UserError(forbidden.code, ("id",), forbidden.message)])
    errors = _gains(unit, row, to)
    return Refused(errors) if errors else None


def _record(unit: Unit, refused: Mapping[UUID, Refused]) -> None:
    """Attempts beyond one's rights, which no error of the whole call tells of."""
    codes: dict[str, list[UUID]] = {}
    for id, refusal in refused.items():
        codes.setdefault(refusal.errors[0].code, []).append(id)
    for code, customers in codes.items():
        unit.audit("access.refused", subject_type="Customer", subjects=customers, fields=[_OWNER], outcome=code)


async def _move(unit: Unit, rows: Sequence[Customer], to: UUID) -> None:
    moved = [row for row in rows if row.owner_id != to]
    for row in moved:
        row.owner_id = to
        touch(unit, row)
    await unit.flush()
    if moved:
        unit.publish(HANDED_OVER, [row.id for row in moved], [_OWNER])
