"""Endpoints as they are read: with the name and the roles of their service, and their address opened."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, func, select

from domain.errors import NotFound, Refused, UserError
from domain.paging import Page, Window, cut, windowed
from tenants import members
from tenants.access import Role
from tenants.rights import held
from tenants.unit import Unit
from tenants.viewers import MemberId
from tenants.webhooks import Address, DisabledWhy, EndpointState, Payload, WebhookEndpoint

_NOT_THERE = UserError("NOT_FOUND", ("id",), "There is no endpoint of that id.")


@dataclass(frozen=True, slots=True)
class EndpointView:
    """`url` is opened; the secrets are not."""

    id: UUID
    member_id: UUID
    name: str | None
    url: str
    payload: Payload
    types: Sequence[str]
    state: EndpointState
    disabled_why: DisabledWhy | None
    failing_since: datetime | None
    created_at: datetime
    updated_at: datetime
    version: int
    roles: frozenset[Role]
    own_roles: frozenset[UUID]


async def page(unit: Unit, window: Window) -> Page[EndpointView]:
    """Newest first."""
    columns = (WebhookEndpoint.created_at, WebhookEndpoint.id)
    rows, has_next, has_previous = cut(
        await unit.scalars(windowed(_selected(unit), columns, window, descending=True)), window
    )
    return Page(await _views(unit, rows), has_next, has_previous)


async def count(unit: Unit) -> int:
    mine = select(func.count()).where(WebhookEndpoint.tenant_id == unit.tenant.id)
    return int((await unit.scalars(mine))[0])


async def get_many(unit: Unit, endpoints: Collection[UUID]) -> list[EndpointView | None]:
    """In the order asked for; None where there is none."""
    rows = await unit.scalars(_selected(unit).where(WebhookEndpoint.id.in_(set(endpoints))))
    found = {view.id: view for view in await _views(unit, rows)}
    return [found.get(endpoint) for endpoint in endpoints]


async def get(unit: Unit, endpoint: UUID) -> EndpointView:
    """Raises `NotFound`."""
    (found,) = await get_many(unit, [endpoint])
    if found is None:
        raise NotFound
    return found


async def lock(unit: Unit, endpoint: UUID) -> tuple[WebhookEndpoint, EndpointView]:
    """Raises `Refused`: NOT_FOUND."""
    mine = _selected(unit).where(WebhookEndpoint.id == endpoint).with_for_update(key_share=True)
    rows = await unit.scalars(mine)
    if not rows:
        raise Refused([_NOT_THERE])
    (view,) = await _views(unit, rows)
    return rows[0], view


def _selected(unit: Unit) -> Select[Any]:
    mine = select(WebhookEndpoint).where(WebhookEndpoint.tenant_id == unit.tenant.id)
    return mine.execution_options(populate_existing=True)


async def _views(unit: Unit, rows: Sequence[WebhookEndpoint] | Sequence[Row[Any]]) -> list[EndpointView]:
    if not rows:
        return []
    await unit.load_subjects([unit.tenant.id])
    services = [row.member_id for row in rows]
    having = await held(unit, services)
    named: Mapping[MemberId, Any] = await members.identities(unit, map(MemberId, services), "to name services")
    return [
        EndpointView(
            id=row.id,
            member_id=row.member_id,
            name=named[MemberId(row.member_id)].name,
            url=url_of(unit, row),
            payload=Payload(row.payload),
            types=tuple(row.types),
            state=EndpointState(row.state),
            disabled_why=None if row.disabled_why is None else DisabledWhy(row.disabled_why),
            failing_since=row.failing_since,
            created_at=row.created_at,
            updated_at=row.updated_at,
            version=row.version,
            roles=having[row.member_id].roles,
            own_roles=having[row.member_id].own_roles,
        )
        for row in rows
    ]


def url_of(unit: Unit, row: Any) -> str:
    """The tenant's secret must be loaded."""
    address: Address = unit.open_row(row, "address", "to say where events are sent")
    return address.url or ""
