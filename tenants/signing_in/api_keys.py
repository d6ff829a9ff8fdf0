"""API keys: how a service signs in. The secret is shown once and kept as its SHA-256; it is 32 random bytes.

A key reads ``cof_``, the base64url of ``tenant 16 B | member 16 B | secret 32 B``, and six characters more: the
base64url of the CRC-32 of all before them. Scanners for leaked secrets tell a key by them, and a typing error costs no
look at the database.
"""

import base64
import hmac
import zlib
from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKeyConstraint, Index, LargeBinary, Text
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.orm import Mapped

from tenants.owned import Backup, TenantOwned, clear
from tenants.signing_in import bearer_tokens
from tenants.viewers import Credential, MemberId, TenantId

MARK = "cof_"
_CHECKSUM = 6  # characters


class ApiKey(TenantOwned, backup=Backup.NEVER, rights="SELECT INSERT UPDATE DELETE"):
    """`coffer_enter` reads it. Two keys of one service overlap while it is rotated."""

    __tablename__ = "api_keys"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "member_id"], ["members.tenant_id", "members.id"], ondelete="CASCADE"),
        Index("ix_api_keys_member", "tenant_id", "member_id"),
        CheckConstraint("octet_length(hash) = 32", name="hash"),
    )

    id: Mapped[UUID] = clear("made at random", primary_key=True)
    member_id: Mapped[UUID] = clear("which service it signs in")
    hash: Mapped[bytes] = clear("SHA-256 of 32 random bytes", LargeBinary)
    prefix: Mapped[str] = clear("tells keys apart in lists, and opens nothing", Text)
    created_at: Mapped[datetime] = clear("when it was made", TIMESTAMP(timezone=True))
    expires_at: Mapped[datetime | None] = clear(
        "it opens nothing from then on", TIMESTAMP(timezone=True), nullable=True
    )
    revoked_at: Mapped[datetime | None] = clear(
        "it opens nothing from then on", TIMESTAMP(timezone=True), nullable=True
    )
    last_used_at: Mapped[datetime | None] = clear("when it was last seen", TIMESTAMP(timezone=True), nullable=True)
    successor_id: Mapped[UUID | None] = clear("the key that it was last given by rotation", nullable=True)


def make(tenant: UUID, member: UUID) -> tuple[str, str, bytes]:
    """A new key; what lists show of it, its beginning and its end; and the SHA-256 of its secret."""
    body, digest = bearer_tokens.make(MARK, tenant, member)
    end = _checksum(body)
    return body + end, f"{MARK}…{end}", digest


def read(text: str) -> Credential | None:
    """None for whatever is not, to the letter, an API key; whether one opens anything, the database knows."""
    body, end = text[:-_CHECKSUM], text[-_CHECKSUM:]
    token = bearer_tokens.read(MARK, body, ids=2)
    if token is None or not hmac.compare_digest(_checksum(body), end):
        return None
    tenant, member = token.ids
    return Credential(TenantId(tenant), MemberId(member), key=token.hash)


def _checksum(body: str) -> str:
    return base64.urlsafe_b64encode(zlib.crc32(body.encode()).to_bytes(4)).decode().rstrip("=")
