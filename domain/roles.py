"""Roles of a tenant's own: made, changed and deleted within the rights of who does it; read by all who may."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from domain import granting, normalise, required
from domain.errors import NotFound, Refused, UserError
from domain.normalise import Invalid
from tenants.access import Permission, Role, RoleSpec
from tenants.events import EventKind
from tenants.ids import new_id
from tenants.roles import MemberOwnRole, OwnRole
from tenants.unit import Unit

MOST_ROLES = 200
MOST_IN_NAME, MOST_IN_DESCRIPTION = 60, normalise.MOST_IN_LINE
_MANAGE = Permission.ROLES_MANAGE
_PARTS = frozenset({"name", "description", *RoleSpec().dump()})
CREATED = EventKind("role.created", "OwnRole", "A role of the tenant's own was made.", _PARTS)
UPDATED = EventKind("role.updated", "OwnRole", "What a role is called or grants was changed.", _PARTS)
DELETED = EventKind("role.deleted", "OwnRole", "A role that nobody had was deleted.")
_BUILT_IN = {role.casefold() for role in Role}


@dataclass(frozen=True, slots=True)
class RoleView:
    id: UUID
    name: str
    description: str
    spec: RoleSpec
    version: int
    created_at: datetime
    updated_at: datetime


async def every(unit: Unit) -> list[RoleView]:
    """All of the tenant, by name; there are at most 200."""
    rows = await unit.rows(_selected(unit))
    return sorted(map(_view, rows), key=lambda role: (role.name.casefold(), role.id))


async def get_many(unit: Unit, roles: Collection[UUID]) -> list[RoleView | None]:
    """In the order asked for; None where there is none."""
    rows = await unit.rows(_selected(unit).where(OwnRole.id.in_(set(roles)))) if roles else []
    found = {row.id: _view(row) for row in rows}
    return [found.get(role) for role in roles]


async def get(unit: Unit, role: UUID) -> RoleView:
    """Raises `NotFound`, the same for an absent role and for another tenant's."""
    (found,) = await get_many(unit, [role])
    if found is None:
        raise NotFound
    return found


async def holders(unit: Unit, roles: Sequence[UUID]) -> list[int]:
    """How many members have each, in the order asked for."""
    statement = (
        select(MemberOwnRole.role_id, func.count().label("members"))
        .where(MemberOwnRole.tenant_id == unit.tenant.id, MemberOwnRole.role_id.in_(set(roles)))
        .group_by(MemberOwnRole.role_id)
    )
    found = {row.role_id: int(row.members) for row in await unit.rows(statement)}
    return [found.get(role, 0) for role in roles]


async def create(unit: Unit, sent: Mapping[str, Any]) -> RoleView:
    """`sent` has a name, perhaps a description, and parts of what `RoleSpec` dumps.

    Raises `Refused`: REQUIRED, INVALID, NAME_TAKEN, TOO_MANY, BEYOND_YOUR_RIGHTS.
    """
    giver = await granting.lock(unit, _MANAGE)
    present = await every(unit)
    if len(present) >= MOST_ROLES:
        raise Refused([UserError("TOO_MANY", (), f"A tenant has at most {MOST_ROLES} roles of its own.")])
    bare = RoleView(new_id(), "", "", RoleSpec(), 0, unit.now, unit.now)
    made = _changed(bare, {"name": "", **sent}, unit.now)
    _refuse_taken(made, present)
    granting.refuse_beyond(giver, [made.spec], ())
    await unit.run(insert(OwnRole), [{"tenant_id": unit.tenant.id, "id": made.id, **_row(made)}])
    unit.publish(CREATED, [made.id], _differing(bare, made))
    return made


