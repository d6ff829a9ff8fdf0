"""The table of a tenant's wrapped data keys, how a keyring is opened from it, and apart from it the audit key."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, Integer, LargeBinary, Text, UniqueConstraint, select, text
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped

from crypto.errors import KeyUnavailable
from crypto.keyring import Keyring
from crypto.keys import SERVING, KeyState, Purpose, WrappedKey, unlock, wrapping_context
from crypto.transit import TransitKeys
from tenants.database import Read
from tenants.owned import Backup, TenantOwned, clear


class DataKeyRow(TenantOwned, backup=Backup.NEVER, rights="SELECT INSERT UPDATE"):
    """One data key, wrapped by the tenant's Transit key. At most one per purpose is active, and one the next."""

    __tablename__ = "data_keys"
    __table_args__ = (
        UniqueConstraint("tenant_id", "purpose", "version"),
        Index("uq_data_keys_active", "tenant_id", "purpose", unique=True, postgresql_where=text("state = 'ACTIVE'")),
        CheckConstraint("purpose IN ('DEK', 'BIK', 'AUD')", name="purpose"),
        Index("uq_data_keys_next", "tenant_id", "purpose", unique=True, postgresql_where=text("state = 'NEXT'")),
        CheckConstraint("state IN ('NEXT', 'ACTIVE', 'DECRYPT_ONLY', 'RETIRED', 'DESTROYED')", name="state"),
        CheckConstraint("wrapped LIKE 'vault:v%' OR (state = 'DESTROYED' AND wrapped = '')", name="wrapped"),
    )

    id: Mapped[UUID] = clear("made at random", primary_key=True)
    purpose: Mapped[str] = clear("which work the key does", Text)
    version: Mapped[int] = clear("stands in the header of every value it sealed", Integer)
    wrapped: Mapped[str] = clear("ciphertext of the key store", Text)
    check_value: Mapped[bytes] = clear("tells right from wrong, nothing else", LargeBinary)
    state: Mapped[str] = clear("whether it seals or only opens", Text)
    created_at: Mapped[datetime] = clear("age decides on rotation", TIMESTAMP(timezone=True))
    changed_at: Mapped[datetime | None] = clear("when the state changed", TIMESTAMP(timezone=True), nullable=True)


_SERVING = (
    Purpose.DEK.value,
    Purpose.BIK.value,
)  # what a keyring holds: never the audit key, so no server can forge the past


async def find_wrapped(session: AsyncSession, tenant: UUID) -> list[WrappedKey]:
    """The data keys that serve the tenant that the transaction is scoped to."""
    mine = (DataKeyRow.tenant_id == tenant, DataKeyRow.purpose.in_(_SERVING), DataKeyRow.state.in_(SERVING))
    return [_wrapped(row) for row in await session.scalars(select(DataKeyRow).where(*mine))]


async def open_keyring(keys: TransitKeys, tenant: UUID, epoch: int, wrapped: list[WrappedKey]) -> Keyring:
    """Unwrap all keys in one call. Raises `KeyUnavailable`, or `KeyRefused` if one is not what was checked in."""
    secrets = await keys.unwrap(tenant, [(k.wrapped, wrapping_context(tenant, k.id, k.purpose)) for k in wrapped])
    return Keyring(tenant, epoch, [unlock(key, secret) for key, secret in zip(wrapped, secrets, strict=True)])


async def find_audit_key(read: Read, tenant: UUID) -> WrappedKey | None:
    """The key that the tenant's whole audit chain hangs on, still wrapped."""
    mine = (DataKeyRow.tenant_id == tenant, DataKeyRow.purpose == Purpose.AUD.value)
    rows = await read(select(DataKeyRow).where(*mine).order_by(DataKeyRow.version).limit(1))
    return _wrapped(rows[0][0]) if rows else None


async def open_audit_key(keys: TransitKeys, wrapped: WrappedKey | None) -> bytes:
    """Its 32 bytes, for two occasions: the chain's first link, and verifying it.

    Raises `KeyUnavailable`, or `KeyRefused` if it is not what was checked in.
    """
    if wrapped is None:
        raise KeyUnavailable
    context = wrapping_context(wrapped.tenant, wrapped.id, wrapped.purpose)
    (secret,) = await keys.unwrap(wrapped.tenant, [(wrapped.wrapped, context)])
    return unlock(wrapped, secret).secret


def _wrapped(row: DataKeyRow) -> WrappedKey:
    purpose, state = Purpose(row.purpose), KeyState(row.state)
    return WrappedKey(row.tenant_id, row.id, purpose, row.version, row.wrapped, row.check_value, state)
