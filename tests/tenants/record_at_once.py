"""A process of its own that adds audit entries of one tenant in many transactions at once, which end in any order."""

import asyncio
import json
import random
import sys
from datetime import UTC, datetime
from typing import cast
from uuid import UUID

from sqlalchemy import Table, insert

from tenants.audit.entries import AuditEntry, Entry
from tenants.database import Database

AT_ONCE = 4
_entries = cast(Table, AuditEntry.__table__)


async def main(url: str, tenant: UUID, count: int) -> None:
    database = Database(url, pool_size=AT_ONCE)
    left = [count]
    await asyncio.gather(*(_record(database, tenant, left) for _ in range(AT_ONCE)))
    await database.close()


async def _record(database: Database, tenant: UUID, left: list[int]) -> None:
    """Transactions of a few statements each, so that those of others begin and end in between."""
    while left[0] > 0:
        size = min(left[0], random.randint(1, 12))  # noqa: S311
        left[0] -= size
        async with database.connection() as connection:
            for _ in range(size):
                entry = Entry(tenant=tenant, at=datetime.now(UTC), actor=None, action="thing.done")
                await connection.execute(insert(_entries), [entry.row()])


if __name__ == "__main__":
    order = json.loads(sys.argv[1])
    asyncio.run(main(order[0], UUID(order[1]), order[2]))