async def change(unit: Unit, role: UUID, version: int, sent: Mapping[str, Any]) -> RoleView:
    """Set the named parts of the version that was read. What the role grants before and after must be the giver's own.

    Raises `Refused`: NOT_FOUND, STALE_VERSION, REQUIRED, INVALID, NAME_TAKEN, BEYOND_YOUR_RIGHTS.
    """
    giver = await granting.lock(unit, _MANAGE)
    present = await every(unit)
    before = _one(present, role)
    if before.version != version:
        sentence = "The role was changed since you read it; read it again and repeat the change."
        raise Refused([UserError("STALE_VERSION", ("version",), sentence)])
    granting.refuse_beyond(giver, [before.spec], ("id",))
    after = _changed(before, sent, unit.now)
    _refuse_taken(after, present)
    granting.refuse_beyond(giver, [after.spec], ())
    await unit.run(update(OwnRole).where(*_is(unit, role)).values(_row(after)))
    unit.publish(UPDATED, [role], _differing(before, after))
    return after


async def remove(unit: Unit, role: UUID) -> None:
    """Raises `Refused`: NOT_FOUND, ROLE_IN_USE."""
    await granting.lock(unit, _MANAGE)
    _one(await every(unit), role)
    (members,) = await holders(unit, [role])
    if members:
        raise _in_use(f"{members} {'member has' if members == 1 else 'members have'} this role")
    try:
        await unit.run(delete(OwnRole).where(*_is(unit, role)))
    except IntegrityError:
        raise _in_use("Something of the tenant names this role") from None
    unit.publish(DELETED, [role])


def _one(present: Collection[RoleView], role: UUID) -> RoleView:
    found = next((each for each in present if each.id == role), None)
    if found is None:
        raise Refused([UserError("NOT_FOUND", ("id",), "There is no role of that id.")])
    return found


def _in_use(why: str) -> Refused:
    return Refused([UserError("ROLE_IN_USE", ("id",), f"{why}; take it away first.")])


def _changed(before: RoleView, sent: Mapping[str, Any], now: datetime) -> RoleView:
    """Raises `Refused` with every error at once."""
    errors: list[UserError] = []
    name = required.text(errors, ("name",), sent.get("name", before.name), partial(_line, most=MOST_IN_NAME))
    description = sent.get("description", before.description)
    if description:
        form = partial(_line, most=MOST_IN_DESCRIPTION)
        description = required.text(errors, ("description",), description, form)
    if errors:
        raise Refused(errors)
    parts = {part: value for part, value in sent.items() if part not in ("name", "description")}
    spec = RoleSpec.load(before.spec.dump() | parts)
    return RoleView(before.id, name, description or "", spec, before.version + 1, before.created_at, now)


def _line(text: str, most: int) -> str:
    kept = normalise.line(text)
    if len(kept) > most:
        raise Invalid(f"is longer than {most} characters")
    return kept


def _refuse_taken(role: RoleView, present: Collection[RoleView]) -> None:
    """Case makes no other name, and a built-in role's name is that role's."""
    others = {each.name.casefold() for each in present if each.id != role.id}
    if role.name.casefold() in others | _BUILT_IN:
        raise Refused([UserError("NAME_TAKEN", ("name",), "A role of that name exists already.")])


def _differing(before: RoleView, after: RoleView) -> Iterator[str]:
    yield from (part for part in ("name", "description") if getattr(before, part) != getattr(after, part))
    old, new = before.spec.dump(), after.spec.dump()
    yield from (part for part in new if old[part] != new[part])


def _row(role: RoleView) -> dict[str, Any]:
    return {
        "name": role.name,
        "description": role.description,
        "spec": role.spec.dump(),
        "version": role.version,
        "created_at": role.created_at,
        "updated_at": role.updated_at,
    }


def _is(unit: Unit, role: UUID) -> tuple[Any, Any]:
    return OwnRole.tenant_id == unit.tenant.id, OwnRole.id == role


def _selected(unit: Unit) -> Select[Any]:
    """Columns, so that what is read under the lock is never what the session remembers."""
    columns = (OwnRole.id, OwnRole.name, OwnRole.description, OwnRole.spec, OwnRole.version)
    return select(*columns, OwnRole.created_at, OwnRole.updated_at).where(OwnRole.tenant_id == unit.tenant.id)


def _view(row: Row[Any]) -> RoleView:
    return RoleView(
        row.id, row.name, row.description, RoleSpec.load(row.spec), row.version, row.created_at, row.updated_at
    )
