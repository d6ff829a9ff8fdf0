"""How many personal values each member was shown in plain this hour, held against what its tenant allows.

The audit log is what counts, so that all processes count the same: each reads it every few seconds, and adds its own
at once. Within a process the count is exact; what other processes show counts some seconds late. A request that is on
its way when the budget is spent still gets its page.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import ARRAY, bindparam, select, text
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.types import Uuid

from tenants.audit.entries import DISCLOSED, REVEALED, Entry
from tenants.events import Event, EventKind
from tenants.members import Member
from tenants.unit import Unit
from tenants.viewers import TenantState, Viewer

EXCEEDED = EventKind(
    "disclosure.budget_exceeded",
    "Member",
    "A member was shown as many plain values as the tenant allows in an hour, and until the hour ends sees masks.",
)
PATIENCE = 10.0  # seconds between two looks at what other processes have shown
_SETTLED = timedelta(minutes=1)  # longer than an entry takes from its moment to its commit
_KNOWN = 10_000
_COUNTED = (DISCLOSED, REVEALED)
_LOOK = text(
    f"""
    SELECT coalesce(sum(plain) FILTER (WHERE at < :settled), 0) AS settled,
        coalesce(sum(plain) FILTER (WHERE at >= :settled AND NOT id = ANY(:own)), 0) AS others
    FROM (SELECT id, at, CAST(details->>'plain' AS bigint) AS plain FROM audit_entries
        WHERE tenant_id = :tenant AND actor = :member AND at >= :since AND at < :until
            AND action IN ('{DISCLOSED}', '{REVEALED}')) AS shown
    """  # noqa: S608  # two constants of ours
).bindparams(
    bindparam("tenant", type_=Uuid),
    bindparam("member", type_=Uuid),
    bindparam("own", type_=ARRAY(Uuid)),
    *(bindparam(name, type_=TIMESTAMP(timezone=True)) for name in ("since", "until", "settled")),
)


@dataclass(slots=True)
class _Spent:
    """Of one member in one hour. `settled` is the sum of all entries before `mark`, where none come any more.

    From there on `own` are this process' entries, and `others` the sum of the other processes'.
    """

    hour: datetime
    mark: datetime
    settled: int = 0
    others: int = 0
    own: dict[UUID, tuple[datetime, int]] = field(default_factory=dict)
    own_plain: int = 0
    looked_at: float = float("-inf")
    is_told: bool = False

    @property
    def total(self) -> int:
        return self.settled + self.others + self.own_plain

    def note(self, entry: UUID, at: datetime, plain: int) -> None:
        if entry not in self.own:
            self.own[entry] = (at, plain)
            self.own_plain += plain

    def forget(self, entry: UUID) -> None:
        self.own_plain -= self.own.pop(entry, (None, 0))[1]

    def settle(self, until: datetime, plain: int, others: int) -> None:
        self.mark, self.settled, self.others = until, self.settled + plain, others
        self.own = {entry: (at, count) for entry, (at, count) in self.own.items() if at >= until}
        self.own_plain = sum(count for _, count in self.own.values())


class Budgets:
    """What one process knows; for one event loop."""

    def __init__(self, patience: float = PATIENCE, clock: Callable[[], float] = time.monotonic) -> None:
        self._patience = patience
        self._clock = clock
        self._known: OrderedDict[tuple[UUID, UUID], _Spent] = OrderedDict()

    async def is_spent(self, session: AsyncSession, tenant: TenantState, viewer: Viewer, now: datetime) -> bool:
        """Asks the database in the unit's own transaction, and only if the last look was long ago."""
        if tenant.disclosure_budget is None or viewer.principal is None:
            return False
        spent = self._of(tenant.id, viewer.principal, now)
        if self._clock() - spent.looked_at > self._patience:
            await self._look(session, tenant, viewer.principal, spent, now)
        return spent.total >= tenant.disclosure_budget

    def note(self, entries: Sequence[Entry]) -> None:
        """Count what these entries tell of; to count one again changes nothing."""
        for entry in entries:
            plain = entry.details.get("plain") if entry.action in _COUNTED else None
            if isinstance(plain, int) and entry.actor is not None:
                self._of(entry.tenant, entry.actor, entry.at).note(entry.id, entry.at, plain)

    def forget(self, entries: Sequence[Entry]) -> None:
        """What could not be recorded was not shown."""
        for entry in entries:
            if entry.actor is not None:
                self._of(entry.tenant, entry.actor, entry.at).forget(entry.id)

    def claim_telling(self, unit: Unit) -> bool:
        """True once per member and hour, when its budget is spent: then administrators are to be told."""
        budget, member = unit.tenant.disclosure_budget, unit.viewer.principal
        if budget is None or member is None:
            return False
        spent = self._of(unit.tenant.id, member, unit.now)
        if spent.is_told or spent.total < budget:
            return False
        spent.is_told = True
        return True

    def renounce_telling(self, unit: Unit) -> None:
        """They could not be told; the next who asks may try."""
        if unit.viewer.principal is not None:
            self._of(unit.tenant.id, unit.viewer.principal, unit.now).is_told = False

    def _of(self, tenant: UUID, member: UUID, at: datetime) -> _Spent:
        hour, key = hour_of(at), (tenant, member)
        spent = self._known.get(key)
        if spent is not None and spent.hour > hour:
            return _Spent(hour, hour)  # a late one of an hour that is over
        if spent is None or spent.hour < hour:
            spent = self._known[key] = _Spent(hour, hour)
            while len(self._known) > _KNOWN:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return spent

    async def _look(
        self, session: AsyncSession, tenant: TenantState, member: UUID, spent: _Spent, now: datetime
    ) -> None:
        mark, settled = spent.mark, max(spent.mark, now - _SETTLED)
        parameters = {
            "tenant": tenant.id,
            "member": member,
            "since": mark,
            "until": resets_at(spent.hour),
            "settled": settled,
            "own": list(spent.own),
        }
        looked_at = self._clock()
        row = (await session.execute(_LOOK, parameters)).one()
        if spent.mark != mark or spent.looked_at > looked_at:
            return  # somebody else looked meanwhile
        spent.settle(settled, int(row.settled), int(row.others))
        spent.looked_at = looked_at


