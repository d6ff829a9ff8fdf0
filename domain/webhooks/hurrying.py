"""Has what waits for its next try sent at once: in its place, and with the tries it has left."""

from uuid import UUID

from sqlalchemy import ColumnElement, update

from tenants.unit import Unit
from tenants.webhooks import DeliveryState, WebhookDelivery


async def hurry(unit: Unit, endpoint: UUID, *which: ColumnElement[bool]) -> None:
    mine = (WebhookDelivery.tenant_id == unit.tenant.id, WebhookDelivery.endpoint_id == endpoint)
    waits = (WebhookDelivery.state == DeliveryState.PENDING.value, WebhookDelivery.due_at > unit.now)
    later = update(WebhookDelivery).where(*mine, *waits, *which).values(due_at=unit.now)
    await unit.run(later.execution_options(synchronize_session=False))
