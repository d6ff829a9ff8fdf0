"""Second factors: a code of an authenticator (TOTP, RFC 6238), or one of ten recovery codes, each taken once."""

import base64
import hashlib
import re
import secrets
from collections.abc import Collection
from datetime import datetime
from typing import Any
from urllib.parse import quote
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKeyConstraint, LargeBinary, delete, select
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.orm import Mapped

from crypto import otp
from crypto.values import Secret
from tenants.access import Sensitivity
from tenants.documents import Document, Mask, personal
from tenants.errors import ProofRefused, SecondFactorRefused, SecondFactorRequired
from tenants.events import EventKind
from tenants.owned import Backup, TenantOwned, clear, sealed
from tenants.unit import Unit
from tenants.viewers import MemberId

RECOVERY_CODES = 10
ADDED = EventKind("second_factor.added", "Member", "A member signs in with a second factor from now on.")
REMOVED = EventKind("second_factor.removed", "Member", "A member signs in without a second factor from now on.")
_RECOVERY_BYTES = 10  # 80 bits: too many to try, so a bare hash keeps them
_NEVER = -1


class OtpSecret(Document):
    """Of the house, in effect: it says nothing of the member."""

    is_of_people = False
    secret: str | None = personal(Sensitivity.FREE_TEXT, Mask.NOTHING)


class SecondFactor(TenantOwned, backup=Backup.NEVER, rights="SELECT INSERT UPDATE DELETE"):
    """At most one per member. It counts from the moment at which a code of it was given back."""

    __tablename__ = "second_factors"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "id"], ["members.tenant_id", "members.id"], ondelete="CASCADE"),
    )

    id: Mapped[UUID] = clear("whose it is: the member's id", primary_key=True)
    secret: Mapped[Any] = sealed(OtpSecret, place="second_factors.secret")
    last_step: Mapped[int] = clear("the time step of the last code, which is taken once", BigInteger)
    created_at: Mapped[datetime] = clear("when it was begun", TIMESTAMP(timezone=True))
    confirmed_at: Mapped[datetime | None] = clear("since when it counts", TIMESTAMP(timezone=True), nullable=True)


class RecoveryCode(TenantOwned, backup=Backup.NEVER, rights="SELECT INSERT DELETE"):
    """A used one is gone."""

    __tablename__ = "recovery_codes"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "member_id"], ["members.tenant_id", "members.id"], ondelete="CASCADE"),
        CheckConstraint("octet_length(hash) = 32", name="hash"),
    )

    member_id: Mapped[UUID] = clear("whose it is", primary_key=True)
    hash: Mapped[bytes] = clear("SHA-256 of 80 random bits", LargeBinary, primary_key=True)


async def begin(unit: Unit, member: MemberId, account: str) -> str | None:
    """The ``otpauth://`` URI of a new secret, which counts once it is confirmed; None where a factor counts already.

    `account` is how the authenticator names it. A factor that was begun before is forgotten.
    """
    present = await _locked(unit, member)
    if present is not None and present.confirmed_at is not None:
        return None
    await unit.load_subjects([member])
    factor = present or SecondFactor(tenant_id=unit.tenant.id, id=member)
    secret = base64.b32encode(secrets.token_bytes(otp.SECRET_BYTES)).decode()
    factor.secret, factor.last_step, factor.created_at = Secret(OtpSecret(secret=secret)), _NEVER, unit.now
    unit.add(factor)
    await unit.flush()
    return _uri(unit.tenant.name, account, secret)


async def confirm(unit: Unit, member: MemberId, code: str) -> list[str]:
    """The recovery codes of the factor, which counts from now on. Raises `ProofRefused`, `SecondFactorRefused`."""
    factor = await _locked(unit, member)
    if factor is None or factor.confirmed_at is not None:
        raise ProofRefused("There is no second factor to be confirmed; begin one first.")
    await _take_code(unit, factor, code)
    factor.confirmed_at = unit.now
    codes = [_recovery_code() for _ in range(RECOVERY_CODES)]
    unit.add(*(RecoveryCode(tenant_id=unit.tenant.id, member_id=member, hash=_hash(code)) for code in codes))
    await unit.flush()
    unit.publish(ADDED, [member])
    return codes


