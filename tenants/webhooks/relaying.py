"""From events to deliveries: each event once for each endpoint that wants it, in the order of commits.

A tenant's cursor moves in the transaction that writes the deliveries. It passes no event whose transaction could still
be followed by an older one: only what lies below the horizon of `tenants.feeds` is taken.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
import structlog
from sqlalchemy import BigInteger, Row, Text, Uuid, bindparam, select, text
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.ext.asyncio import AsyncSession

from tenants.database import SCOPE, Database
from tenants.ids import new_id
from tenants.tenants import tenants
from tenants.unit import Unit
from tenants.viewers import TenantId
from tenants.webhooks import DisabledWhy, EndpointState, WebhookEndpoint
from tenants.webhooks.spans import Spans

_log = structlog.get_logger()
PAGE = 500  # events of one transaction
_LAST = UUID(int=2**128 - 1)
_HORIZON = "pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
_TENANT = bindparam("tenant", type_=Uuid)
_NEWCOMERS = text(
    f"""
    WITH now AS MATERIALIZED (SELECT {_HORIZON} AS horizon)
    SELECT now.horizon, EXISTS (SELECT FROM events WHERE xid >= now.horizon) AS is_behind,
        ARRAY(SELECT DISTINCT e.tenant_id FROM events e WHERE e.xid >= :since AND e.xid < now.horizon
            AND EXISTS (SELECT FROM webhook_endpoints w WHERE w.tenant_id = e.tenant_id)
        ) AS tenants
    FROM now
    """  # noqa: S608  # a constant of ours
).bindparams(bindparam("since", type_=BigInteger))
_LOCK = text(
    """
    SELECT xid, event_id, pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS next FROM webhook_cursors
    WHERE tenant_id = :tenant AND id = :tenant FOR UPDATE
    """
).bindparams(_TENANT)
_PATIENCE = text("SELECT set_config('lock_timeout', '200ms', true)")
# The tenant's data came to another cluster, whose transactions begin anew: go on behind what was told of last.
_RESET = text(
    f"""
    UPDATE webhook_cursors SET event_id = :last, xid = coalesce((
        SELECT min(e.xid) FROM events e WHERE e.tenant_id = :tenant AND e.xid < {_HORIZON} AND e.at > coalesce(
            (SELECT max(d.happened_at) FROM webhook_deliveries d WHERE d.tenant_id = :tenant),
            (SELECT min(w.created_at) FROM webhook_endpoints w WHERE w.tenant_id = :tenant)
        )
    ), {_HORIZON}) - 1
    WHERE tenant_id = :tenant AND id = :tenant RETURNING xid, event_id
    """  # noqa: S608  # likewise
).bindparams(_TENANT, bindparam("last", type_=Uuid))
_FORGET = text("UPDATE webhook_endpoints SET begun = NULL WHERE tenant_id = :tenant").bindparams(_TENANT)
_NEW = text(
    f"""
    SELECT id, xid, at, type, version, subject, fields, {_HORIZON} AS horizon FROM events
    WHERE tenant_id = :tenant AND (xid, id) > (:xid, :id) AND xid < {_HORIZON} ORDER BY xid, id LIMIT :most
    """  # noqa: S608  # likewise
).bindparams(_TENANT, bindparam("xid", type_=BigInteger), bindparam("id", type_=Uuid))
_ADD = text(
    """
    INSERT INTO webhook_deliveries (tenant_id, id, endpoint_id, event_id, type, type_version, happened_at, subject,
        fields, place, xid, state, due_at, created_at)
    SELECT :tenant, d.id, d.endpoint, e.id, e.type, e.version, e.at, e.subject, e.fields,
        e.xid, e.xid, 'PENDING', :now, :now
    FROM jsonb_to_recordset(CAST(:deliveries AS jsonb)) AS d (id uuid, endpoint uuid, event uuid)
    JOIN events e ON e.tenant_id = :tenant AND e.id = d.event
    ON CONFLICT (tenant_id, endpoint_id, event_id) DO NOTHING
    """
).bindparams(_TENANT, bindparam("now", type_=TIMESTAMP(timezone=True)), bindparam("deliveries", type_=Text))
_MOVE = text(
    "UPDATE webhook_cursors SET xid = :xid, event_id = :id WHERE tenant_id = :tenant AND id = :tenant"
).bindparams(_TENANT, bindparam("xid", type_=BigInteger), bindparam("id", type_=Uuid))
_BEGIN = text(
    f"""
    INSERT INTO webhook_cursors (tenant_id, id, xid, event_id)
    VALUES (:tenant, :tenant, {_HORIZON} - 1, :last)
    ON CONFLICT (tenant_id, id) DO UPDATE SET xid = excluded.xid, event_id = excluded.event_id
        WHERE webhook_cursors.xid < excluded.xid AND NOT EXISTS (
            SELECT FROM webhook_endpoints w WHERE w.tenant_id = :tenant
        )
    """  # noqa: S608  # likewise
).bindparams(_TENANT, bindparam("last", type_=Uuid))
_PASSED = text(
    "SELECT xid, event_id FROM webhook_cursors WHERE tenant_id = :tenant AND id = :tenant FOR UPDATE"
).bindparams(_TENANT)


@dataclass(frozen=True, slots=True)
class Newcomers:
    """Who has events below `horizon`; `is_behind`: others have committed, or will, that lie above it."""

    tenants: list[TenantId]
    horizon: int
    is_behind: bool


@dataclass(frozen=True, slots=True)
class Relayed:
    endpoints: frozenset[UUID] = frozenset()
    events: int = 0

    @property
    def is_full(self) -> bool:
        """More may wait."""
        return self.events == PAGE


async def newcomers(platform: Database, since: int) -> Newcomers:
    """Tenants with an endpoint, and with events that committed from transaction `since` on."""
    async with platform.statements() as connection:
        row = (await connection.execute(_NEWCOMERS, {"since": since})).one()
    return Newcomers([TenantId(tenant) for tenant in row.tenants], row.horizon, row.is_behind)


async def everybody(platform: Database) -> list[TenantId]:
    """All tenants that are served and have an endpoint."""
    having = select(WebhookEndpoint.tenant_id).where(WebhookEndpoint.tenant_id == tenants.c.id)
    async with platform.session(write=False) as session:
        rows = await session.execute(select(tenants.c.id).where(tenants.c.status == "ACTIVE", having.exists()))
        return [TenantId(row.id) for row in rows]


async def begin(unit: Unit) -> None:
    """Events from now on become deliveries; before the first endpoint comes, none does.

    Those of transactions that are still on their way come afterwards. What is known already each endpoint leaves out by
    its own spans, which are written after this: nobody relays this tenant's events until this unit has ended.
    """
    await unit.flush()
    await unit.run(_BEGIN.bindparams(tenant=unit.tenant.id, last=_LAST))


async def relay(app: Database, tenant: TenantId, now: datetime) -> Relayed:
    """Write the deliveries of up to `PAGE` events, and move on behind them; another process may do so meanwhile."""
    async with app.session(write=True) as session:
        await session.execute(SCOPE, {"tenant": tenant})
        await session.execute(_PATIENCE)
        at = (await session.execute(_LOCK, {"tenant": tenant})).one_or_none()
        if at is None:
            return Relayed()
        if at.xid >= at.next:
            at = await _reset(session, tenant)
        asked = {"tenant": tenant, "xid": at.xid, "id": at.event_id, "most": PAGE}
        rows = (await session.execute(_NEW, asked)).all()
        if not rows:
            return Relayed()
        wanted = _wanted(rows, await _endpoints(session, tenant))
        if wanted:
            await add(session, tenant, wanted, now)
        await session.execute(_MOVE, {"tenant": tenant, "xid": rows[-1].xid, "id": rows[-1].id})
    return Relayed(frozenset(endpoint for endpoint, _ in wanted), len(rows))


async def _reset(session: AsyncSession, tenant: TenantId) -> Row[Any]:
    _log.error("cursor of webhooks was ahead of all transactions, and begins anew", tenant=str(tenant))
    await session.execute(_FORGET, {"tenant": tenant})
    return (await session.execute(_RESET, {"tenant": tenant, "last": _LAST})).one()


async def add(session: AsyncSession, tenant: UUID, wanted: Iterable[tuple[UUID, UUID]], now: datetime) -> None:
    """Deliveries of (endpoint, event), each in its event's place; one that is there stays as it is."""
    await session.execute(_ADD, _said(tenant, wanted, now))


