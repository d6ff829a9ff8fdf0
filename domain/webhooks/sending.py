"""What a sender needs of an endpoint for one batch: where to, by which secrets, and the messages themselves."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

import structlog
from sqlalchemy import select

from crypto.errors import CannotOpen
from crypto.webhooks import SigningSecret
from domain.webhooks import endpoints, rendering, secrets
from domain.webhooks.payloads import Told
from domain.webhooks.rendering import Message
from tenants.audit.entries import Entry
from tenants.errors import TenantFrozen
from tenants.unit import Unit
from tenants.units import Units
from tenants.viewers import MemberId, TenantId
from tenants.webhooks import EndpointState, Payload, WebhookEndpoint
from tenants.webhooks.ledger import Claimed

# What opening and reading a document may raise for good; what may work in a moment is not among them.
_UNREADABLE = (CannotOpen, LookupError, TypeError, ValueError)
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Batch:
    """`messages`: in order, None for what is not for the endpoint. `entries` go on record before they are sent."""

    url: str = field(repr=False)
    secrets: Sequence[SigningSecret] = field(repr=False)
    messages: Sequence[Message | None] = field(repr=False)
    entries: Sequence[Entry] = field(repr=False)


async def prepare(units: Units, tenant: TenantId, endpoint: UUID, claimed: Sequence[Claimed]) -> Batch | None:
    """As the endpoint is, and what its roles show, at this moment. None where it is gone or disabled.

    Raises what `Units.enter` raises: `Unauthenticated` where its service is disabled; `TenantFrozen` as for a writer.
    """
    async with units.enter(tenant, MemberId(claimed[0].service), write=False) as unit:
        if unit.tenant.frozen:
            raise TenantFrozen
        mine = (WebhookEndpoint.tenant_id == tenant, WebhookEndpoint.id == endpoint)
        rows = await unit.scalars(
            select(WebhookEndpoint).where(*mine, WebhookEndpoint.state == EndpointState.ACTIVE.value)
        )
        if not rows:
            return None
        await unit.load_subjects([tenant])
        url, signing = endpoints.url_of(unit, rows[0]), await secrets.signing(unit, endpoint)
        messages = await _rendered(unit, Payload(rows[0].payload), endpoint, claimed)
        return Batch(url, signing, messages, rendering.disclosures(unit, messages))


async def _rendered(unit: Unit, payload: Payload, endpoint: UUID, told: Sequence[Told]) -> list[Message | None]:
    """Together; where one can't be read, each apart, so that it holds up nobody else. That one is told of by its id."""
    try:
        return await rendering.render(unit, payload, endpoint, told)
    except _UNREADABLE as error:
        if payload is Payload.THIN:
            raise
        if len(told) == 1:
            _log.error("customer not readable, sent thin", endpoint=str(endpoint), error=type(error).__name__)
            return await rendering.render(unit, Payload.THIN, endpoint, told)
    return [message for each in told for message in await _rendered(unit, payload, endpoint, [each])]
