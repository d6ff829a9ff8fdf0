"""Refresh tokens: each renews its session once; one that comes again ends the session, since two have it."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKeyConstraint, Index, LargeBinary, select, update
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.orm import Mapped

from tenants.errors import SessionEnded, Unauthenticated
from tenants.origins import UNKNOWN, Origin
from tenants.owned import Backup, TenantOwned, clear
from tenants.signing_in import bearer_tokens, sessions
from tenants.signing_in.sessions import Why
from tenants.unit import Unit
from tenants.units import Units
from tenants.viewers import Credential, MemberId, SessionId, TenantId

PREFIX = "cor_"


class RefreshToken(TenantOwned, backup=Backup.NEVER, rights="SELECT INSERT UPDATE DELETE"):
    """Used ones stay as long as their session, to be known again."""

    __tablename__ = "refresh_tokens"
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "session_id"], ["member_sessions.tenant_id", "member_sessions.id"], ondelete="CASCADE"
        ),
        Index("ix_refresh_tokens_session", "tenant_id", "session_id"),
        CheckConstraint("octet_length(hash) = 32", name="hash"),
    )

    hash: Mapped[bytes] = clear("SHA-256 of 32 random bytes", LargeBinary, primary_key=True)
    session_id: Mapped[UUID] = clear("which session it renews")
    created_at: Mapped[datetime] = clear("when it was given", TIMESTAMP(timezone=True))
    used_at: Mapped[datetime | None] = clear("when it was taken back", TIMESTAMP(timezone=True), nullable=True)


def give(unit: Unit, credential: Credential) -> str:
    """A new token of the credential's session; it names tenant, member and session."""
    if credential.session is None:
        raise TypeError("only a session has refresh tokens")
    tenant, session = unit.tenant.id, credential.session
    token, kept = bearer_tokens.make(PREFIX, tenant, credential.principal, session)
    unit.add(RefreshToken(tenant_id=tenant, hash=kept, session_id=session, created_at=unit.now))
    return token


class Refreshing:
    def __init__(self, units: Units) -> None:
        self._units = units

    async def refresh(self, token: str, origin: Origin = UNKNOWN) -> tuple[Credential, str]:
        """The session's credential and its next refresh token.

        Raises `SessionEnded`, the same for a token that is none, one whose session ended or ran out, and one that was
        used before; the last of these ends the session.
        """
        read = bearer_tokens.read(PREFIX, token, 3)
        if read is None:
            raise SessionEnded
        tenant, member, session = read.ids
        credential = Credential(TenantId(tenant), MemberId(member), SessionId(session))
        try:
            entering = self._units.enter(
                credential.tenant,
                credential.principal,
                write=True,
                thaws=True,
                origin=origin,
                under=credential.session,
            )
            async with entering as unit:
                renewed = await self._renew(unit, credential, SessionId(session), read.hash)
        except Unauthenticated:
            raise SessionEnded from None
        if renewed is None:
            raise SessionEnded
        return credential, renewed

    async def _renew(self, unit: Unit, credential: Credential, session: SessionId, kept: bytes) -> str | None:
        """None where the token does not renew: it was used, also by somebody at the same moment, or never was one."""
        mine = (
            RefreshToken.tenant_id == unit.tenant.id,
            RefreshToken.hash == kept,
            RefreshToken.session_id == session,
        )
        using = update(RefreshToken).where(*mine, RefreshToken.used_at.is_(None)).values(used_at=unit.now)
        if await unit.rows(using.returning(RefreshToken.hash)):
            return give(unit, credential) if await sessions.renew(unit) else None
        if await unit.scalars(select(RefreshToken.hash).where(*mine)):
            unit.audit("session.refresh_reused", subject_type="Session", subjects=[session])
            await sessions.end(unit, Why.REFRESH_REUSED, only=[session])
        return None
