"""Endpoints: made, changed, enabled, disabled and deleted, within the rights of who does it.

Whoever says where an endpoint's messages go, or holds its secret, gets what its roles show: those must be their own.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from uuid import UUID

from sqlalchemy import delete, select, update

from crypto.values import Secret
from crypto.webhooks import SigningSecret
from domain import api_keys, granting, member_acts, normalise, required
from domain.errors import Refused, UserError
from domain.webhooks import hurrying, secrets
from domain.webhooks.endpoint_views import EndpointView as EndpointView
from domain.webhooks.endpoint_views import count as count
from domain.webhooks.endpoint_views import get as get
from domain.webhooks.endpoint_views import get_many as get_many
from domain.webhooks.endpoint_views import lock
from domain.webhooks.endpoint_views import page as page
from domain.webhooks.endpoint_views import url_of as url_of
from tenants import rights
from tenants.access import Permission, Relation, Role
from tenants.events import KINDS
from tenants.ids import new_id
from tenants.members import Member, MemberRole
from tenants.roles import MemberOwnRole
from tenants.unit import Unit
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
    relaying,
    spans,
)

MOST_ENDPOINTS = 50
MOST_TYPES = 50
_MANAGE = Permission.WEBHOOKS_MANAGE


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What an endpoint shall be; None leaves a part as it is. `url` was checked by whoever may look names up."""

    name: str | None = None
    url: str | None = None
    payload: Payload | None = None
    types: Collection[str] | None = None
    roles: Collection[Role] | None = None
    own_roles: Collection[UUID] | None = None


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
    await relaying.begin(unit)
    await unit.load_subjects([unit.tenant.id])
    row = WebhookEndpoint(
        tenant_id=unit.tenant.id,
        id=new_id(),
        member_id=await api_keys.new_service(unit, name, built_in, own),
        address=Secret(Address(url=wanted.url)),
        payload=(wanted.payload or Payload.THIN).value,
        types=sorted(set(wanted.types or ())),
        state=EndpointState.ACTIVE.value,
        begun=spans.NOW,
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
    row, now = await lock(unit, endpoint)
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
    """What waited goes on at once; events that came meanwhile are not sent, but may be replayed.

    Asked again, changes nothing. Its service is let in again by those who may enable members. Raises `Refused`:
    NOT_FOUND, SECRET_NEEDED, SERVICE_DISABLED, BEYOND_YOUR_RIGHTS.
    """
    giver = await granting.lock(unit, _MANAGE)
    row, now = await lock(unit, endpoint)
    await api_keys.refuse_beyond(unit, giver, now.roles, now.own_roles, ("id",))
    if row.state == EndpointState.DISABLED.value:
        if not await secrets.valid(unit, endpoint):
            raise Refused([UserError("SECRET_NEEDED", ("id",), "It has no secret; rotateWebhookSecret makes one.")])
        await _let_in(unit, giver, now.member_id)
        await relaying.begin(unit)
        was_here = now.disabled_why is not DisabledWhy.RESTORED
        row.state, row.disabled_why, row.failing_since = EndpointState.ACTIVE.value, None, None
        row.not_before, row.begun = None, spans.begun_again(row.begun) if was_here else spans.NOW
        await unit.flush()
        await hurrying.hurry(unit, endpoint)
        unit.publish(ENABLED, [endpoint])
    return await get(unit, endpoint)


async def disable(unit: Unit, endpoint: UUID) -> EndpointView:
    """What waits keeps waiting. Asked again, changes nothing. Raises `Refused`: NOT_FOUND."""
    await granting.lock(unit, _MANAGE)
    await lock(unit, endpoint)
    await stop(unit, endpoint, DisabledWhy.BY_MEMBER)
    return await get(unit, endpoint)


async def stop(unit: Unit, endpoint: UUID, why: DisabledWhy) -> bool:
    """Disable it whoever asks; False where it was. Events that committed before this wait, also unrelayed ones."""
    ended = spans.ended(WebhookEndpoint.begun)
    active = (WebhookEndpoint.tenant_id == unit.tenant.id, WebhookEndpoint.id == endpoint)
    statement = (
        update(WebhookEndpoint)
        .where(*active, WebhookEndpoint.state == EndpointState.ACTIVE.value)
        .values(state=EndpointState.DISABLED.value, disabled_why=why.value, updated_at=unit.now, begun=ended)
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
    """With its secrets and its log, whose rows the night takes; its service is disabled.

    Raises `Refused`: NOT_FOUND.
    """
    await granting.lock(unit, _MANAGE)
    row, now = await lock(unit, endpoint)
    mine = (WebhookEndpoint.tenant_id == unit.tenant.id, WebhookEndpoint.id == endpoint)
    await unit.run(delete(WebhookEndpoint).where(*mine).execution_options(synchronize_session=False))
    service = (Member.tenant_id == unit.tenant.id, Member.id == row.member_id)
    await unit.run(update(Member).where(*service).values(status="DISABLED"))
    unit.publish(member_acts.DISABLED, [now.member_id])
    unit.publish(DELETED, [endpoint])


async def rotate(unit: Unit, endpoint: UUID) -> tuple[EndpointView, SigningSecret]:
    """A new secret; the one before signs beside it for a day. Raises `Refused`: NOT_FOUND, BEYOND_YOUR_RIGHTS."""
    giver = await granting.lock(unit, _MANAGE)
    _, now = await lock(unit, endpoint)
    await api_keys.refuse_beyond(unit, giver, now.roles, now.own_roles, ("id",))
    secret = await secrets.rotate(unit, endpoint)
    return now, secret


async def _let_in(unit: Unit, giver: granting.Giver, service: UUID) -> None:
    held = (await rights.held(unit, [service]))[service]
    if held.status != "DISABLED":
        return
    if Permission.MEMBERS_MANAGE not in giver.access.on[Relation.NONE].permissions:
        sentence = "Its member was disabled; let somebody enable that first who has the permission MEMBERS_MANAGE."
        raise Refused([UserError("SERVICE_DISABLED", ("id",), sentence)])
    await member_acts.enable(unit, service)


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
