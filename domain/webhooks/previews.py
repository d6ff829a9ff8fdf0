"""A dry run: the message that an endpoint, or somebody with these roles, would get; nothing is sent.

Whoever asks sees no more of it than they see of the customer anyway.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from domain import customers, deciding
from domain.customers.events import UPDATED
from domain.errors import BadInput, NotFound
from domain.webhooks import endpoints, rendering
from domain.webhooks.audience import CUSTOMER, may_hear
from domain.webhooks.rendering import Message
from tenants import events, rights
from tenants.access import Access, Role
from tenants.events import KINDS
from tenants.ids import new_id
from tenants.unit import Unit
from tenants.viewers import Viewer
from tenants.webhooks import Payload


@dataclass(frozen=True, slots=True)
class _Told:
    event_id: UUID
    type: str
    type_version: int
    happened_at: datetime
    subject: UUID
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Either `endpoint` or roles; either `event` or `customer`. `payload` is the endpoint's unless told."""

    endpoint: UUID | None = None
    roles: Collection[Role] = ()
    own_roles: Collection[UUID] = ()
    event: UUID | None = None
    customer: UUID | None = None
    payload: Payload | None = None


async def preview(unit: Unit, asked: Question) -> Message | None:
    """None where nothing would be sent. Raises `BadInput`, and `NotFound` for what the viewer can't read itself."""
    has_roles = bool([*asked.roles, *asked.own_roles])
    if (asked.endpoint is None) != has_roles or (asked.event is None) == (asked.customer is None):
        raise BadInput("Give `endpoint` or roles, and `event` or `customer`; not both, and not neither.")
    told = await _told(unit, asked)
    if not may_hear(unit.viewer, told.type, KINDS[told.type].subject):
        raise NotFound
    if KINDS[told.type].subject == CUSTOMER:
        await customers.get(unit, told.subject, ())
    viewer, payload = await _viewer(unit, asked)
    # Somebody else's message, though the roles be one's own: it is decided anew for both.
    viewer = replace(viewer)
    (message,) = await rendering.render(unit, payload, asked.endpoint or new_id(), [told], viewer=viewer)
    if message is not None and message.customer is not None:
        shown = [f"{CUSTOMER}.{field}" for field in message.fields]
        unit.disclose(CUSTOMER, [message.customer], shown, relation=message.relation)
    return message


async def _told(unit: Unit, asked: Question) -> _Told:
    if asked.customer is not None:
        return _Told(new_id(), UPDATED.name, UPDATED.version, unit.now, asked.customer, ())
    event = await events.find(unit, asked.event) if asked.event is not None else None
    if event is None or event.type not in KINDS:
        raise NotFound
    return _Told(event.id, event.type, event.version, event.at, event.subject, tuple(event.fields))


async def _viewer(unit: Unit, asked: Question) -> tuple[Viewer, Payload]:
    if asked.endpoint is not None:
        view = await endpoints.get(unit, asked.endpoint)
        found = await rights.held(unit, [view.member_id])
        return await rights.viewer_of(unit, found[view.member_id]), asked.payload or view.payload
    named = await deciding.named(unit, asked.roles, asked.own_roles)
    if len(named) < len(set(asked.roles)) + len(set(asked.own_roles)):
        raise NotFound
    access = Access.of([each.spec for each in named])
    viewer = Viewer(unit.tenant.id, None, frozenset(asked.roles), access, frozenset(asked.own_roles))
    return viewer, asked.payload or Payload.FULL
