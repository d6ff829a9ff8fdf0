"""Endpoints: made, changed, enabled, disabled and deleted, within the rights of who does it.

Whoever says where an endpoint's messages go, or holds its secret, gets what its roles show: those must be their own.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, delete, func, select, update

from crypto.values import Secret
from crypto.webhooks import SigningSecret
from domain import api_keys, granting, normalise, required
from domain.errors import NotFound, Refused, UserError
from domain.member_acts import DISABLED as MEMBER_DISABLED
from domain.paging import Page, Window, cut, windowed
from domain.webhooks import secrets
from tenants import members, webhook_relay
from tenants.access import Permission, Role
from tenants.events import KINDS
from tenants.ids import new_id
from tenants.members import Member, MemberRole
from tenants.rights import held
from tenants.roles import MemberOwnRole
from tenants.unit import Unit
from tenants.viewers import MemberId
from tenants.webhooks import (
    CREATED,
    DELETED,
    DISABLED,
    ENABLED,
    UPDATED,
    Address,
    DisabledWhy,
    EndpointState,
    Payload,
    WebhookEndpoint,
)

MOST_ENDPOINTS = 50
MOST_TYPES = 50
_MANAGE = Permission.WEBHOOKS_MANAGE
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What an endpoint shall be; None leaves a part as it is. `url` was checked by whoever may look names up."""

    name: str | None = None
    url: str | None = None
    payload: Payload | None = None
    types: Collection[str] | None = None
    roles: Collection[Role] | None = None
    own_roles: Collection[UUID] | None = None


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


async def create(unit: Unit, wanted: Wanted) -> tuple[EndpointView, SigningSecret]:
    """With a service of its own, which has these roles, and its first secret.

    Raises `Refused`: REQUIRED, INVALID, NOT_FOUND, TOO_MANY, BEYOND_YOUR_RIGHTS.
    """
    giver = await granting.lock(unit, _MANAGE)
    built_in, own = wanted.roles or (), wanted.own_roles or ()
    errors = _type_errors(wanted.types or ())
    name = required.text(errors, ("name",), wanted.name, normalise.name)
    if not [*built_in, *own]:
        errors.append(granting.NO_ROLE)
    if errors:
        raise Refused(errors)
    await api_keys.refuse_beyond(unit, giver, built_in, own, ("roles",))
    if await count(unit) >= MOST_ENDPOINTS:
        raise Refused([UserError("TOO_MANY", (), f"A tenant has at most {MOST_ENDPOINTS} endpoints.")])
    await webhook_relay.begin(unit)
    await unit.load_subjects([unit.tenant.id])
    row = WebhookEndpoint(
        tenant_id=unit.tenant.id,
        id=new_id(),
        member_id=await api_keys.new_service(unit, name, built_in, own),
        address=Secret(Address(url=wanted.url)),
        payload=(wanted.payload or Payload.THIN).value,
        types=sorted(set(wanted.types or ())),
        state=EndpointState.ACTIVE.value,
        begun=webhook_relay.NOW,
        created_at=unit.now,
        updated_at=unit.now,
        version=1,
    )
    unit.add(row)
    await unit.flush()
    secret = await secrets.add(unit, row.id)
    unit.publish(CREATED, [row.id])
    return await get(unit, row.id), secret


async def change(unit: Unit, endpoint: UUID, version: int, wanted: Wanted) -> EndpointView:
    """Raises `Refused`: NOT_FOUND, STALE_VERSION, INVALID, BEYOND_YOUR_RIGHTS for roles it has or shall have."""
    giver = await granting.lock(unit, _MANAGE)
    row, now = await _lock(unit, endpoint)
    if row.version != version:
        sentence = "The endpoint was changed since you read it; read it again and repeat the change."
        raise Refused([UserError("STALE_VERSION", ("version",), sentence)])
    roles_ = frozenset(now.roles if wanted.roles is None else wanted.roles)
    own = frozenset(now.own_roles if wanted.own_roles is None else wanted.own_roles)
    errors = _type_errors(wanted.types or ())
    name = None if wanted.name is None else required.text(errors, ("name",), wanted.name, normalise.name)
    if not roles_ | own:
        errors.append(granting.NO_ROLE)
    if errors:
        raise Refused(errors)
    await api_keys.refuse_beyond(unit, giver, roles_ | now.roles, own | now.own_roles, ("roles",))
    changed = _set(row, now, wanted)
    changed += await _set_roles(unit, now, roles_, own)
    if name is not None and name != now.name:
        await _rename(unit, now.member_id, name)
        changed.append("name")
    row.updated_at, row.version = unit.now, row.version + 1
    await unit.flush()
    unit.publish(UPDATED, [endpoint], changed)
    return await get(unit, endpoint)


async def enable(unit: Unit, endpoint: UUID) -> EndpointView:
    """What waited goes on; events that came meanwhile are not sent, but may be replayed. Asked again, changes nothing.

    Raises `Refused`: NOT_FOUND, SECRET_NEEDED, BEYOND_YOUR_RIGHTS.
    """
    giver = await granting.lock(unit, _MANAGE)
    row, now = await _lock(unit, endpoint)
    await api_keys.refuse_beyond(unit, giver, now.roles, now.own_roles, ("id",))
    if row.state == EndpointState.DISABLED.value:
        if not await secrets.valid(unit, endpoint):
            raise Refused([UserError("SECRET_NEEDED", ("id",), "It has no secret; rotateWebhookSecret makes one.")])
        await webhook_relay.begin(unit)
        row.state, row.disabled_why, row.failing_since = EndpointState.ACTIVE.value, None, None
        row.not_before, row.begun = None, webhook_relay.NOW
        await unit.flush()
        revived = (Member.tenant_id == unit.tenant.id, Member.id == row.member_id, Member.status == "DISABLED")
        await unit.run(update(Member).where(*revived).values(status="ACTIVE"))
        unit.publish(ENABLED, [endpoint])
    return await get(unit, endpoint)


