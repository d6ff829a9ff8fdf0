"""One-time tokens, which mails bring: whoever has one may set the member's password once, before it runs out."""

from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from sqlalchemy import CheckConstraint, ColumnElement, ForeignKeyConstraint, LargeBinary, Text, delete, select
from sqlalchemy.dialects.postgresql import TIMESTAMP, insert
from sqlalchemy.orm import Mapped

from tenants.errors import TokenRefused
from tenants.owned import Backup, TenantOwned, clear
from tenants.signing_in import bearer_tokens
from tenants.signing_in.bearer_tokens import BearerToken
from tenants.unit import Unit
from tenants.viewers import MemberId, TenantId

PREFIX = "cot_"


class Use(StrEnum):
    RESET = "RESET"
    INVITATION = "INVITATION"


LIFETIMES = {Use.RESET: timedelta(hours=1), Use.INVITATION: timedelta(days=7)}


class OneTimeToken(TenantOwned, backup=Backup.NEVER, rights="SELECT INSERT UPDATE DELETE"):
    """At most one of each use per member: a new one voids the old. A used one is gone."""

    __tablename__ = "one_time_tokens"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "member_id"], ["members.tenant_id", "members.id"], ondelete="CASCADE"),
        CheckConstraint("use IN ('RESET', 'INVITATION')", name="use"),
        CheckConstraint("octet_length(hash) = 32", name="hash"),
    )

    member_id: Mapped[UUID] = clear("whose password it sets", primary_key=True)
    use: Mapped[str] = clear("a code", Text, primary_key=True)
    hash: Mapped[bytes] = clear("SHA-256 of 32 random bytes", LargeBinary)
    expires_at: Mapped[datetime] = clear("it opens nothing from then on", TIMESTAMP(timezone=True))


def read(text: str) -> tuple[TenantId, MemberId, BearerToken]:
    """Raises `TokenRefused` for what is none."""
    token = bearer_tokens.read(PREFIX, text, 2)
    if token is None:
        raise TokenRefused
    return TenantId(token.ids[0]), MemberId(token.ids[1]), token


async def give(unit: Unit, member: MemberId, use: Use) -> str:
    """A new token; an older one of that use opens nothing any more."""
    text, kept = bearer_tokens.make(PREFIX, unit.tenant.id, member)
    row = {"hash": kept, "expires_at": unit.now + LIFETIMES[use]}
    key = {"tenant_id": unit.tenant.id, "member_id": member, "use": use}
    statement = insert(OneTimeToken).values(**key, **row)
    await unit.run(statement.on_conflict_do_update(index_elements=list(key), set_=row))
    return text


async def check(unit: Unit, token: BearerToken, use: Use) -> None:
    """Raises `TokenRefused` where it would not be taken now; it is not taken yet."""
    if not await unit.rows(select(OneTimeToken.member_id).where(*_matching(unit, token, use))):
        raise TokenRefused


async def take(unit: Unit, token: BearerToken, use: Use) -> None:
    """Of two at once one takes it. Raises `TokenRefused`."""
    taking = delete(OneTimeToken).where(*_matching(unit, token, use)).returning(OneTimeToken.member_id)
    if not await unit.rows(taking.execution_options(synchronize_session=False)):
        raise TokenRefused


async def void(unit: Unit, member: MemberId, use: Use) -> None:
    mine = (OneTimeToken.tenant_id == unit.tenant.id, OneTimeToken.member_id == member, OneTimeToken.use == use)
    await unit.run(delete(OneTimeToken).where(*mine).execution_options(synchronize_session=False))


def _matching(unit: Unit, token: BearerToken, use: Use) -> list[ColumnElement[bool]]:
    return [
        OneTimeToken.tenant_id == unit.tenant.id,
        OneTimeToken.member_id == token.ids[1],
        OneTimeToken.use == use,
        OneTimeToken.hash == token.hash,
        OneTimeToken.expires_at > unit.now,
    ]
