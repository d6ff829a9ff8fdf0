"""Idempotency: what a keyed mutation did, so that asking again answers the same and does nothing twice.

Only ids and error codes are kept, never values: a replay reads the rows as they are now, under the rights of now.
"""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import JSON, LargeBinary, delete, func, insert, select
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.orm import Mapped

from domain.errors import IdempotencyKeyReused, Path, Refused, UserError
from tenants.owned import Backup, TenantOwned, clear
from tenants.unit import Unit

KEPT = timedelta(hours=24)


class Outcome(TenantOwned, backup=Backup.NEVER, rights="SELECT INSERT DELETE"):
    __tablename__ = "outcomes"

    principal: Mapped[UUID] = clear("whose key it is", primary_key=True)
    key: Mapped[bytes] = clear("keyed hash of the client's key", LargeBinary, primary_key=True)
    fingerprint: Mapped[bytes] = clear("keyed hash of the input", LargeBinary)
    result: Mapped[Any] = clear("ids and codes, no values", JSON)
    created_at: Mapped[datetime] = clear("decides when it is forgotten", TIMESTAMP(timezone=True))


def gone(path: Path = ()) -> Refused:
    """For what a replay would show and can't: it was erased or deleted, a restore took it away, or it changed hands."""
    return Refused(
        [UserError("NOT_FOUND", path, "What this made or changed is no longer there, or out of your reach.")]
    )


async def find(unit: Unit, key: str, request: bytes) -> Any | None:
    """The kept result of this key, or None for a new one. Waits for another request that is using the key right now.

    Raises `IdempotencyKeyReused` if the key came with another request.
    """
    versions = {_hashed(unit, key, version): version for version in unit.keyring.index_key_versions()}
    await unit.rows(select(func.pg_advisory_xact_lock(int.from_bytes(next(iter(versions))[:8], "big", signed=True))))
    statement = select(Outcome.key, Outcome.fingerprint, Outcome.result).where(
        *_mine(unit), Outcome.key.in_(versions), Outcome.created_at > unit.now - KEPT
    )
    rows = await unit.rows(statement)
    if not rows:
        return None
    if rows[0].fingerprint != _fingerprint(unit, request, versions[rows[0].key]):
        raise IdempotencyKeyReused
    return rows[0].result


async def keep(unit: Unit, key: str, request: bytes, result: Any) -> None:
    """Remember the result for 24 hours and forget the principal's older ones."""
    await unit.run(delete(Outcome).where(*_mine(unit), Outcome.created_at <= unit.now - KEPT))
    row = {
        "tenant_id": unit.tenant.id,
        "principal": unit.viewer.principal,
        "key": _hashed(unit, key),
        "fingerprint": _fingerprint(unit, request),
        "result": result,
        "created_at": unit.now,
    }
    await unit.run(insert(Outcome), [row])


def _mine(unit: Unit) -> tuple[Any, Any]:
    return Outcome.tenant_id == unit.tenant.id, Outcome.principal == unit.viewer.principal


def _hashed(unit: Unit, key: str, version: int | None = None) -> bytes:
    return unit.keyring.authenticate("idempotency key", f"{unit.viewer.principal}:{key}".encode(), version)


def _fingerprint(unit: Unit, request: bytes, version: int | None = None) -> bytes:
    return unit.keyring.authenticate("idempotent request", request, version)
