"""What a tenant uses: what it asks for and what leaves, hour by hour; what it keeps, day by day."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from sqlalchemy import Row, Select, func, literal, select, union_all
from sqlalchemy.dialects.postgresql import insert

from domain import audits
from domain.audits import HourCount
from tenants.owned import TenantOwned, places
from tenants.unit import Unit
from tenants.usage import UsageHour, UsageSize

AT_ONCE = 20_000  # rows of a table that a request may measure
_CUSTOMERS = "customers"


@dataclass(frozen=True, slots=True, kw_only=True)
class HourUse:
    """`plain` and `masked` are values that left; `refused` are those of the requests that were over a limit."""

    hour: datetime
    requests: int = 0
    cost: int = 0
    refused: int = 0
    plain: int = 0
    masked: int = 0


@dataclass(frozen=True, slots=True)
class Size:
    """Customers with archived ones, and the bytes of all sealed values."""

    day: date
    customers: int
    bytes: int
    measured_at: datetime


async def per_hour(unit: Unit, since: datetime | None, until: datetime | None) -> list[HourUse]:
    """Hours in which there was something, oldest first. Raises `BadInput` beyond 31 days."""
    start, end = audits.hours_between(unit, since, until)
    mine = (UsageHour.tenant_id == unit.tenant.id, UsageHour.hour >= start, UsageHour.hour < end)
    asked = await unit.rows(select(UsageHour.hour, UsageHour.requests, UsageHour.cost, UsageHour.refused).where(*mine))
    return _joined(asked, await audits.disclosed(unit, None, since, until))


def _joined(asked: Sequence[Any], left: Sequence[HourCount]) -> list[HourUse]:
    found: dict[datetime, dict[str, int]] = {row.hour: dict(row._mapping) for row in asked}
    for count in left:
        found.setdefault(count.hour, {}).update(plain=count.plain, masked=count.masked)
    return [HourUse(**{**found[hour], "hour": hour}) for hour in sorted(found)]  # type: ignore[arg-type]  # the counts


async def per_day(unit: Unit, since: datetime | None, until: datetime | None) -> list[Size]:
    """As each night's measurement found it, oldest first."""
    start, end = audits.hours_between(unit, since, until)
    statement = _sizes(unit).where(UsageSize.measured_at >= start, UsageSize.measured_at < end)
    return [_size(row) for row in await unit.rows(statement.order_by(UsageSize.day))]


async def size(unit: Unit) -> Size | None:
    """As of now where that is quickly found out, else as of the last night; None before the first."""
    found = await _measured(unit, AT_ONCE)
    if found is not None:
        return found
    last = await unit.rows(_sizes(unit).order_by(UsageSize.day.desc()).limit(1))
    return _size(last[0]) if last else None


async def keep_size(unit: Unit) -> None:
    """Measure however long it takes, for `per_day`."""
    found = await _measured(unit, None)
    if found is not None:
        row = {"customers": found.customers, "bytes": found.bytes, "measured_at": found.measured_at}
        key = {"tenant_id": unit.tenant.id, "day": found.day}
        kept = insert(UsageSize).values(**key, **row)
        await unit.run(kept.on_conflict_do_update(index_elements=list(key), set_=row))


async def _measured(unit: Unit, most: int | None) -> Size | None:
    """None where a table has more than `most` rows."""
    tables = [mapper.class_ for mapper in TenantOwned.registry.mappers if places(mapper.class_)]
    rows = await unit.rows(union_all(*(_length(unit, table, most) for table in tables)))
    if most is not None and any(row.rows > most for row in rows):
        return None
    customers = sum(row.rows for row in rows if row.table == _CUSTOMERS)
    return Size(unit.now.date(), customers, sum(int(row.bytes) for row in rows), unit.now)


def _length(unit: Unit, table: type[TenantOwned], most: int | None) -> Select[Any]:
    lengths = [func.coalesce(func.octet_length(getattr(table, name)), 0) for name in places(table)]
    inner = select(sum(lengths, literal(0)).label("bytes")).where(table.tenant_id == unit.tenant.id)
    within = (inner if most is None else inner.limit(most + 1)).subquery()
    counts = (func.count().label("rows"), func.coalesce(func.sum(within.c.bytes), 0).label("bytes"))
    return select(literal(table.__tablename__).label("table"), *counts).select_from(within)


def _size(row: Row[Any]) -> Size:
    return Size(**row._mapping)


def _sizes(unit: Unit) -> Select[Any]:
    columns: tuple[Any, ...] = (UsageSize.day, UsageSize.customers, UsageSize.bytes, UsageSize.measured_at)
    return select(*columns).where(UsageSize.tenant_id == unit.tenant.id)
