"""Sign-in by tenant, e-mail and password: costs the same for names that nobody has, and slows after failures."""

import hashlib
from collections import OrderedDict
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import NoReturn

from sqlalchemy import CheckConstraint, Integer, LargeBinary, bindparam, delete, select, text
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.orm import Mapped
from sqlalchemy.types import Uuid

from tenants import members, tenants
from tenants.audit.entries import OK, Entry
from tenants.database import Database
from tenants.errors import SignInRefused, TooManyAttempts
from tenants.members import Member
from tenants.origins import UNKNOWN, Origin
from tenants.owned import Backup, TenantOwned, clear
from tenants.passwords import Passwords
from tenants.recorder import Recorder
from tenants.unit import Unit, Units
from tenants.viewers import Credential, MemberId, TenantId

FREE_ATTEMPTS = 5
LONGEST_WAIT = timedelta(seconds=300)
_STRANGERS = 10_000


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
    def __init__(self, units: Units, platform: Database, passwords: Passwords, recorder: Recorder) -> None:
        self._units = units
        self._platform = platform
        self._passwords = passwords
        self._recorder = recorder
        self._strangers = _Strangers()

    async def sign_in(self, slug: str, email: str, password: str, origin: Origin = UNKNOWN) -> Credential:
        """Raises `SignInRefused` without saying which part was wrong, or `TooManyAttempts`; each is on record."""
        tenant = await tenants.find(self._platform, slug)
        if tenant is None or tenant.status != "ACTIVE":
            await self._refuse_stranger(slug, email, password)
        member = None
        try:
            async with self._units.enter(tenant.id, None, write=True) as unit:
                await _count(unit, email)
                member = await members.find_by_email(unit, email)
            if not await self._passwords.fits(member.password_hash if member else None, password) or member is None:
                raise SignInRefused
        except (SignInRefused, TooManyAttempts) as refused:
            await self._record(tenant.id, member, refused.code, origin)
            raise
        await self._forget_failures(tenant.id, email)
        await self._record(tenant.id, member, OK, origin)
        return Credential(tenant.id, MemberId(member.id))

    async def _record(self, tenant: TenantId, member: Member | None, outcome: str, origin: Origin) -> None:
        """`actor` is whose e-mail it was, also where the password was wrong."""
        actor = member.id if member else None
        entry = Entry(
            tenant=tenant,
            at=datetime.now(UTC),
            actor=actor,
            action="member.signed_in",
            subject_type="Member",
            subjects=[actor] if actor else [],
            outcome=outcome,
            origin=origin,
        )
        await self._recorder.record([entry])

    async def _forget_failures(self, tenant: TenantId, email: str) -> None:
        async with self._units.enter(tenant, None, write=True) as unit:
            token = members.email_token(unit, email)
            await unit.run(delete(SignInAttempt).where(SignInAttempt.tenant_id == tenant, SignInAttempt.token == token))

    async def _refuse_stranger(self, slug: str, email: str, password: str) -> NoReturn:
        """Slow down and do the work of a real attempt, so that neither tells a slug that nobody has."""
        self._strangers.count(f"{slug}\0{email.strip().casefold()}", datetime.now(UTC))
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
    raise _too_many(until - unit.now)


def _too_many(wait: timedelta) -> TooManyAttempts:
    return TooManyAttempts(f"Too many failed sign-ins; try again in {ceil(wait.total_seconds())} s.")


class _Strangers:
    """The same count for tenants that don't exist, which have no table and no key: in this process, by hash."""

    def __init__(self) -> None:
        self._seen: OrderedDict[bytes, tuple[int, datetime]] = OrderedDict()

    def count(self, name: str, now: datetime) -> None:
        """Raises `TooManyAttempts`."""
        key = hashlib.sha256(name.encode(errors="surrogatepass")).digest()
        failures, until = self._seen.pop(key, (0, now))
        if until > now:
            self._seen[key] = (failures, until)
            raise _too_many(until - now)
        extra = failures - FREE_ATTEMPTS
        wait = min(LONGEST_WAIT, timedelta(seconds=2 ** min(extra, 30))) if extra >= 0 else timedelta()
        self._seen[key] = (failures + 1, now + wait)
        while len(self._seen) > _STRANGERS:
            self._seen.popitem(last=False)
