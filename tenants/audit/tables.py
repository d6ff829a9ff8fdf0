"""The tables of the audit chain: one link per entry, the head that moves on, and signed checkpoints."""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Date, Integer, LargeBinary, Text, UniqueConstraint
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.orm import Mapped

from tenants.access import Sensitivity
from tenants.documents import Document, Mask, personal
from tenants.owned import Backup, TenantOwned, clear, sealed


class ChainKey(Document):
    """The key of the chain's present day, base64 of 32 bytes. Sealed like a value, and never shown."""

    is_of_people = False

    key: str | None = personal(Sensitivity.FREE_TEXT, Mask.NOTHING)


class AuditLink(TenantOwned, backup=Backup.NEVER, rights="SELECT INSERT"):
    """`seq` counts from 1 without a gap; `mac` is 32 bytes over the link before, `seq` and the entry."""

    __tablename__ = "audit_links"
    __table_args__ = (
        UniqueConstraint("tenant_id", "entry_id"),
        CheckConstraint("octet_length(mac) = 32", name="mac"),
    )

    seq: Mapped[int] = clear("the link's place in the chain", BigInteger, primary_key=True, autoincrement=False)
    entry_id: Mapped[UUID] = clear("which entry it links")
    day: Mapped[date] = clear("which day's key made the mac", Date)
    mac: Mapped[bytes] = clear("keyed hash", LargeBinary)


class AuditHead(TenantOwned, backup=Backup.NEVER, rights="SELECT INSERT UPDATE"):
    """Where the chain stands. `xid` is the horizon up to which entries are linked; `first_day` is the day of key 0."""

    __tablename__ = "audit_heads"
    __table_args__ = (CheckConstraint("octet_length(mac) = 32", name="mac"),)

    id: Mapped[UUID] = clear("the tenant's id again; names the row to the seal", primary_key=True)
    seq: Mapped[int] = clear("links so far", BigInteger)
    mac: Mapped[bytes] = clear("of the last link", LargeBinary)
    xid: Mapped[int] = clear("the next horizon starts here", BigInteger)
    first_day: Mapped[date] = clear("when the chain began", Date)
    day: Mapped[date] = clear("whose key is sealed here", Date)
    key: Mapped[Any] = sealed(ChainKey, place="audit_heads.key", subject="tenant_id")


class AuditCheckpoint(TenantOwned, backup=Backup.NEVER, rights="SELECT INSERT"):
    """A signed statement of the chain's `seq` and `mac`; a copy of it lies in a second place."""

    __tablename__ = "audit_checkpoints"
    __table_args__ = (CheckConstraint("octet_length(mac) = 32", name="mac"),)

    seq: Mapped[int] = clear("how many links it vouches for", BigInteger, primary_key=True, autoincrement=False)
    mac: Mapped[bytes] = clear("of that link", LargeBinary)
    at: Mapped[datetime] = clear("when it was signed", TIMESTAMP(timezone=True))
    key_version: Mapped[int] = clear("which signing key", Integer)
    signature: Mapped[str] = clear("Ed25519, base64", Text)
