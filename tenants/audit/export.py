"""The linked entries of a tenant as JSON-ready objects, in the order of the chain, each with its seq and mac."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, select

from tenants.audit.entries import CONTENT, AuditEntry
from tenants.audit.tables import AuditLink
from tenants.database import Read

_PAGE = 1000


async def exported(
    tenant: UUID, read: Read, since: datetime | None = None, until: datetime | None = None
) -> AsyncIterator[dict[str, Any]]:
    """Those that happened from `since` on and before `until`; a page at a time."""
    same = (AuditEntry.tenant_id == AuditLink.tenant_id) & (AuditEntry.id == AuditLink.entry_id)
    statement = select(AuditLink.seq, AuditLink.day, AuditLink.mac, *CONTENT).join(AuditEntry, same)
    statement = statement.where(AuditLink.tenant_id == tenant).order_by(AuditLink.seq).limit(_PAGE)
    if since is not None:
        statement = statement.where(AuditEntry.at >= since)
    if until is not None:
        statement = statement.where(AuditEntry.at < until)
    after = 0
    while rows := await read(statement.where(AuditLink.seq > after)):
        for row in rows:
            yield _line(row)
        after = rows[-1].seq


def _line(row: Row[Any]) -> dict[str, Any]:
    return {
        "seq": row.seq,
        "mac": row.mac.hex(),
        "day": row.day.isoformat(),
        "id": str(row.id),
        "at": row.at.isoformat(),
        "actor": None if row.actor is None else str(row.actor),
        "action": row.action,
        "subjectType": row.subject_type,
        "subjects": [str(subject) for subject in row.subjects],
        "fields": list(row.fields),
        "outcome": row.outcome,
        "details": row.details,
        "purpose": row.purpose,
        "requestId": row.request_id,
    }
