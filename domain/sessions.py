"""Sessions as members see them: their own, or of a member for who manages members; listed and ended."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, func, select

from crypto.keyring import SealedCell
from domain import governing, granting
from domain.errors import Forbidden, NotFound
from domain.paging import Page, Window, cut, windowed
from tenants.access import Level, Permission, Relation
from tenants.owned import places
from tenants.rights import held
from tenants.signing_in import sessions
from tenants.signing_in.sessions import NO_DEVICE, Device, Session, Why
from tenants.subjects import Subject
from tenants.unit import GUARD, Unit
from tenants.viewers import MemberId

_MANAGE = Permission.MEMBERS_MANAGE


class SessionView:
    """One session as read; its device stays sealed until a rule lets it out."""

    __slots__ = ("_row", "_unit")
    relation = Relation.NONE

    def __init__(self, row: Row[Any], unit: Unit) -> None:
        self._row = row
        self._unit = unit

    @property
    def id(self) -> UUID:
        return self._row.id  # type: ignore[no-any-return]  # a row's columns are typed Any

    @property
    def is_current(self) -> bool:
        return self.id == self._unit.viewer.session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._row, name)

    def document(self, _column: str, why: str) -> Device:
        if why == GUARD and self._row.device is not None:
            self._unit.disclose("Session", [self.id])
        return self._opened(why)

    def own_device(self, fields: Sequence[str]) -> Device | None:
        """For the member whose session it is, whole, and on record as such: these fields of the schema. Else None."""
        if self._row.member_id != self._unit.viewer.principal:
            return None
        if self._row.device is not None:  # a record apart from those of others' sessions, which show less
            shown = [f"{field}:{Level.PLAIN.name}" for field in fields]
            self._unit.disclose("Session", [self.id], shown, relation=Relation.OWN)
        return self._opened(GUARD)

    def _opened(self, why: str) -> Device:
        row = self._row
        if row.device is None:
            return NO_DEVICE
        cell = SealedCell(row.device, row.subject_secret, row.member_id, row.id)
        opened: Device = self._unit.open(places(Session)["device"], [cell], why)[0]
        return opened


async def page(unit: Unit, member: UUID | None, window: Window) -> Page[SessionView]:
    """Those that have not ended, newest first; of the viewer unless told. Raises `Forbidden`, `NotFound`."""
    whose = _whose(unit, member)
    if whose != unit.viewer.principal and not await held(unit, [whose] if whose else []):
        raise NotFound
    statement = _selected(unit).where(Session.member_id == whose)
    rows = await unit.rows(windowed(statement, (Session.created_at, Session.id), window, descending=True))
    kept, has_next, has_previous = cut(rows, window)
    return Page([SessionView(row, unit) for row in kept], has_next, has_previous)


async def count(unit: Unit, member: UUID | None) -> int:
    mine = (*_alive(unit), Session.member_id == _whose(unit, member))
    return int((await unit.scalars(select(func.count()).select_from(Session).where(*mine)))[0])


async def get_many(unit: Unit, ids: Collection[UUID]) -> dict[UUID, SessionView]:
    """Those that have not ended and the viewer may see."""
    rows = await unit.rows(_selected(unit).where(Session.id.in_(set(ids)), *_visible(unit)))
    return {row.id: SessionView(row, unit) for row in rows}


async def newest(unit: Unit, members: Collection[UUID]) -> dict[UUID, datetime]:
    """When the newest session of each began, of those that are kept; in one statement."""
    mine = (Session.tenant_id == unit.tenant.id, Session.member_id.in_(set(members)))
    columns: tuple[Any, ...] = (Session.member_id, func.max(Session.created_at).label("began_at"))
    rows = await unit.rows(select(*columns).where(*mine).group_by(Session.member_id))
    return {row.member_id: row.began_at for row in rows}


async def end(unit: Unit, session: UUID) -> None:
    """Raises `NotFound`, the same for one that has ended, is not there, or is none of the viewer's; and `Forbidden` for
    that of a member who governs what the viewer does not.
    """
    found = (await get_many(unit, [session])).get(session)
    if found is None:
        raise NotFound
    is_own = found.member_id == unit.viewer.principal
    if not is_own:
        giver = await granting.lock(unit, _MANAGE)
        await governing.check(unit, giver, (await held(unit, [found.member_id]))[found.member_id])
    why = Why.SIGNED_OUT if found.is_current else Why.ENDED_BY_MEMBER if is_own else Why.ENDED_BY_ADMINISTRATOR
    await sessions.end(unit, why, only=[session])


async def end_others(unit: Unit) -> int:
    """The viewer's own, but for the one it asks by; how many."""
    if unit.viewer.principal is None:
        return 0
    return len(await sessions.end(unit, Why.ENDED_BY_MEMBER, of=unit.viewer.principal, besides=unit.viewer.session))


async def end_own(unit: Unit) -> bool:
    """The one that the viewer asks by; False where it asks without one."""
    session = unit.viewer.session
    return session is not None and bool(await sessions.end(unit, Why.SIGNED_OUT, only=[session]))


def _whose(unit: Unit, member: UUID | None) -> UUID | None:
    own = unit.viewer.principal
    if member is not None and member != own and not unit.viewer.may(_MANAGE):
        raise Forbidden(f"This needs the permission {_MANAGE}.")
    return member or own


def _alive(unit: Unit) -> list[ColumnElement[bool]]:
    return [Session.tenant_id == unit.tenant.id, Session.ended_at.is_(None), Session.expires_at > unit.now]


def _visible(unit: Unit) -> list[ColumnElement[bool]]:
    return [] if unit.viewer.may(_MANAGE) else [Session.member_id == MemberId(unit.viewer.principal or UUID(int=0))]


def _selected(unit: Unit) -> Select[Any]:
    columns: tuple[Any, ...] = (
        *(Session.id, Session.member_id, Session.method, Session.device, Session.created_at),
        *(Session.last_used_at, Session.confirmed_at, Session.expires_at),
    )
    mine = (Subject.tenant_id == Session.tenant_id) & (Subject.id == Session.member_id)
    statement: Select[Any] = select(*columns, Subject.secret.label("subject_secret")).join(Subject, mine)
    return statement.where(*_alive(unit))
