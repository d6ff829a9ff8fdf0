"""Secrets of endpoints: shown once, to whoever had them made, and sealed from then on."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import select, update

from crypto.values import Secret
from crypto.webhooks import SigningSecret
from tenants.ids import new_id
from tenants.unit import Unit
from tenants.webhooks import ROTATED, SecretText, WebhookSecret

OVERLAP = timedelta(hours=24)
MOST_VALID = 2


@dataclass(frozen=True, slots=True)
class SecretView:
    """None of it signs anything."""

    id: UUID
    endpoint_id: UUID
    public_key: str
    created_at: datetime
    expires_at: datetime | None


async def add(unit: Unit, endpoint: UUID) -> SigningSecret:
    secret = SigningSecret.fresh()
    await unit.load_subjects([unit.tenant.id])
    row = WebhookSecret(tenant_id=unit.tenant.id, id=new_id(), endpoint_id=endpoint, created_at=unit.now)
    row.secret = Secret(SecretText(secret=secret.secret, private_key=secret.private_key))
    row.public_key = secret.public_key
    unit.add(row)
    await unit.flush()
    return secret


async def rotate(unit: Unit, endpoint: UUID) -> SigningSecret:
    """The newest of before signs on for `OVERLAP`; older ones end at once, so that two are valid at most."""
    before = await valid(unit, endpoint)
    for place, row in enumerate(before):
        overlap = unit.now + OVERLAP if place < MOST_VALID - 1 else unit.now
        ends = min(filter(None, (row.expires_at, overlap)))
        mine = (WebhookSecret.tenant_id == unit.tenant.id, WebhookSecret.id == row.id)
        await unit.run(
            update(WebhookSecret).where(*mine).values(expires_at=ends).execution_options(synchronize_session=False)
        )
    secret = await add(unit, endpoint)
    unit.publish(ROTATED, [endpoint])
    return secret


async def valid(unit: Unit, endpoint: UUID) -> Sequence[WebhookSecret]:
    """Newest first."""
    mine = (WebhookSecret.tenant_id == unit.tenant.id, WebhookSecret.endpoint_id == endpoint)
    lasts = WebhookSecret.expires_at.is_(None) | (WebhookSecret.expires_at > unit.now)
    order = (WebhookSecret.created_at.desc(), WebhookSecret.id.desc())
    found: Sequence[WebhookSecret] = await unit.scalars(
        select(WebhookSecret).where(*mine, lasts).order_by(*order).limit(MOST_VALID)
    )
    return found


async def views(unit: Unit, endpoints: Collection[UUID]) -> dict[UUID, list[SecretView]]:
    """The valid ones of each, newest first."""
    columns: tuple[Any, ...] = (WebhookSecret.id, WebhookSecret.endpoint_id, WebhookSecret.public_key)
    mine = (WebhookSecret.tenant_id == unit.tenant.id, WebhookSecret.endpoint_id.in_(set(endpoints)))
    lasts = WebhookSecret.expires_at.is_(None) | (WebhookSecret.expires_at > unit.now)
    statement = select(*columns, WebhookSecret.created_at, WebhookSecret.expires_at).where(*mine, lasts)
    found: dict[UUID, list[SecretView]] = {endpoint: [] for endpoint in endpoints}
    for row in await unit.rows(statement.order_by(WebhookSecret.created_at.desc(), WebhookSecret.id.desc())):
        found[row.endpoint_id].append(SecretView(**row._mapping))
    return found


async def signing(unit: Unit, endpoint: UUID) -> list[SigningSecret]:
    """What a message is signed by now, newest first. The tenant's secret must be loaded."""
    opened: list[SecretText] = [
        unit.open_row(row, "secret", "to sign a message") for row in await valid(unit, endpoint)
    ]
    return [SigningSecret.load(each.secret or "", each.private_key or "") for each in opened]