async def check(unit: Unit, member: MemberId, code: str | None) -> None:
    """Takes the code where the member has a second factor: it never fits again.

    Raises `SecondFactorRequired` where one is missing, and `SecondFactorRefused` where it does not fit.
    """
    factor = await _locked(unit, member)
    if factor is None or factor.confirmed_at is None:
        return
    if code is None or not code.strip():
        raise SecondFactorRequired
    if not await _took_recovery_code(unit, member, code):
        await _take_code(unit, factor, code)


async def remove(unit: Unit, member: MemberId) -> bool:
    """Whether there was one that counted."""
    factor = await _locked(unit, member)
    for table, mine in ((SecondFactor, _of(unit, member)), (RecoveryCode, _codes_of(unit, member))):
        await unit.run(delete(table).where(*mine).execution_options(synchronize_session=False))
    is_removed = factor is not None and factor.confirmed_at is not None
    if is_removed:
        unit.publish(REMOVED, [member])
    return is_removed


async def holders(unit: Unit, members: Collection[UUID]) -> set[UUID]:
    """Which of these members sign in with a second factor."""
    counting = select(SecondFactor.id).where(
        SecondFactor.tenant_id == unit.tenant.id, SecondFactor.id.in_(members), SecondFactor.confirmed_at.is_not(None)
    )
    return set(await unit.scalars(counting))


async def _locked(unit: Unit, member: MemberId) -> SecondFactor | None:
    """Locked, so that one code at two places at once fits at one of them."""
    statement = select(SecondFactor).where(*_of(unit, member)).with_for_update()
    found = await unit.scalars(statement.execution_options(populate_existing=True))
    return next(iter(found), None)


async def _take_code(unit: Unit, factor: SecondFactor, code: str) -> None:
    await unit.load_subjects([factor.id])
    kept: OtpSecret = unit.open_row(factor, "secret", "to check a code")
    secret = base64.b32decode(kept.secret or "")
    step = otp.find_step(secret, re.sub(r"\s", "", code), unit.now, factor.last_step)
    if step is None:
        raise SecondFactorRefused
    factor.last_step = step
    await unit.flush()


async def _took_recovery_code(unit: Unit, member: MemberId, code: str) -> bool:
    mine = (*_codes_of(unit, member), RecoveryCode.hash == _hash(code))
    taking = delete(RecoveryCode).where(*mine).returning(RecoveryCode.hash)
    taken = bool(await unit.rows(taking.execution_options(synchronize_session=False)))
    if taken:
        unit.audit("second_factor.recovery_code_used", subject_type="Member", subjects=[member])
    return taken


def _uri(issuer: str, account: str, secret: str) -> str:
    """https://github.com/google/google-authenticator/wiki/Key-Uri-Format"""
    named, label = quote(issuer, safe=""), quote(account, safe="")
    form = f"algorithm=SHA1&digits={otp.DIGITS}&period={otp.STEP_SECONDS}"
    return f"otpauth://totp/{named}:{label}?secret={secret}&issuer={named}&{form}"


def _of(unit: Unit, member: MemberId) -> tuple[Any, Any]:
    return SecondFactor.tenant_id == unit.tenant.id, SecondFactor.id == member


def _codes_of(unit: Unit, member: MemberId) -> tuple[Any, Any]:
    return RecoveryCode.tenant_id == unit.tenant.id, RecoveryCode.member_id == member


def _recovery_code() -> str:
    """16 letters and digits of base32, in fours: ``ABCD-EFGH-…``."""
    text = base64.b32encode(secrets.token_bytes(_RECOVERY_BYTES)).decode()
    return "-".join(text[start : start + 4] for start in range(0, len(text), 4))


def _hash(code: str) -> bytes:
    return hashlib.sha256(re.sub(r"[\s-]", "", code).upper().encode(errors="replace")).digest()
