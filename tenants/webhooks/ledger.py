"""What senders do with the table of deliveries: find what is due, lease it, settle what came of it.

As with jobs, each act is a short transaction of the tenant and needs no key. A sender that dies leaves its lease to run
out, and the same message goes out again; one that was only slow is refused by its fence. Claims are
counted before anything is sent, so what kills its senders shows. Every moment is the caller's.
"""

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Integer, Text, Uuid, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY, TIMESTAMP
from sqlalchemy.ext.asyncio import AsyncSession

from tenants.database import SCOPE, Database
from tenants.viewers import TenantId
from tenants.webhooks import DeliveryState

LEASE = timedelta(seconds=60)  # longer than a request may take, with all that stands around it
_MORE = 64
_NEAREST = 256  # rows, at the front of what is due
_SUBJECTS = 1000
_NOW = bindparam("now", type_=TIMESTAMP(timezone=True))
_TENANT = bindparam("tenant", type_=Uuid)
_FREE = "d.state = 'PENDING' AND d.due_at <= :now AND (d.lease_until IS NULL OR d.lease_until < :now)"
_DUE = text(
    f"""
    SELECT e.tenant_id, e.id FROM webhook_endpoints e
    JOIN tenants t ON t.id = e.tenant_id AND t.status = 'ACTIVE' AND t.frozen IS NULL
    WHERE e.state = 'ACTIVE' AND (e.not_before IS NULL OR e.not_before <= :now) AND EXISTS (
        SELECT FROM webhook_deliveries d WHERE d.tenant_id = e.tenant_id AND d.endpoint_id = e.id AND {_FREE}
    )
    """  # noqa: S608  # a condition of ours
).bindparams(_NOW)
_WAITING = "tenant_id = :tenant AND endpoint_id = :endpoint AND state = 'PENDING'"
_PARTS = "id, subject, due_at, lease_until, place, xid, event_id, state"
# Of one subject only the first that is still to be sent, whoever holds it. Most are found among the rows that have been
# due for longest; where too many of those wait behind others, by a leap from subject to subject; where there are too
# many of these as well, by one walk along all that waits. A step that is not needed costs nothing.
_HEADS = f"""
    nearest AS MATERIALIZED (
        SELECT {_PARTS} FROM webhook_deliveries d WHERE {_WAITING} AND {_FREE} ORDER BY due_at LIMIT {_NEAREST}
    ), near AS MATERIALIZED (
        SELECT * FROM nearest WHERE id = (
            SELECT d.id FROM webhook_deliveries d WHERE {_WAITING} AND d.subject = nearest.subject
            ORDER BY place, xid, event_id LIMIT 1
        )
    ), leaps AS (
        (
            SELECT 1 AS n, {_PARTS} FROM webhook_deliveries WHERE {_WAITING}
            ORDER BY subject, place, xid, event_id LIMIT 1
        )
        UNION ALL
        SELECT leaps.n + 1, next.* FROM leaps CROSS JOIN LATERAL (
            SELECT {_PARTS} FROM webhook_deliveries d WHERE {_WAITING} AND d.subject > leaps.subject
            ORDER BY subject, place, xid, event_id LIMIT 1
        ) next WHERE leaps.n < {_SUBJECTS}
    ), way AS MATERIALIZED (
        SELECT CASE
            WHEN (SELECT count(*) FROM nearest) < {_NEAREST} THEN 'near'
            WHEN (SELECT count(*) FROM near) >= :most + {_MORE} THEN 'near'
            WHEN (SELECT count(*) FROM leaps) < {_SUBJECTS} THEN 'leaps'
            ELSE 'walk'
        END AS chosen
    ), heads AS MATERIALIZED (
        SELECT {_PARTS} FROM near WHERE (SELECT chosen FROM way) = 'near'
        UNION ALL SELECT {_PARTS} FROM leaps WHERE (SELECT chosen FROM way) = 'leaps'
        UNION ALL SELECT * FROM (
            SELECT DISTINCT ON (subject) {_PARTS} FROM webhook_deliveries
            WHERE {_WAITING} ORDER BY subject, place, xid, event_id
        ) walk WHERE (SELECT chosen FROM way) = 'walk'
    )
"""  # noqa: S608  # likewise
# A few more than asked for are looked at, as another process may hold the first.
_CLAIM = text(
    f"""
    WITH RECURSIVE {_HEADS}, first AS MATERIALIZED (
        SELECT d.id FROM heads d WHERE {_FREE} ORDER BY d.due_at, d.place, d.xid, d.event_id LIMIT :most + {_MORE}
    ), due AS MATERIALIZED (
        SELECT d.id FROM webhook_deliveries d
        WHERE d.tenant_id = :tenant AND d.id IN (SELECT first.id FROM first) AND {_FREE} AND EXISTS (
            SELECT FROM webhook_endpoints e WHERE e.tenant_id = :tenant AND e.id = :endpoint AND e.state = 'ACTIVE'
            AND (e.not_before IS NULL OR e.not_before <= :now)
        )
        ORDER BY d.due_at, d.place, d.xid, d.event_id LIMIT :most FOR UPDATE SKIP LOCKED
    )
    UPDATE webhook_deliveries d SET lease_until = :until, fence = d.fence + 1, claims = d.claims + 1 FROM due
    WHERE d.tenant_id = :tenant AND d.id = due.id
    RETURNING d.id, d.event_id, d.type, d.type_version, d.happened_at, d.subject, d.fields, d.place, d.xid, d.tries,
        d.claims - 1 AS lost, d.fence,
        (SELECT e.member_id FROM webhook_endpoints e WHERE e.tenant_id = :tenant AND e.id = :endpoint) AS service
    """  # noqa: S608  # likewise
).bindparams(
    *(_TENANT, _NOW, bindparam("endpoint", type_=Uuid), bindparam("until", type_=TIMESTAMP(timezone=True))),
    bindparam("most", type_=Integer),
)
_SETTLE = text(
    """
    WITH told AS (
        SELECT * FROM jsonb_to_recordset(CAST(:outcomes AS jsonb)) AS o (id uuid, fence int, state text, reason text,
            due_at timestamptz, was_sent boolean, counts boolean, at timestamptz, duration_ms int, status int, why text,
            body_hash text, fields text[])
    ), moved AS (
        UPDATE webhook_deliveries d SET state = told.state, reason = told.reason, lease_until = NULL,
            due_at = coalesce(told.due_at, d.due_at), attempt = d.attempt + told.was_sent::int,
            tries = d.tries + told.counts::int, claims = 0,
            ended_at = CASE WHEN told.state <> 'PENDING' THEN :now END
        FROM told WHERE d.tenant_id = :tenant AND d.id = told.id AND d.fence = told.fence AND d.state = 'PENDING'
            AND d.lease_until IS NOT NULL
        RETURNING d.id, d.attempt, d.endpoint_id
    )
    INSERT INTO webhook_attempts (tenant_id, delivery_id, number, endpoint_id, at, duration_ms, status, reason,
        body_hash, fields)
    SELECT :tenant, moved.id, moved.attempt, moved.endpoint_id, told.at, told.duration_ms, told.status, told.why,
        decode(told.body_hash, 'hex'), told.fields
    FROM moved JOIN told ON told.id = moved.id WHERE told.was_sent
    """
).bindparams(_TENANT, _NOW, bindparam("outcomes", type_=Text))
_FAILING = text(
    """
    UPDATE webhook_endpoints SET failing_since = :now
    WHERE tenant_id = :tenant AND id = ANY(:endpoints) AND failing_since IS NULL
    """
).bindparams(_TENANT, _NOW, bindparam("endpoints", type_=ARRAY(Uuid)))
_WELL = text(
    """
    UPDATE webhook_endpoints SET failing_since = NULL
    WHERE tenant_id = :tenant AND id = ANY(:endpoints) AND failing_since IS NOT NULL
    """
).bindparams(_TENANT, bindparam("endpoints", type_=ARRAY(Uuid)))
# Without a success for that long, and on most of its days a failure: a quiet endpoint may fail once.
_HOPELESS = text(
    """
    SELECT e.id FROM webhook_endpoints e WHERE e.tenant_id = :tenant AND e.id = ANY(:endpoints) AND e.state = 'ACTIVE'
    AND e.failing_since <= :since AND :days <= (
        SELECT count(DISTINCT floor(extract(epoch FROM :now - a.at) / 86400)) FROM webhook_attempts a
        WHERE a.tenant_id = :tenant AND a.endpoint_id = e.id AND a.at > :since AND a.at <= :now
    )
    """
).bindparams(
    *(_TENANT, _NOW, bindparam("endpoints", type_=ARRAY(Uuid)), bindparam("since", type_=TIMESTAMP(timezone=True))),
    bindparam("days", type_=Integer),
)
_REST = text(
    """
    UPDATE webhook_endpoints SET not_before = greatest(not_before, :until) WHERE tenant_id = :tenant AND id = :endpoint
    """
).bindparams(_TENANT, bindparam("endpoint", type_=Uuid), bindparam("until", type_=TIMESTAMP(timezone=True)))


