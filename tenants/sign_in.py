"""Sign-in by tenant, e-mail and password: costs the same for names that nobody has, and slows after failures."""

from datetime import datetime, timedelta
from typing import NoReturn

from sqlalchemy import CheckConstraint, Integer, LargeBinary, bindparam, delete, select, text
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.orm import Mapped
from sqlalchemy.types import Uuid

from tenants import members, tenants
from tenants.database import Database
from tenants.errors import SignInRefused, TooManyAttempts
from tenants.owned import Backup, TenantOwned, clear
from tenants.passwords import Passwords
from tenants.unit import Unit, Units
from tenants.viewers import Credential, MemberId, TenantId

FREE_ATTEMPTS = 5
LONGEST_WAIT = timedelta(seconds=300)


class SignInAttempt(TenantOwned, backup=Backup.NEVER, rights="SELECT INSERT UPDATE DELETE"):
    """Failures per e-mail token, whether or not a member has that e-mail."""

    __tablename__ = "sign_in_attempts"
    __table_args__ = (CheckConstraint("octet_length(token) = 16", name="token"),)

    token: Mapped[bytes] = clear("keyed hash of the e-mail that was tried", LargeBinary, primary_key=True)
    failures: Mapped[int] = clear("how often it failed", Integer)
    until: Mapped[datetime] = clear("no attempt before then", TIMESTAMP(timezone=True))


# Counted before the password is looked at, so that parallel guesses count too; a day of peace forgets.
_COUNT = text(
    """
    INSERT INTO sign_in_attempts AS a (tenant_id, token, failures, until) VALUES (:tenant, :token, 1, :now)
    ON CONFLICT (tenant_id, token) DO UPDATE SET
        failures = CASE WHEN a.until < :now - interval '1 day' THEN 1 ELSE a.failures + 1 END,
        until = CASE WHEN a.until < :now - interval '1 day' OR a.failures < :free THEN :now
                ELSE :now + make_interval(secs => least(:longest, power(2, least(a.failures - :free, 30)))) END
    WHERE a.until <= :now RETURNING failures
    """
).bindparams(
    bindparam("tenant", type_=Uuid),
    bindparam("token", type_=LargeBinary),
    bindparam("now", type_=TIMESTAMP(timezone=True)),
    bindparam("free", type_=Integer),
    bindparam("longest", type_=Integer),
)


class SignIns:
    def __init__(self, units: Units, platform: Database, passwords: Passwords) -> None:
        self._units = units
        self._platform = platform
        self._passwords = passwords

    async def sign_in(self, slug: str, email: str, password: str) -> Credential:
        """Raises `SignInRefused` without saying which part was wrong, or `TooManyAttempts`."""
        tenant = await tenants.find(self._platform, slug)
        if tenant is None or tenant.status != "ACTIVE":
            await self._refuse_stranger(password)
        async with self._units.enter(tenant.id, None, write=True) as unit:
            await _count(unit, email)
            member = await members.find_by_email(unit, email)
        if not await self._passwords.fits(member.password_hash if member else None, password) or member is None:
            raise SignInRefused
        await self._forget_failures(tenant.id, email)
        return Credential(tenant.id, MemberId(member.id))

    async def _forget_failures(self, tenant: TenantId, email: str) -> None:
        async with self._units.enter(tenant, None, write=True) as unit:
            token = members.email_token(unit, email)
            await unit.run(delete(SignInAttempt).where(SignInAttempt.tenant_id == tenant, SignInAttempt.token == token))

    async def _refuse_stranger(self, password: str) -> NoReturn:
        """Do the work of a real attempt; a slug must not show by its speed that nobody has it."""
        await self._passwords.fits(None, password)
        raise SignInRefused


async def _count(unit: Unit, email: str) -> None:
    token = members.email_token(unit, email)
    parameters = {
        "tenant": unit.tenant.id,
        "token": token,
        "now": unit.now,
        "free": FREE_ATTEMPTS,
        "longest": int(LONGEST_WAIT.total_seconds()),
    }
    if await unit.rows(_COUNT.bindparams(**parameters)):
        return
    where = (SignInAttempt.tenant_id == unit.tenant.id, SignInAttempt.token == token)
    until = (await unit.scalars(select(SignInAttempt.until).where(*where)))[0]
    raise TooManyAttempts(f"Too many failed sign-ins; try again in {(until - unit.now).seconds + 1} seconds.")
