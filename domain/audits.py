"""Reading the audit log: entries with their place in the chain, newest first, and what left per hour."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, func, select

from domain.errors import BadInput
from domain.paging import Page, Window, cut, windowed
from tenants.audit.entries import CONTENT, AuditEntry, DisclosureCounter
from tenants.audit.tables import AuditLink
from tenants.unit import Unit

LONGEST = timedelta(days=31)  # of a question for counts per hour


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """`since` is the first moment that counts, `until` the first that no longer does."""

    actor: UUID | None = None
    action: str | None = None
    subject: UUID | None = None
    outcome: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class EntryView:
    """`seq` is its place in the chain; None until it is linked."""

    id: UUID
    at: datetime
    actor: UUID | None
    action: str
    subject_type: str | None
    subjects: Sequence[UUID]
    fields: Sequence[str]
    outcome: str
    details: Mapping[str, Any]
    purpose: str | None
    request_id: str | None
    seq: int | None


@dataclass(frozen=True, slots=True)
class HourCount:
    """What left in one hour: records, and values in plain and masked."""

    hour: datetime
    records: int
    plain: int
    masked: int


async def page(unit: Unit, where: Filter, window: Window) -> Page[EntryView]:
    statement = _selected(unit).where(*_conditions(where))
    rows = await unit.rows(windowed(statement, (AuditEntry.at, AuditEntry.id), window, descending=True))
    kept, has_next, has_previous = cut(rows, window)
    return Page([_view(row) for row in kept], has_next, has_previous)


async def count(unit: Unit, where: Filter) -> int:
    mine = AuditEntry.tenant_id == unit.tenant.id
    return int((await unit.scalars(select(func.count()).select_from(AuditEntry).where(mine, *_conditions(where))))[0])


async def get_many(unit: Unit, entries: Sequence[UUID]) -> list[EntryView | None]:
    rows = await unit.rows(_selected(unit).where(AuditEntry.id.in_(set(entries))))
    found = {row.id: _view(row) for row in rows}
    return [found.get(entry) for entry in entries]


async def disclosed(unit: Unit, viewer: UUID | None, since: datetime | None, until: datetime | None) -> list[HourCount]:
    """Per hour, oldest first, of one viewer or of all, within `hours_between`."""
    start, end = hours_between(unit, since, until)
    sums = [func.sum(getattr(DisclosureCounter, name)).label(name) for name in ("records", "plain", "masked")]
    hours = (DisclosureCounter.hour >= start, DisclosureCounter.hour < end)
    statement = select(DisclosureCounter.hour, *sums).where(DisclosureCounter.tenant_id == unit.tenant.id, *hours)
    if viewer is not None:
        statement = statement.where(DisclosureCounter.viewer == viewer)
    rows = await unit.rows(statement.group_by(DisclosureCounter.hour).order_by(DisclosureCounter.hour))
    return [HourCount(row.hour, int(row.records), int(row.plain), int(row.masked)) for row in rows]


def hours_between(unit: Unit, since: datetime | None, until: datetime | None) -> tuple[datetime, datetime]:
    """From the start of the first hour; the last day unless told. Raises `BadInput` beyond 31 days."""
    end = until or unit.now
    start = (since or end - timedelta(days=1)).astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    if end - start > LONGEST:
        raise BadInput("`from` and `to` are at most 31 days apart.")
    return start, end


def _selected(unit: Unit) -> Select[Any]:
    same = (AuditLink.tenant_id == AuditEntry.tenant_id) & (AuditLink.entry_id == AuditEntry.id)
    return select(*CONTENT, AuditLink.seq).outerjoin(AuditLink, same).where(AuditEntry.tenant_id == unit.tenant.id)


def _view(row: Row[Any]) -> EntryView:
    return EntryView(**row._mapping)


def _conditions(where: Filter) -> list[ColumnElement[bool]]:
    optional = {
        AuditEntry.actor: where.actor,
        AuditEntry.action: where.action,
        AuditEntry.outcome: where.outcome,
    }
    found: list[ColumnElement[bool]] = [column == value for column, value in optional.items() if value is not None]
    if where.subject is not None:
        found.append(AuditEntry.subjects.any_() == where.subject)
    found += [AuditEntry.at >= where.since] if where.since else []
    found += [AuditEntry.at < where.until] if where.until else []
    return found
