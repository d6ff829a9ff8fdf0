"""What a tenant uses, over GraphQL."""

from datetime import date, datetime
from typing import Annotated

import strawberry
from strawberry import Info

from api.directives import Input, argument, requires
from api.operation import Operation
from domain import normalise, usage
from domain.errors import BadInput
from domain.normalise import Invalid
from domain.usage import HourUse, Size
from tenants.access import Permission

_READ = Permission.TENANT_MANAGE
_SUMS = ("requests", "cost", "refused", "plain", "masked")


@strawberry.type(description="Sums; whole numbers, and Float because Int ends at 2^31.")
class UsageCounts:
    requests: float = requires(_READ, description="Requests, and operations over sockets.")
    cost: float = requires(_READ, description="Fields that they could touch; a change counts 100.")
    refused: float = requires(_READ, description="Of the requests, those that were over a limit.")
    plain: float = requires(_READ, description="Personal values that left in plain.")
    masked: float = requires(_READ, description="Personal values that left in part.")


@strawberry.type(description="What was used in one hour.")
class UsageHour:
    hour: datetime = requires(_READ, description="Its first moment, UTC.")
    counts: UsageCounts = requires(_READ)


@strawberry.type(description="What the tenant kept at one moment.")
class UsageSize:
    day: date = requires(_READ, description="UTC.")
    measured_at: datetime = requires(_READ)
    customers: float = requires(_READ, description="With archived ones.")
    storage_bytes: float = requires(_READ, description="Of all sealed values; indexes and logs are not counted.")


@strawberry.type(description="What the tenant uses.")
class Usage:
    hours: list[UsageHour] = requires(_READ, description="Those in which there was something, oldest first.")
    total: UsageCounts = requires(_READ, description="Of these hours.")
    days: list[UsageSize] = requires(_READ, description="As measured each night, oldest first.")
    now: UsageSize | None = requires(
        _READ, description="As of now, or of the last night where there is much; null before the first."
    )


_WHEN = Input(why="narrows by a clear column of what the viewer may list")


@strawberry.type
class UsageQueries:
    @requires(
        _READ,
        description="What the tenant used; the last day unless told, 31 days at most. Requests show after some ten"
        " seconds. Kept for 400 days.",
    )
    async def usage(
        self,
        info: Info[Operation],
        from_: Annotated[
            datetime | None, strawberry.argument(name="from", description="The first hour.", directives=[_WHEN])
        ] = None,
        to: Annotated[datetime | None, argument(_WHEN, "The first moment after.")] = None,
    ) -> Usage | None:
        unit, since, until = info.context.unit, _instant("from", from_), _instant("to", to)
        hours = await usage.per_hour(unit, since, until)
        days = await usage.per_day(unit, since, until)
        now = await usage.size(unit) if "Usage.now" in info.context.selected else None
        return Usage(
            hours=[UsageHour(hour=each.hour, counts=_counts([each])) for each in hours],
            total=_counts(hours),
            days=[_size(each) for each in days],
            now=None if now is None else _size(now),
        )


def _counts(hours: list[HourUse]) -> UsageCounts:
    return UsageCounts(**{name: sum(getattr(each, name) for each in hours) for name in _SUMS})


def _size(size: Size) -> UsageSize:
    return UsageSize(day=size.day, measured_at=size.measured_at, customers=size.customers, storage_bytes=size.bytes)


def _instant(name: str, value: datetime | None) -> datetime | None:
    try:
        return None if value is None else normalise.instant(value)
    except Invalid as invalid:
        raise BadInput(f"`{name}` {invalid.reason}.") from None