@dataclass(frozen=True, slots=True)
class Claimed:
    """A delivery in a sender's hands; `tries` were made before; `service` is whose roles decide.

    `lost`: so many claimed it before, one after the other, of whom nothing was heard.
    """

    id: UUID
    event_id: UUID
    type: str
    type_version: int
    happened_at: datetime
    subject: UUID
    fields: Sequence[str]
    place: int
    xid: int
    tries: int
    lost: int
    fence: int
    service: UUID


@dataclass(frozen=True, slots=True)
class Attempt:
    """What is kept of one request. `fields` are names with levels; `status` or `why` is None."""

    at: datetime
    duration_ms: int
    status: int | None
    why: str | None
    body_hash: bytes
    fields: Sequence[str]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a claimed delivery; PENDING again needs a `due_at`. Without `attempt` nothing was sent.

    `not_before`: until then the endpoint is sent nothing at all. `is_given_up`: a try counts without an attempt.
    """

    endpoint: UUID
    delivery: Claimed
    state: DeliveryState
    reason: str | None = None
    due_at: datetime | None = None
    attempt: Attempt | None = None
    not_before: datetime | None = None
    is_given_up: bool = False

    @property
    def is_failure(self) -> bool:
        return self.attempt is not None and self.state is not DeliveryState.DELIVERED


class WebhookLedger:
    """`app` is the serving role, `platform` sees which endpoints of all tenants have something due."""

    def __init__(self, app: Database, platform: Database, lease: timedelta = LEASE) -> None:
        self._app = app
        self._platform = platform
        self._lease = lease

    async def due(self, now: datetime) -> list[tuple[TenantId, UUID]]:
        """Endpoints with something due. What waits behind another of its subject counts as well."""
        async with self._platform.statements() as connection:
            rows = (await connection.execute(_DUE, {"now": now})).all()
        return [(TenantId(row.tenant_id), row.id) for row in rows]

    async def claim(self, tenant: TenantId, endpoint: UUID, now: datetime, most: int) -> list[Claimed]:
        """Up to `most` deliveries of different subjects, oldest first."""
        asked = {"tenant": tenant, "endpoint": endpoint, "now": now, "until": now + self._lease, "most": most}
        async with self._tenant(tenant) as session:
            rows = (await session.execute(_CLAIM, asked)).all()
        return sorted((Claimed(**row._mapping) for row in rows), key=lambda each: (each.place, each.xid, each.event_id))

    async def settle(
        self, tenant: TenantId, outcomes: Collection[Outcome], now: datetime, patience: timedelta
    ) -> list[UUID]:
        """Write what became of them; which endpoints have by now failed for longer than `patience`."""
        failed = sorted({each.endpoint for each in outcomes if each.is_failure})
        well = sorted({each.endpoint for each in outcomes if each.state is DeliveryState.DELIVERED})
        said = orjson.dumps([_row(each) for each in outcomes], default=str).decode()
        async with self._tenant(tenant) as session:
            await session.execute(_SETTLE, {"tenant": tenant, "now": now, "outcomes": said})
            if failed:
                await session.execute(_FAILING, {"tenant": tenant, "now": now, "endpoints": failed})
            for endpoint, until in _rests(outcomes).items():
                await session.execute(_REST, {"tenant": tenant, "endpoint": endpoint, "until": until})
            if well:
                await session.execute(_WELL, {"tenant": tenant, "endpoints": well})
            if not failed:
                return []
            days = max(patience.days - 1, 0)
            asked = {"tenant": tenant, "endpoints": failed, "since": now - patience, "now": now, "days": days}
            return list((await session.execute(_HOPELESS, asked)).scalars())

    @asynccontextmanager
    async def _tenant(self, tenant: TenantId) -> AsyncIterator[AsyncSession]:
        async with self._app.session(write=True) as session:
            await session.execute(SCOPE, {"tenant": tenant})
            yield session


def _rests(outcomes: Collection[Outcome]) -> dict[UUID, datetime]:
    found: dict[UUID, datetime] = {}
    for each in outcomes:
        if each.not_before is not None:
            found[each.endpoint] = max(each.not_before, found.get(each.endpoint, each.not_before))
    return dict(sorted(found.items()))


def _row(outcome: Outcome) -> dict[str, Any]:
    attempt = outcome.attempt
    sent: dict[str, Any] = {"was_sent": attempt is not None, "counts": attempt is not None or outcome.is_given_up}
    if attempt is not None:
        sent |= {
            "at": attempt.at,
            "duration_ms": attempt.duration_ms,
            "status": attempt.status,
            "why": attempt.why,
            "body_hash": attempt.body_hash.hex(),
            "fields": list(attempt.fields),
        }
    return {
        "id": str(outcome.delivery.id),
        "fence": outcome.delivery.fence,
        "state": outcome.state.value,
        "reason": outcome.reason,
        "due_at": outcome.due_at,
        **sent,
    }