async def spent(unit: Unit, member: UUID) -> int:
    """How many values the member was shown in plain this hour, as far as it is on record."""
    hour = hour_of(unit.now)
    hours = {"since": hour, "settled": hour, "until": resets_at(hour)}
    (row,) = await unit.rows(_LOOK.bindparams(tenant=unit.tenant.id, member=member, own=[], **hours))
    return int(row.settled) + int(row.others)


async def is_over(unit: Unit, member: UUID) -> bool:
    """Whether that member is capped now; of the viewer, whether it is in this very unit."""
    if member == unit.viewer.principal:
        return unit.is_over_budget
    limit = unit.tenant.disclosure_budget
    return limit is not None and await spent(unit, member) >= limit


async def tell(unit: Unit, member: UUID, hour: datetime) -> None:
    """Publish that the member's budget of that hour is spent, unless somebody has done so."""
    # A lock that only other tellers and reveals wait for.
    await unit.rows(
        select(Member.id).where(Member.tenant_id == unit.tenant.id, Member.id == member).with_for_update(key_share=True)
    )
    told = select(Event.id).where(
        Event.tenant_id == unit.tenant.id, Event.at >= hour, Event.type == EXCEEDED.name, Event.subject == member
    )
    if not await unit.rows(told.limit(1)):
        unit.publish(EXCEEDED, [member])


def resets_at(moment: datetime) -> datetime:
    """When a new hour begins, and with it a new budget."""
    return hour_of(moment) + timedelta(hours=1)


def hour_of(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
