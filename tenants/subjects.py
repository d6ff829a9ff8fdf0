"""The table of subject secrets: 32 random bytes per person, without which that person's values never open again."""

import os
from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, LargeBinary
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.orm import Mapped

from crypto.keys import KEY_BYTES
from tenants.owned import Backup, TenantOwned, clear


class Subject(TenantOwned, backup=Backup.NEVER, rights="SELECT INSERT DELETE"):
    __tablename__ = "subjects"
    __table_args__ = (CheckConstraint(f"octet_length(secret) = {KEY_BYTES}", name="secret"),)

    id: Mapped[UUID] = clear("the customer's, member's or tenant's own id", primary_key=True)
    secret: Mapped[bytes] = clear("random; a key only together with the tenant's data key", LargeBinary)
    created_at: Mapped[datetime] = clear("when the subject came", TIMESTAMP(timezone=True))


def fresh_secret() -> bytes:
    return os.urandom(KEY_BYTES)
