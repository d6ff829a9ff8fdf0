"""The table of a tenant's wrapped data keys, and how a keyring is opened from it."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, Integer, LargeBinary, Text, UniqueConstraint, select, text
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped

from crypto.keyring import Keyring
from crypto.keys import Purpose, WrappedKey, unlock, wrapping_context
from crypto.transit import TransitKeys
from tenants.owned import Backup, TenantOwned, clear


class DataKeyRow(TenantOwned, backup=Backup.NEVER, rights="SELECT INSERT"):
    """One data key, wrapped by the tenant's Transit key. At most one per purpose is active: the one that seals."""

    __tablename__ = "data_keys"
    __table_args__ = (
        UniqueConstraint("tenant_id", "purpose", "version"),
        Index("uq_data_keys_active", "tenant_id", "purpose", unique=True, postgresql_where=text("state = 'ACTIVE'")),
        CheckConstraint("purpose IN ('DEK', 'BIK', 'AUD')", name="purpose"),
        CheckConstraint("state IN ('ACTIVE', 'DECRYPT_ONLY')", name="state"),
        CheckConstraint("wrapped LIKE 'vault:v%'", name="wrapped"),
    )

    id: Mapped[UUID] = clear("made at random", primary_key=True)
    purpose: Mapped[str] = clear("which work the key does", Text)
    version: Mapped[int] = clear("stands in the header of every value it sealed", Integer)
    wrapped: Mapped[str] = clear("ciphertext of the key store", Text)
    check_value: Mapped[bytes] = clear("tells right from wrong, nothing else", LargeBinary)
    state: Mapped[str] = clear("whether it seals or only opens", Text)
    created_at: Mapped[datetime] = clear("age decides on rotation", TIMESTAMP(timezone=True))


async def find_wrapped(session: AsyncSession, tenant: UUID) -> list[WrappedKey]:
    """All data keys of the tenant that the transaction is scoped to."""
    rows = await session.scalars(select(DataKeyRow).where(DataKeyRow.tenant_id == tenant))
    return [
        WrappedKey(r.tenant_id, r.id, Purpose(r.purpose), r.version, r.wrapped, r.check_value, r.state == "ACTIVE")
        for r in rows
    ]


async def open_keyring(keys: TransitKeys, tenant: UUID, epoch: int, wrapped: list[WrappedKey]) -> Keyring:
    """Unwrap all keys in one call. Raises `KeyUnavailable`, or `KeyRefused` if one is not what was checked in."""
    secrets = await keys.unwrap(tenant, [(k.wrapped, wrapping_context(tenant, k.id, k.purpose)) for k in wrapped])
    return Keyring(tenant, epoch, [unlock(key, secret) for key, secret in zip(wrapped, secrets, strict=True)])