async def add_in(unit: Unit, wanted: Iterable[tuple[UUID, UUID]]) -> None:
    """As `add`, in a unit."""
    await unit.run(_ADD.bindparams(**_said(unit.tenant.id, wanted, unit.now)))


def _said(tenant: UUID, wanted: Iterable[tuple[UUID, UUID]], now: datetime) -> dict[str, Any]:
    rows = [{"id": str(new_id()), "endpoint": str(endpoint), "event": str(event)} for endpoint, event in wanted]
    return {"tenant": tenant, "now": now, "deliveries": orjson.dumps(rows).decode()}


async def never_coming(unit: Unit, endpoint: UUID, events: Sequence[Row[Any]]) -> list[UUID]:
    """Those that nobody will make deliveries of by himself; nobody relays until this unit has ended.

    They were passed, or happened before the endpoint began, or while it was disabled.
    """
    passed = await unit.rows(_PASSED.bindparams(tenant=unit.tenant.id))
    mine = (WebhookEndpoint.tenant_id == unit.tenant.id, WebhookEndpoint.id == endpoint)
    (row,) = await unit.rows(select(WebhookEndpoint.begun).where(*mine))
    spans = Spans.of(row.begun)
    at = (passed[0].xid, passed[0].event_id) if passed else (0, _LAST)
    return [event.id for event in events if (event.xid, event.id) <= at or not spans.hold(event.xid)]


def wants(types: Collection[str], name: str) -> bool:
    """`types` holds names, and whole groups as ``customer.*``; without any, all are wanted."""
    return not types or name in types or f"{name.partition('.')[0]}.*" in types


@dataclass(frozen=True, slots=True)
class _Wish:
    types: Collection[str]
    spans: Spans

    def has(self, event: Row[Any]) -> bool:
        return wants(self.types, event.type) and self.spans.hold(event.xid)


async def _endpoints(session: AsyncSession, tenant: TenantId) -> dict[UUID, _Wish]:
    """A disabled one too: what happened before it was disabled waits for it. One that came by a restore began anew."""
    is_active = (WebhookEndpoint.state == EndpointState.ACTIVE.value).label("is_active")
    was_here = WebhookEndpoint.disabled_why.is_distinct_from(DisabledWhy.RESTORED.value).label("was_here")
    columns = (WebhookEndpoint.id, WebhookEndpoint.types, WebhookEndpoint.begun, is_active, was_here)
    rows = await session.execute(select(*columns).where(WebhookEndpoint.tenant_id == tenant))
    wishes = [(row, _Wish(row.types, Spans.of(row.begun))) for row in rows]
    return {row.id: wish for row, wish in wishes if row.is_active or (row.was_here and wish.spans.is_ended)}


def _wanted(events: Iterable[Row[Any]], endpoints: dict[UUID, _Wish]) -> list[tuple[UUID, UUID]]:
    """In the order of events, so that ids of deliveries grow with them."""
    return [(id, event.id) for event in events for id, wish in endpoints.items() if wish.has(event)]
