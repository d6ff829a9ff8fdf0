"""The password that a member signs in with: its Argon2id hash, when it changes, and what it may not be."""

from sqlalchemy import select, update

from tenants import members
from tenants.errors import MemberRefused, ProofRefused, TokenRefused
from tenants.events import EventKind
from tenants.members import Member
from tenants.signing_in import sessions
from tenants.signing_in.sessions import Why
from tenants.unit import Unit
from tenants.viewers import MemberId, SessionId

CHANGED = EventKind("member.password_changed", "Member", "A member has another password, and its sessions were ended.")
_SHORTEST_NAME = 4  # of what a password may not contain; shorter ones stand in many a good password


async def find(unit: Unit, member: MemberId) -> str | None:
    """Its hash; None where the member has none."""
    mine = (Member.tenant_id == unit.tenant.id, Member.id == member)
    return next(iter(await unit.scalars(select(Member.password_hash).where(*mine))), None)


async def lock_unchanged(unit: Unit, member: MemberId, seen: str | None) -> None:
    """It stays as it was `seen` until the unit ends. Raises `ProofRefused` where it changed meanwhile."""
    mine = (Member.tenant_id == unit.tenant.id, Member.id == member, Member.status == "ACTIVE")
    statement = select(Member.password_hash).where(*mine).with_for_update(key_share=True)
    if list(await unit.scalars(statement)) != [seen]:
        raise ProofRefused


async def set_(unit: Unit, member: MemberId, password_hash: str, *, besides: SessionId | None = None) -> None:
    """Ends the member's sessions, but for the one in `besides`. Raises `TokenRefused` for who may not sign in."""
    mine = (Member.tenant_id == unit.tenant.id, Member.id == member, Member.status == "ACTIVE")
    setting = update(Member).where(*mine).values(password_hash=password_hash).returning(Member.id)
    if not await unit.scalars(setting.execution_options(synchronize_session=False)):
        raise TokenRefused
    await sessions.end(unit, Why.PASSWORD_CHANGED, of=member, besides=besides)
    unit.publish(CHANGED, [member])


async def refuse_obvious(unit: Unit, member: MemberId, password: str) -> None:
    """Raises `MemberRefused` for a password that contains what everybody tries first."""
    known = await members.identities(unit, [member], "to compare a new password with it")
    email = (known[member].email if member in known else None) or ""
    if _names_in(password, [email.partition("@")[0], unit.tenant.slug]):
        raise MemberRefused(
            "A password may hold neither the e-mail's first part nor the tenant's slug, where those have"
            f" {_SHORTEST_NAME} characters or more."
        )


def _names_in(password: str, names: list[str]) -> list[str]:
    """Those that stand in the password, in whatever letters."""
    return [name for name in names if len(name) >= _SHORTEST_NAME and name.casefold() in password.casefold()]
