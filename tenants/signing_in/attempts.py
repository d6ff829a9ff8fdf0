"""How often somebody tried to prove to be a member and failed: five times are free, then each waits longer."""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime, timedelta
from math import ceil

from sqlalchemy import CheckConstraint, Integer, LargeBinary, bindparam, delete, select, text, update
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.orm import Mapped
from sqlalchemy.types import Uuid

from tenants.errors import TooManyAttempts
from tenants.owned import Backup, TenantOwned, clear
from tenants.unit import Unit

FREE_ATTEMPTS = 5
LONGEST_WAIT = timedelta(seconds=300)
_STRANGERS = 10_000


class SignInAttempt(TenantOwned, backup=Backup.NEVER, rights="SELECT INSERT UPDATE DELETE"):
    """Failures per keyed hash of what was tried, as an e-mail, whether or not a member has that e-mail."""

    __tablename__ = "sign_in_attempts"
    __table_args__ = (CheckConstraint("octet_length(token) = 16", name="token"),)

    token: Mapped[bytes] = clear("keyed hash of the e-mail that was tried", LargeBinary, primary_key=True)
    failures: Mapped[int] = clear("how often it failed", Integer)
    until: Mapped[datetime] = clear("no attempt before then", TIMESTAMP(timezone=True))


# Counted before the password is looked at, so that parallel guesses count too; a day of peace forgets. While attempts
# are free, `until` makes nobody wait: of two at once the later may have read the clock earlier.
_COUNT = text(
    """
    INSERT INTO sign_in_attempts AS a (tenant_id, token, failures, until) VALUES (:tenant, :token, 1, :now)
    ON CONFLICT (tenant_id, token) DO UPDATE SET
        failures = CASE WHEN a.until < :now - interval '1 day' THEN 1 ELSE a.failures + 1 END,
        until = CASE WHEN a.until < :now - interval '1 day' OR a.failures < :free THEN :now
                ELSE :now + make_interval(secs => least(:longest, power(2, least(a.failures - :free, 30)))) END
    WHERE a.until <= :now OR a.failures < :free RETURNING failures
    """
).bindparams(
    bindparam("tenant", type_=Uuid),
    bindparam("token", type_=LargeBinary),
    bindparam("now", type_=TIMESTAMP(timezone=True)),
    bindparam("free", type_=Integer),
    bindparam("longest", type_=Integer),
)


def tokens_of(unit: Unit, what: str, name: bytes) -> list[bytes]:
    """16 bytes by each index key, the active first, that stand for `name`; apart for each `what` that is counted."""
    versions = unit.keyring.index_key_versions()
    return [unit.keyring.authenticate(f"attempts {what}", name, version)[:16] for version in versions]


async def count(unit: Unit, tokens: Sequence[bytes]) -> None:
    """Counts one that may still succeed; then `forget` it. Raises `TooManyAttempts`.

    All of `tokens` stand for the same; what was counted under an older one goes on under the first.
    """
    token, *older = tokens
    if older:
        await _take_over(unit, token, older)
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


async def forget(unit: Unit, tokens: Sequence[bytes]) -> None:
    mine = (SignInAttempt.tenant_id == unit.tenant.id, SignInAttempt.token.in_(tokens))
    await unit.run(delete(SignInAttempt).where(*mine).execution_options(synchronize_session=False))


async def _take_over(unit: Unit, token: bytes, older: Sequence[bytes]) -> None:
    """Nobody counts under an older one any more; and under the first nobody does who did not take over before."""
    mine = SignInAttempt.tenant_id == unit.tenant.id
    counted = select(SignInAttempt.token).where(mine, SignInAttempt.token.in_([token, *older]))
    latest = counted.order_by(SignInAttempt.until.desc()).limit(1).correlate(None).scalar_subquery()
    moved = update(SignInAttempt).where(mine, SignInAttempt.token == latest).values(token=token)
    await unit.run(moved.execution_options(synchronize_session=False))


def _too_many(wait: timedelta) -> TooManyAttempts:
    return TooManyAttempts(ceil(wait.total_seconds()))


class Strangers:
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
