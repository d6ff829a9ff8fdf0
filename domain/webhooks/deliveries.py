"""The log of deliveries: read by page, asked for once more, and tried out; how each endpoint does."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, ColumnElement, exists, func, literal_column, select, update

from domain.errors import Refused, UserError
from domain.paging import Page, Window, cut, windowed
from domain.webhooks import endpoints, hurrying
from tenants.events import KINDS, Event
from tenants.ids import new_id
from tenants.unit import Unit
from tenants.webhooks import (
    TESTED,
    DeliveryState,
    EndpointState,
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
    relaying,
)

MOST_REPLAYED = 10_000
HEALTH = timedelta(hours=24)
_PLACE = literal_column("pg_current_xact_id()::text::bigint", BigInteger)
_HAS_ENDPOINT = exists().where(
    WebhookEndpoint.tenant_id == WebhookDelivery.tenant_id, WebhookEndpoint.id == WebhookDelivery.endpoint_id
)


@dataclass(frozen=True, slots=True)
class Log:
    """Which deliveries; None does not filter."""

    endpoint: UUID | None = None
    state: DeliveryState | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """Of the last 24 hours, `pending` and the moments apart."""

    succeeded: int = 0
    failed: int = 0
    pending: int = 0
    last_success_at: datetime | None = None
    last_attempt_at: datetime | None = None

    @property
    def success_rate(self) -> float | None:
        """Of attempts; None without any."""
        attempts = self.succeeded + self.failed
        return self.succeeded / attempts if attempts else None


async def page(unit: Unit, log: Log, window: Window) -> Page[WebhookDelivery]:
    """Newest first."""
    statement = select(WebhookDelivery).where(*_conditions(unit, log)).execution_options(populate_existing=True)
    columns = (WebhookDelivery.created_at, WebhookDelivery.id)
    rows, has_next, has_previous = cut(
        await unit.scalars(windowed(statement, columns, window, descending=True)), window
    )
    return Page(rows, has_next, has_previous)


async def count(unit: Unit, log: Log) -> int:
    return int(
        (await unit.scalars(select(func.count()).select_from(WebhookDelivery).where(*_conditions(unit, log))))[0]
    )


async def get_many(unit: Unit, deliveries: Collection[UUID]) -> list[WebhookDelivery | None]:
    """In the order asked for; None where there is none."""
    mine = (*_conditions(unit, Log()), WebhookDelivery.id.in_(set(deliveries)))
    rows = await unit.scalars(select(WebhookDelivery).where(*mine).execution_options(populate_existing=True))
    found = {row.id: row for row in rows}
    return [found.get(delivery) for delivery in deliveries]


async def attempts(unit: Unit, deliveries: Collection[UUID]) -> list[Sequence[WebhookAttempt]]:
    """Of each delivery, in the order asked for; the first attempt first."""
    mine = (WebhookAttempt.tenant_id == unit.tenant.id, WebhookAttempt.delivery_id.in_(set(deliveries)))
    found: dict[UUID, list[WebhookAttempt]] = {}
    for row in await unit.scalars(select(WebhookAttempt).where(*mine).order_by(WebhookAttempt.number)):
        found.setdefault(row.delivery_id, []).append(row)
    return [found.get(delivery, []) for delivery in deliveries]


async def health(unit: Unit, asked: Sequence[UUID]) -> list[Health]:
    """In the order asked for."""
    is_well = WebhookAttempt.status.between(200, 299)
    tried = (WebhookAttempt.tenant_id == unit.tenant.id, WebhookAttempt.endpoint_id.in_(set(asked)))
    recent = WebhookAttempt.at > unit.now - HEALTH
    statement = select(
        WebhookAttempt.endpoint_id,
        func.count().filter(recent, is_well).label("succeeded"),
        func.count().filter(recent, ~func.coalesce(is_well, False)).label("failed"),
        func.max(WebhookAttempt.at).filter(is_well).label("last_success_at"),
        func.max(WebhookAttempt.at).label("last_attempt_at"),
    )
    rows = {
        row.endpoint_id: row for row in await unit.rows(statement.where(*tried).group_by(WebhookAttempt.endpoint_id))
    }
    pending = await _pending(unit, asked)
    return [_health(rows.get(endpoint), pending.get(endpoint, 0)) for endpoint in asked]


async def redeliver(unit: Unit, delivery: UUID) -> WebhookDelivery:
    """Send it again, under the same id, behind what waits for its subject; what waits is due now, in its place.

    Raises `Refused`: NOT_FOUND, and ENDPOINT_DISABLED.
    """
    (found,) = await get_many(unit, [delivery])
    if found is None:
        raise Refused([UserError("NOT_FOUND", ("id",), "There is no delivery of that id.")])
    await _refuse_disabled(unit, found.endpoint_id)
    await hurrying.hurry(unit, found.endpoint_id, WebhookDelivery.subject == found.subject)
    await _again(unit, [WebhookDelivery.id == delivery], _PLACE)
    await endpoints.rouse(unit, found.endpoint_id)
    unit.audit(
        "webhook.redelivered", subject_type="WebhookEndpoint", subjects=[found.endpoint_id], details={"count": 1}
    )
    (again,) = await get_many(unit, [delivery])
    assert again is not None  # noqa: S101  # found above, in this transaction
    return again


async def replay(unit: Unit, endpoint: UUID, since: datetime, until: datetime, types: Collection[str]) -> int:
    """Send all events of that range (until the moment before `until`), in their order, under the ids they have.

    Each in its event's place, so before what waits of later ones; what waits for their subjects is due now. How many
    there are. Raises `Refused`: NOT_FOUND, ENDPOINT_DISABLED, INVALID, TOO_MANY.
    """
    if until <= since:
        raise Refused([UserError("INVALID", ("until",), "until must be later than since.")])
    view = await _refuse_disabled(unit, endpoint)
    names = [name for name in KINDS if relaying.wants(view.types, name) and relaying.wants(types, name)]
    mine = (Event.tenant_id == unit.tenant.id, Event.at >= since, Event.at < until, Event.type.in_(names))
    asked = select(Event.id, Event.xid, Event.subject).where(*mine).order_by(Event.xid, Event.id)
    wanted = await unit.rows(asked.limit(MOST_REPLAYED + 1))
    if len(wanted) > MOST_REPLAYED:
        raise Refused(
            [UserError("TOO_MANY", ("since",), f"{MOST_REPLAYED} events are the most; take a shorter range.")]
        )
    missing = await relaying.never_coming(unit, endpoint, wanted)
    await hurrying.hurry(unit, endpoint, WebhookDelivery.subject.in_({row.subject for row in wanted}))
    chosen = (WebhookDelivery.endpoint_id == endpoint, WebhookDelivery.event_id.in_([row.id for row in wanted]))
    await _again(unit, chosen, WebhookDelivery.xid)
    await relaying.add_in(unit, [(endpoint, event) for event in missing])
    await endpoints.rouse(unit, endpoint)
    said = {"count": len(wanted)}
    unit.audit("webhook.replayed", subject_type="WebhookEndpoint", subjects=[endpoint], details=said)
    return len(wanted)


async def test(unit: Unit, endpoint: UUID) -> WebhookDelivery:
    """A message of type `webhook.test` for this endpoint alone, before all that waits for the same subject.

    Raises `Refused`: NOT_FOUND, ENDPOINT_DISABLED.
    """
    await _refuse_disabled(unit, endpoint)
    delivery = new_id()
    unit.add(
        WebhookDelivery(
            tenant_id=unit.tenant.id,
            id=delivery,
            endpoint_id=endpoint,
            event_id=delivery,
            type=TESTED.name,
            type_version=TESTED.version,
            happened_at=unit.now,
            subject=endpoint,
            fields=[],
            place=-_PLACE,
            xid=_PLACE,
            state=DeliveryState.PENDING.value,
            due_at=unit.now,
            created_at=unit.now,
        )
    )
    await unit.flush()
    await endpoints.rouse(unit, endpoint)
    unit.audit(TESTED.name, subject_type="WebhookEndpoint", subjects=[endpoint])
    (made,) = await get_many(unit, [delivery])
    assert made is not None  # noqa: S101  # written above
    return made


async def _again(unit: Unit, which: Sequence[ColumnElement[bool]], place: Any) -> None:
    """Those that wait already keep their place."""
    ended = (WebhookDelivery.tenant_id == unit.tenant.id, WebhookDelivery.state != DeliveryState.PENDING.value)
    anew = {"state": DeliveryState.PENDING.value, "reason": None, "tries": 0, "due_at": unit.now, "ended_at": None}
    statement = update(WebhookDelivery).where(*ended, *which).values(**anew, place=place)
    await unit.run(statement.execution_options(synchronize_session=False))


async def _refuse_disabled(unit: Unit, endpoint: UUID) -> endpoints.EndpointView:
    (view,) = await endpoints.get_many(unit, [endpoint])
    if view is None:
        raise Refused([UserError("NOT_FOUND", ("endpoint",), "There is no endpoint of that id.")])
    if view.state is not EndpointState.ACTIVE:
        raise Refused([UserError("ENDPOINT_DISABLED", ("endpoint",), "Enable the endpoint first.")])
    return view


async def _pending(unit: Unit, asked: Sequence[UUID]) -> dict[UUID, int]:
    waiting = (WebhookDelivery.tenant_id == unit.tenant.id, WebhookDelivery.state == DeliveryState.PENDING.value)
    statement = select(WebhookDelivery.endpoint_id, func.count().label("waiting")).where(
        *waiting, WebhookDelivery.endpoint_id.in_(set(asked))
    )
    return {row.endpoint_id: row.waiting for row in await unit.rows(statement.group_by(WebhookDelivery.endpoint_id))}


def _health(row: Any, pending: int) -> Health:
    if row is None:
        return Health(pending=pending)
    return Health(row.succeeded, row.failed, pending, row.last_success_at, row.last_attempt_at)


def _conditions(unit: Unit, log: Log) -> list[ColumnElement[bool]]:
    """What was deleted with its endpoint is gone, though its rows may be there until the night."""
    found: list[ColumnElement[bool]] = [WebhookDelivery.tenant_id == unit.tenant.id, _HAS_ENDPOINT]
    if log.endpoint is not None:
        found.append(WebhookDelivery.endpoint_id == log.endpoint)
    if log.state is not None:
        found.append(WebhookDelivery.state == log.state.value)
    return found
