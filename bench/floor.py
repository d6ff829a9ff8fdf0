"""The floor: the page of case (a) by asyncpg, AES-GCM and orjson alone; no GraphQL, no ORM, no rule.

It keeps what nobody may leave away: the transaction scoped by row-level security, sealed columns, and the record of
what was shown, committed before it leaves.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import orjson
from starlette.types import Receive, Scope, Send

from api.app import Api
from crypto.keyring import Keyring, SealedCell
from crypto.values import Sealed
from domain.customers import Customer
from settings import Settings
from tenants.audit.entries import DISCLOSED, Entry
from tenants.database import Database
from tenants.owned import places
from tenants.recorder import Recorder
from tenants.viewers import TenantId

_LABEL = places(Customer)["profile"].label
_FIELDS = [f"Customer.{name}:PLAIN" for name in ("givenName", "familyName", "emails", "phones", "birthDate", "city")]
_ENTER = "SELECT * FROM coffer_enter($1, NULL, false)"
_PAGE = """
SELECT c.id, c.stage, c.created_at, c.profile, s.secret
FROM customers c JOIN subjects s ON s.tenant_id = c.tenant_id AND s.id = c.id
WHERE c.tenant_id = $1 AND c.archived_at IS NULL ORDER BY c.created_at DESC, c.id DESC LIMIT 50
"""


class Floor:
    """An ASGI application; `tenants` maps a static bearer token to its tenant."""

    def __init__(self, settings: Settings, tenants: Mapping[str, str]) -> None:
        self._settings = settings
        self._tenants = {f"Bearer {token}".encode(): UUID(tenant) for token, tenant in tenants.items()}
        self._rings: dict[UUID, Keyring] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        tenant = self._tenants.get(dict(scope["headers"]).get(b"authorization", b""))
        body = b"" if tenant is None else await self._page(tenant)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200 if tenant else 401, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _page(self, tenant: UUID) -> bytes:
        async with self._pool.acquire() as db, db.transaction(isolation="repeatable_read", readonly=True):
            await db.fetchrow(_ENTER, tenant)
            rows = await db.fetch(_PAGE, tenant)
        cells = [SealedCell(Sealed(row[3]), row[4], row[0], row[0]) for row in rows]
        opened = self._rings[tenant].open_many(_LABEL, cells)
        nodes = [_node(row, orjson.loads(raw)) for row, raw in zip(rows, opened, strict=True)]
        await self._recorder.record([_entry(tenant, [row[0] for row in rows])])
        return orjson.dumps({"data": {"customers": {"nodes": nodes}}})

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        api = Api(self._settings)
        for tenant in self._tenants.values():
            async with api.units.enter(TenantId(tenant), None, write=False) as unit:
                self._rings[tenant] = unit.keyring
        await api.close()
        recording = Database(self._settings.recorder_database_url, pool_size=1)
        self._recorder = Recorder(recording)
        url = self._settings.database_url.replace("postgresql+asyncpg://", "postgresql://", 1)
        self._pool = await asyncpg.create_pool(url, min_size=10, max_size=10, server_settings={"jit": "off"})
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._pool.close()
        await self._recorder.close()
        await recording.close()
        await send({"type": "lifespan.shutdown.complete"})


def _entry(tenant: UUID, customers: list[UUID]) -> Entry:
    counts: dict[str, int | str] = {"records": len(customers), "plain": len(customers) * len(_FIELDS), "masked": 0}
    return Entry(
        tenant=tenant,
        at=datetime.now(UTC),
        actor=tenant,
        action=DISCLOSED,
        subject_type="Customer",
        subjects=customers,
        fields=_FIELDS,
        details=counts,
    )


def _node(row: Any, profile: dict[str, Any]) -> dict[str, Any]:
    return {
        "givenName": profile.get("given_name"),
        "familyName": profile.get("family_name"),
        "emails": profile.get("emails"),
        "phones": profile.get("phones"),
        "birthDate": profile.get("birth_date"),
        "address": {"city": profile.get("city")},
        "stage": row[1],
        "createdAt": row[2],
    }
