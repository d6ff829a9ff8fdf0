"""Sessions: what a sign-in opens and lasts until it is ended; every access token stands and falls with its session."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKeyConstraint, Index, Text, func, select, update
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.orm import Mapped

from crypto.values import Secret
from tenants.access import Sensitivity
from tenants.documents import Document, Mask, personal
from tenants.events import EventKind
from tenants.ids import new_id
from tenants.owned import Backup, TenantOwned, clear, sealed
from tenants.unit import Unit
from tenants.viewers import Credential, MemberId, SessionId, Viewer

LIFETIME, IDLE = timedelta(days=30), timedelta(days=7)  # from the sign-in, and from the last renewal
FRESH = timedelta(minutes=5)  # how long it counts that somebody proved to be the member
ENDED = EventKind("session.ended", "Session", "A member's session was ended, and its tokens open nothing any more.")


class Device(Document):
    user_agent: str | None = personal(Sensitivity.CONTACT, Mask.TEXT)
    address: str | None = personal(Sensitivity.LOCATION, Mask.TEXT)


NO_DEVICE = Device(user_agent=None, address=None)


class Method(StrEnum):
    PASSWORD = "PASSWORD"  # noqa: S105  # the name of a way
    OIDC = "OIDC"


class Why(StrEnum):
    SIGNED_OUT = "SIGNED_OUT"
    ENDED_BY_MEMBER = "ENDED_BY_MEMBER"
    ENDED_BY_ADMINISTRATOR = "ENDED_BY_ADMINISTRATOR"
    PASSWORD_CHANGED = "PASSWORD_CHANGED"  # noqa: S105  # a code
    REFRESH_REUSED = "REFRESH_REUSED"
    MEMBER_DISABLED = "MEMBER_DISABLED"
    SIGN_ON_CHANGED = "SIGN_ON_CHANGED"
    RECOVERED = "RECOVERED"  # the database came back as it was before


class Session(TenantOwned, backup=Backup.NEVER, rights="SELECT INSERT UPDATE DELETE"):
    """`coffer_enter` reads it: from the moment it has ended or expired, its tokens open nothing."""

    __tablename__ = "member_sessions"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "member_id"], ["members.tenant_id", "members.id"], ondelete="CASCADE"),
        Index("ix_member_sessions_member", "tenant_id", "member_id", "created_at"),
        CheckConstraint("method IN ('PASSWORD', 'OIDC')", name="method"),
    )

    id: Mapped[UUID] = clear("made at random", primary_key=True)
    member_id: Mapped[UUID] = clear("who signed in")
    method: Mapped[str] = clear("how the member signed in", Text)
    device: Mapped[Any] = sealed(Device, place="member_sessions.device", subject="member_id")
    created_at: Mapped[datetime] = clear("when the member signed in", TIMESTAMP(timezone=True))
    last_used_at: Mapped[datetime] = clear("when a token was last renewed", TIMESTAMP(timezone=True))
    confirmed_at: Mapped[datetime] = clear("when the member last proved to sit there", TIMESTAMP(timezone=True))
    expires_at: Mapped[datetime] = clear("no token is renewed from then on", TIMESTAMP(timezone=True))
    ended_at: Mapped[datetime | None] = clear("when it was ended", TIMESTAMP(timezone=True), nullable=True)
    ended_why: Mapped[str | None] = clear("a code", Text, nullable=True)


async def begin(unit: Unit, member: MemberId, method: Method, device: Device = NO_DEVICE) -> Credential:
    """A new session of that member, who has just proved to be it."""
    await unit.load_subjects([member])
    session = SessionId(new_id())
    unit.add(
        Session(
            tenant_id=unit.tenant.id,
            id=session,
            member_id=member,
            method=method,
            device=None if device.is_empty() else Secret(device),
            created_at=unit.now,
            last_used_at=unit.now,
            confirmed_at=unit.now,
            expires_at=unit.now + min(LIFETIME, IDLE),
        )
    )
    await unit.flush()
    return Credential(unit.tenant.id, member, session)


async def renew(unit: Unit) -> bool:
    """Let the viewer's session last longer; False where it has ended meanwhile."""
    longer = func.least(Session.created_at + LIFETIME, unit.now + IDLE)
    values = {"last_used_at": unit.now, "expires_at": longer}
    return await _changed(unit, values)


async def confirm(unit: Unit) -> bool:
    """The viewer has just proved again to be the member. False where the session has ended meanwhile."""
    return await _changed(unit, {"confirmed_at": unit.now})


async def hold(unit: Unit) -> bool:
    """Nobody ends the viewer's session before this unit has ended. False where it has ended meanwhile."""
    mine = (Session.tenant_id == unit.tenant.id, Session.id == unit.viewer.session, Session.ended_at.is_(None))
    return bool(await unit.scalars(select(Session.id).where(*mine).with_for_update(read=True)))


def is_fresh(viewer: Viewer, now: datetime) -> bool:
    """Whether the member proved in the last five minutes to sit there; never so for an API key."""
    return viewer.confirmed_at is not None and now - viewer.confirmed_at <= FRESH


async def end(
    unit: Unit,
    why: Why,
    *,
    of: MemberId | None = None,
    only: Collection[UUID] | None = None,
    besides: UUID | None = None,
) -> list[UUID]:
    """End the sessions `of` a member, or `only` these, but for the one in `besides`; those that had not ended yet."""
    where = [Session.tenant_id == unit.tenant.id, Session.ended_at.is_(None), Session.expires_at > unit.now]
    if of is not None:
        where.append(Session.member_id == of)
    if only is not None:
        where.append(Session.id.in_(only))
    if besides is not None:
        where.append(Session.id != besides)
    ending = update(Session).where(*where).values(ended_at=unit.now, ended_why=why).returning(Session.id)
    gone: Sequence[UUID] = await unit.scalars(ending.execution_options(synchronize_session=False))
    if gone:
        unit.publish(ENDED, gone)
    return list(gone)


async def _changed(unit: Unit, values: dict[str, Any]) -> bool:
    mine = (Session.tenant_id == unit.tenant.id, Session.id == unit.viewer.session, Session.ended_at.is_(None))
    changing = update(Session).where(*mine).values(values).returning(Session.id)
    return bool(await unit.scalars(changing.execution_options(synchronize_session=False)))