async def disable(unit: Unit, endpoint: UUID) -> EndpointView:
    """What waits keeps waiting. Asked again, changes nothing. Raises `Refused`: NOT_FOUND."""
    await granting.lock(unit, _MANAGE)
    await _lock(unit, endpoint)
    await stop(unit, endpoint, DisabledWhy.BY_MEMBER)
    return await get(unit, endpoint)


async def stop(unit: Unit, endpoint: UUID, why: DisabledWhy) -> bool:
    """Disable it whoever asks; False where it was."""
    active = (WebhookEndpoint.tenant_id == unit.tenant.id, WebhookEndpoint.id == endpoint)
    statement = (
        update(WebhookEndpoint)
        .where(*active, WebhookEndpoint.state == EndpointState.ACTIVE.value)
        .values(state=EndpointState.DISABLED.value, disabled_why=why.value, updated_at=unit.now)
        .returning(WebhookEndpoint.id)
    )
    if not await unit.rows(statement.execution_options(synchronize_session=False)):
        return False
    unit.publish(DISABLED, [endpoint], details={"why": why.value})
    return True


async def rouse(unit: Unit, endpoint: UUID) -> None:
    """Send to it at once, although its receiver asked to be left alone: somebody here wants to see whether it works."""
    mine = (WebhookEndpoint.tenant_id == unit.tenant.id, WebhookEndpoint.id == endpoint)
    resting = update(WebhookEndpoint).where(*mine, WebhookEndpoint.not_before.is_not(None)).values(not_before=None)
    await unit.run(resting.execution_options(synchronize_session=False))


async def remove(unit: Unit, endpoint: UUID) -> None:
    """With its secrets and its log; its service is disabled. Raises `Refused`: NOT_FOUND."""
    await granting.lock(unit, _MANAGE)
    row, now = await _lock(unit, endpoint)
    mine = (WebhookEndpoint.tenant_id == unit.tenant.id, WebhookEndpoint.id == endpoint)
    await unit.run(delete(WebhookEndpoint).where(*mine).execution_options(synchronize_session=False))
    service = (Member.tenant_id == unit.tenant.id, Member.id == row.member_id)
    await unit.run(update(Member).where(*service).values(status="DISABLED"))
    unit.publish(MEMBER_DISABLED, [now.member_id])
    unit.publish(DELETED, [endpoint])


async def rotate(unit: Unit, endpoint: UUID) -> tuple[EndpointView, SigningSecret]:
    """A new secret; the one before signs beside it for a day. Raises `Refused`: NOT_FOUND, BEYOND_YOUR_RIGHTS."""
    giver = await granting.lock(unit, _MANAGE)
    _, now = await _lock(unit, endpoint)
    await api_keys.refuse_beyond(unit, giver, now.roles, now.own_roles, ("id",))
    secret = await secrets.rotate(unit, endpoint)
    return now, secret


async def _lock(unit: Unit, endpoint: UUID) -> tuple[WebhookEndpoint, EndpointView]:
    mine = _selected(unit).where(WebhookEndpoint.id == endpoint).with_for_update(key_share=True)
    rows = await unit.scalars(mine)
    if not rows:
        raise Refused([_NOT_THERE])
    (view,) = await _views(unit, rows)
    return rows[0], view


def _type_errors(types: Collection[str]) -> list[UserError]:
    groups = {f"{name.partition('.')[0]}.*" for name in KINDS}
    if any(name not in KINDS and name not in groups for name in types):
        return [UserError("INVALID", ("types",), "types names what `eventTypes` does not list, as `a.b` or `a.*`.")]
    if len(types) > MOST_TYPES:
        return [UserError("TOO_MANY", ("types",), f"types has at most {MOST_TYPES} names.")]
    return []


def _set(row: WebhookEndpoint, now: EndpointView, wanted: Wanted) -> list[str]:
    changed = []
    if wanted.url is not None and wanted.url != now.url:
        row.address = Secret(Address(url=wanted.url))
        changed.append("url")
    if wanted.payload is not None and wanted.payload is not now.payload:
        row.payload = wanted.payload.value
        changed.append("payload")
    if wanted.types is not None and set(wanted.types) != set(now.types):
        row.types = sorted(set(wanted.types))
        changed.append("types")
    return changed


async def _set_roles(unit: Unit, now: EndpointView, built_in: frozenset[Role], own: frozenset[UUID]) -> list[str]:
    mine = {"tenant_id": unit.tenant.id, "member_id": now.member_id}
    changed = []
    if built_in != now.roles:
        gone = (MemberRole.tenant_id == unit.tenant.id, MemberRole.member_id == now.member_id)
        await unit.run(delete(MemberRole).where(*gone))
        unit.add(*(MemberRole(**mine, role=role.value) for role in built_in))
        changed.append("roles")
    if own != now.own_roles:
        lost = (MemberOwnRole.tenant_id == unit.tenant.id, MemberOwnRole.member_id == now.member_id)
        await unit.run(delete(MemberOwnRole).where(*lost))
        unit.add(*(MemberOwnRole(**mine, role_id=role) for role in own))
        changed.append("ownRoles")
    return changed


async def _rename(unit: Unit, service: UUID, name: str) -> None:
    await unit.load_subjects([service])
    mine = select(Member).where(Member.tenant_id == unit.tenant.id, Member.id == service)
    (row,) = await unit.scalars(mine)
    identity = unit.open_row(row, "identity", "to name a service anew")
    row.identity = Secret(replace(identity, name=name))


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
