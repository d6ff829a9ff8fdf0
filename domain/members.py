"""Reading members: a page of them, or those of given ids; who they are stays sealed until a rule lets it out."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, func, select

from crypto.keyring import SealedCell
from domain import roles
from domain.errors import Forbidden, NotFound
from domain.paging import Page, Window, cut, windowed
from tenants.access import Permission, Relation, Role
from tenants.members import Member, MemberIdentity, MemberRole, bears_email
from tenants.owned import places
from tenants.roles import MemberOwnRole
from tenants.subjects import Subject
from tenants.unit import GUARD, Unit

SEARCHED = "member.searched"
_MANAGE = Permission.MEMBERS_MANAGE


class MemberStatus(StrEnum):
    INVITED = "INVITED"
    ACTIVE = "ACTIVE"
    DISABLED = "DISABLED"


class MemberKind(StrEnum):
    PERSON = "PERSON"
    SERVICE = "SERVICE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """None does not filter; `own_role` is the id of one of the tenant's own; the e-mail is the whole one."""

    status: MemberStatus | None = None
    kind: MemberKind | None = None
    role: Role | None = None
    own_role: UUID | None = None
    email: str | None = field(default=None, repr=False)


class MemberView:
    """One member as read: its clear columns by their own names."""

    __slots__ = ("_batch", "_position", "_row")
    relation = Relation.NONE

    def __init__(self, row: Row[Any], batch: "_Batch", position: int) -> None:
        self._row = row
        self._batch = batch
        self._position = position

    @property
    def id(self) -> UUID:
        local: UUID = self._row.id
        return local

    def __getattr__(self, name: str) -> Any:
        return getattr(self._row, name)

    def document(self, _column: str, why: str) -> MemberIdentity:
        """The opened identity. Opening one opens those of all that were read together, once."""
        if why == GUARD:
            self._batch.unit.disclose("Member", [self.id])
        return self._batch.identities(why)[self._position]


class _Batch:
    def __init__(self, unit: Unit, rows: Sequence[Row[Any]]) -> None:
        self.unit = unit
        self.views = [MemberView(row, self, position) for position, row in enumerate(rows)]
        self._rows = rows
        self._opened: list[MemberIdentity] | None = None

    def identities(self, why: str) -> list[MemberIdentity]:
        if self._opened is None:
            cells = [SealedCell(row.identity, row.subject_secret, row.id, row.id) for row in self._rows]
            self._opened = self.unit.open(places(Member)["identity"], cells, why)
        return self._opened


async def get_many(unit: Unit, members: Sequence[UUID]) -> list[MemberView | None]:
    """One statement, in the order asked for; None where there is no such member."""
    rows = await unit.rows(_selected(unit).where(Member.id.in_(set(members))))
    found = {view.id: view for view in _Batch(unit, rows).views}
    return [found.get(member) for member in members]


async def page(unit: Unit, where: Filter, window: Window) -> Page[MemberView]:
    """Oldest first. Raises `Forbidden` for an e-mail, and `NotFound` for a role that is not there."""
    await _check(unit, where)
    statement = _selected(unit).where(*_conditions(unit, where))
    rows = await unit.rows(windowed(statement, (Member.created_at, Member.id), window, descending=False))
    kept, has_next, has_previous = cut(rows, window)
    if where.email is not None:  # finding confirms an address, so it is on record even if nothing is shown
        unit.audit(SEARCHED, subject_type="Member", subjects=[row.id for row in kept], fields=["email"])
    return Page(_Batch(unit, kept).views, has_next, has_previous)


async def count(unit: Unit, where: Filter) -> int:
    statement = select(func.count()).select_from(Member)
    return int((await unit.scalars(statement.where(Member.tenant_id == unit.tenant.id, *_conditions(unit, where))))[0])


async def _check(unit: Unit, where: Filter) -> None:
    if where.email is not None and not unit.viewer.may(_MANAGE):
        raise Forbidden(f"Finding by e-mail needs the permission {_MANAGE}.")
    if where.own_role is not None and None in await roles.get_many(unit, [where.own_role]):
        raise NotFound


def _selected(unit: Unit) -> Select[Any]:
    mine = (Subject.tenant_id == Member.tenant_id) & (Subject.id == Member.id)
    columns: tuple[Any, ...] = (Member.id, Member.kind, Member.status, Member.created_at, Member.identity)
    statement: Select[Any] = select(*columns, Subject.secret.label("subject_secret")).join(Subject, mine)
    return statement.where(Member.tenant_id == unit.tenant.id)


def _conditions(unit: Unit, where: Filter) -> list[ColumnElement[bool]]:
    found = [Member.status == where.status] if where.status is not None else []
    found += [Member.kind == where.kind] if where.kind is not None else []
    if where.role is not None:
        of_role = (MemberRole.tenant_id == Member.tenant_id) & (MemberRole.role == where.role.value)
        found.append(Member.id.in_(select(MemberRole.member_id).where(of_role)))
    if where.own_role is not None:
        of_role = (MemberOwnRole.tenant_id == Member.tenant_id) & (MemberOwnRole.role_id == where.own_role)
        found.append(Member.id.in_(select(MemberOwnRole.member_id).where(of_role)))
    if where.email is not None:
        found.append(bears_email(unit, where.email))
    return found
