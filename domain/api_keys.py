"""API keys of services: made, rotated and revoked within the rights of who does it.

A service is a member without e-mail and password; it is disabled, and its queued jobs stop, with its last key.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, and_, func, or_, select, update

from crypto.values import Secret
from domain import granting, normalise, required, roles
from domain.errors import Path, Refused, UserError
from domain.member_acts import DISABLED, ENABLED
from domain.normalise import Invalid
from domain.paging import Page, Window, cut, windowed
from tenants import members
from tenants.access import SPECS, Permission, Role
from tenants.events import EventKind
from tenants.ids import new_id
from tenants.members import Member, MemberIdentity, MemberRole
from tenants.rights import Held, held
from tenants.roles import MemberOwnRole
from tenants.signing_in import api_keys
from tenants.signing_in.api_keys import ApiKey
from tenants.unit import Unit
from tenants.viewers import MemberId

MOST_LIVE = 200
LONGEST_OVERLAP = timedelta(days=30)
CREATED = EventKind(
    "api_key.created", "ApiKey", "A service was given an API key.", frozenset({"roles", "ownRoles", "expiresAt"})
)
ROTATED = EventKind("api_key.rotated", "ApiKey", "A key was given a successor, and ends after the overlap.")
REVOKED = EventKind("api_key.revoked", "ApiKey", "A key opens nothing any more.")
_MANAGE = Permission.API_KEYS_MANAGE
_COLUMNS: tuple[Any, ...] = (
    *(ApiKey.id, ApiKey.member_id, ApiKey.prefix, ApiKey.created_at, ApiKey.expires_at),
    *(ApiKey.revoked_at, ApiKey.last_used_at, ApiKey.successor_id),
)


@dataclass(frozen=True, slots=True)
class KeyView:
    """A key and the service it signs in. None of it opens anything."""

    id: UUID
    member_id: UUID
    prefix: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    successor_id: UUID | None
    name: str | None
    roles: frozenset[Role]
    own_roles: frozenset[UUID]


async def page(unit: Unit, window: Window) -> Page[KeyView]:
    """Newest first, those that have ended too."""
    statement = windowed(_selected(unit), (ApiKey.created_at, ApiKey.id), window, descending=True)
    rows, has_next, has_previous = cut(await unit.rows(statement), window)
    return Page(await _views(unit, rows), has_next, has_previous)


async def count(unit: Unit) -> int:
    return int((await unit.scalars(select(func.count()).where(ApiKey.tenant_id == unit.tenant.id)))[0])


async def get_many(unit: Unit, keys: Collection[UUID]) -> list[KeyView | None]:
    """In the order asked for; None where there is none."""
    rows = await unit.rows(_selected(unit).where(ApiKey.id.in_(set(keys))))
    found = {view.id: view for view in await _views(unit, rows)}
    return [found.get(key) for key in keys]


async def create(
    unit: Unit, name: str | None, built_in: Collection[Role], own: Collection[UUID], expires_at: datetime | None
) -> tuple[KeyView, str]:
    """A new service of these roles with its first key, whose text is told here and never again.

    Raises `Refused`: REQUIRED, INVALID, NOT_FOUND, TOO_MANY, BEYOND_YOUR_RIGHTS.
    """
    giver = await granting.lock(unit, _MANAGE)
    called, ends = _parsed(unit, name, [*built_in, *own], expires_at)
    await refuse_beyond(unit, giver, built_in, own, ("roles",))
    await _refuse_too_many(unit)
    service = await new_service(unit, called, built_in, own)
    key, text = await _new_key(unit, service, ends)
    given = {"roles": built_in, "ownRoles": own, "expiresAt": ends}
    unit.publish(CREATED, [key], [part for part, value in given.items() if value])
    return await _get(unit, key), text


async def create_another(unit: Unit, service: UUID, expires_at: datetime | None) -> tuple[KeyView, str]:
    """One more key of a service that has or had one; where it was disabled, it is let in again.

    Raises `Refused`: INVALID, NOT_FOUND, TOO_MANY, BEYOND_YOUR_RIGHTS.
    """
    giver = await granting.lock(unit, _MANAGE)
    ends, errors = _parsed_end(unit, expires_at)
    if errors:
        raise Refused(errors)
    found = await _get_service(unit, service)
    await refuse_beyond(unit, giver, found.roles, found.own_roles, ("service",))
    await _refuse_too_many(unit)
    key, text = await _new_key(unit, MemberId(service), ends)
    if not found.is_active:
        mine = (Member.tenant_id == unit.tenant.id, Member.id == service)
        await unit.run(update(Member).where(*mine).values(status="ACTIVE"))
        unit.publish(ENABLED, [service])
    unit.publish(CREATED, [key], ["expiresAt"] if ends else [])
    return await _get(unit, key), text


async def rotate(unit: Unit, key: UUID, overlap: timedelta) -> tuple[KeyView, str]:
    """A successor that lasts as long as the key was made to; the key opens nothing once the overlap is over.

    Rotated again, because the answer was lost, it is given another; the one before ends unless it was used. Who gets a
    key's secret has its rights, so they must be the viewer's own. Raises `Refused`: INVALID, NOT_FOUND, KEY_ENDED,
    TOO_MANY, BEYOND_YOUR_RIGHTS.
    """
    giver = await granting.lock(unit, _MANAGE)
    if not timedelta() <= overlap <= LONGEST_OVERLAP:
        most = int(LONGEST_OVERLAP.total_seconds())
        raise Refused([UserError("INVALID", ("overlapSeconds",), f"overlapSeconds is 0 to {most}.")])
    old = await _get(unit, key)
    service = (await held(unit, [old.member_id]))[old.member_id]
    _refuse_ended(unit, old, service)
    await refuse_beyond(unit, giver, service.roles, service.own_roles, ("id",))
    *_, last = line = await _line(unit, old)
    for before in line[1:2]:
        if before.revoked_at is None and before.last_used_at is None:
            await _revoke(unit, before.id)
    await _refuse_too_many(unit)
    lasts = None if last.expires_at is None else unit.now + (last.expires_at - last.created_at)
    fresh, text = await _new_key(unit, MemberId(old.member_id), lasts)
    ends = min(filter(None, (old.expires_at, unit.now + overlap)))
    await _set(unit, key, successor_id=fresh, **({"expires_at": ends} if overlap else {"revoked_at": unit.now}))
    unit.publish(ROTATED, [key])
    unit.publish(CREATED, [fresh])
    return await _get(unit, fresh), text


async def revoke(unit: Unit, key: UUID) -> KeyView:
    """Asking again changes nothing. Raises `Refused`: NOT_FOUND."""
    await granting.lock(unit, _MANAGE)
    old = await _get(unit, key)
    if old.revoked_at is None:
        await _revoke(unit, key)
        await _disable_without_keys(unit, old.member_id)
    return await _get(unit, key)


def _parsed(
    unit: Unit, name: str | None, roles_: Collection[Any], expires_at: datetime | None
) -> tuple[str, datetime | None]:
    ends, errors = _parsed_end(unit, expires_at)
    called = required.text(errors, ("name",), name, normalise.name)
    if not roles_:
        errors.append(granting.NO_ROLE)
    if errors:
        raise Refused(errors)
    return called, ends


def _parsed_end(unit: Unit, expires_at: datetime | None) -> tuple[datetime | None, list[UserError]]:
    try:
        ends = None if expires_at is None else normalise.instant(expires_at)
        if ends is not None and ends <= unit.now:
            raise Invalid("is over already")
    except Invalid as invalid:
        return None, [UserError("INVALID", ("expiresAt",), f"expiresAt {invalid.reason}.")]
    return ends, []


async def _get_service(unit: Unit, service: UUID) -> Held:
    """One that signs in by keys: what a provider vouches for, a key would outlast."""
    having = select(ApiKey.id).where(ApiKey.tenant_id == unit.tenant.id, ApiKey.member_id == service).limit(1)
    if not await unit.scalars(having):
        raise Refused([UserError("NOT_FOUND", ("service",), "There is no service of that id that had a key.")])
    return (await held(unit, [service]))[service]


async def refuse_beyond(
    unit: Unit, giver: granting.Giver, built_in: Collection[Role], own: Collection[UUID], path: Path
) -> None:
    """Raises `Refused`: NOT_FOUND for a role that is not there, BEYOND_YOUR_RIGHTS."""
    found = await roles.get_many(unit, list(own))
    if None in found:
        raise Refused([UserError("NOT_FOUND", ("ownRoles",), "ownRoles names a role that is not there.")])
    specs = [role.spec for role in found if role is not None]
    granting.refuse_beyond(giver, [*(SPECS[role] for role in built_in), *specs], path)


async def _refuse_too_many(unit: Unit) -> None:
    live = select(func.count()).where(ApiKey.tenant_id == unit.tenant.id, _is_live(unit))
    if (await unit.scalars(live))[0] >= MOST_LIVE:
        raise Refused([UserError("TOO_MANY", (), f"A tenant has at most {MOST_LIVE} live keys; revoke one first.")])


def _refuse_ended(unit: Unit, key: KeyView, service: Held) -> None:
    is_over = key.expires_at is not None and key.expires_at <= unit.now
    if key.revoked_at is not None or is_over or not service.is_active:
        raise Refused([UserError("KEY_ENDED", ("id",), "This key has ended; make a new one.")])


async def new_service(unit: Unit, name: str, built_in: Collection[Role], own: Collection[UUID]) -> MemberId:
    """A member that is no person, with these roles; whoever calls has checked that they may be given."""
    service, mine = MemberId(new_id()), {"tenant_id": unit.tenant.id}
    unit.new_subject(service)
    unit.add(
        Member(
            **mine,
            id=service,
            kind="SERVICE",
            identity=Secret(MemberIdentity(email=None, name=name)),
            status="ACTIVE",
            created_at=unit.now,
        )
    )
    unit.add(*(MemberRole(**mine, member_id=service, role=role.value) for role in set(built_in)))
    unit.add(*(MemberOwnRole(**mine, member_id=service, role_id=role) for role in set(own)))
    await unit.flush()
    unit.publish(members.ADDED, [service], ["roles"])
    return service


async def _new_key(unit: Unit, service: MemberId, expires_at: datetime | None) -> tuple[UUID, str]:
    key = new_id()
    text, prefix, digest = api_keys.make(unit.tenant.id, service)
    row = ApiKey(tenant_id=unit.tenant.id, id=key, member_id=service, hash=digest, prefix=prefix)
    row.created_at, row.expires_at = unit.now, expires_at
    unit.add(row)
    await unit.flush()
    return key, text


async def _line(unit: Unit, key: KeyView) -> list[KeyView]:
    """The key and those that followed it; the last was never rotated, so it lasts as long as the first was made to."""
    line = [key]
    while (successor := line[-1].successor_id) is not None:
        line.append(await _get(unit, successor))
    return line


async def _revoke(unit: Unit, key: UUID) -> None:
    await _set(unit, key, revoked_at=unit.now)
    unit.publish(REVOKED, [key])


async def _set(unit: Unit, key: UUID, **values: Any) -> None:
    await unit.run(update(ApiKey).where(ApiKey.tenant_id == unit.tenant.id, ApiKey.id == key).values(values))


async def _disable_without_keys(unit: Unit, service: UUID) -> None:
    mine = (ApiKey.tenant_id == unit.tenant.id, ApiKey.member_id == service)
    if await unit.scalars(select(ApiKey.id).where(*mine, _is_live(unit)).limit(1)):
        return
    active = (Member.tenant_id == unit.tenant.id, Member.id == service, Member.status == "ACTIVE")
    if await unit.rows(update(Member).where(*active).values(status="DISABLED").returning(Member.id)):
        unit.publish(DISABLED, [service])


def _is_live(unit: Unit) -> ColumnElement[bool]:
    return and_(ApiKey.revoked_at.is_(None), or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > unit.now))


async def _get(unit: Unit, key: UUID) -> KeyView:
    (found,) = await get_many(unit, [key])
    if found is None:
        raise Refused([UserError("NOT_FOUND", ("id",), "There is no API key of that id.")])
    return found


def _selected(unit: Unit) -> Select[Any]:
    """Columns, so that what is read under the lock is never what the session remembers."""
    return select(*_COLUMNS).where(ApiKey.tenant_id == unit.tenant.id)


async def _views(unit: Unit, rows: Sequence[Row[Any]]) -> list[KeyView]:
    services = {row.member_id for row in rows}
    if not services:
        return []
    having = await held(unit, services)
    named = await members.identities(unit, map(MemberId, services), "to name services")
    return [
        KeyView(
            **row._mapping,
            name=named[row.member_id].name,
            roles=having[row.member_id].roles,
            own_roles=having[row.member_id].own_roles,
        )
        for row in rows
    ]
