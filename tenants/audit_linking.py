"""Links the entries of one tenant to its audit chain, each exactly once and none left out.

Transactions commit in another order than they began, so neither ids nor times tell which entries are all there. Each
entry bears the id of the transaction that wrote it (`xid`). A pass takes, in the order (xid, id), what lies in
``[head.xid, horizon)`` and has no link yet, where the horizon is the oldest transaction that still runs as the taking
statement's own snapshot sees it (https://www.postgresql.org/docs/current/functions-info.html, pg_snapshot_xmin).

Why none is left out: whatever began before the horizon has ended, and if it committed, the snapshot sees it; whatever
begins later has a higher xid. So once a pass has taken all below the horizon, nothing can appear there any more, and
the head may move up to it. A pass that met its limit moves the head to its last entry's xid only, and the anti-join
keeps those already linked from being linked again. Hence the chain's order is (xid, id), for ever.

Why none is linked twice: passes of a tenant follow one another by the lock on its head, which is taken in a statement
of its own: the next statement's snapshot (READ COMMITTED) sees all that the holder before us has committed.

Transaction ids start anew in a cluster that a dump was restored into. A head beyond the present horizon says so, and
the pass starts from 0. Entries of the old cluster that had no link yet may lie beyond all ids of the new one; no
snapshot sees a live transaction's row there, so they are complete and are taken as well.

A writing transaction that stays open, in whatever database of the cluster, holds the horizon back and delays linking.
"""

from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, cast
from uuid import UUID

from sqlalchemy import BigInteger, Row, Table, bindparam, func, select, text
from sqlalchemy.dialects.postgresql import insert

from crypto import chain
from crypto.values import Secret
from tenants.audits import DISCLOSED, DisclosureCounter, content
from tenants.chains import AuditHead, AuditLink, ChainKey
from tenants.database import Database
from tenants.errors import ChainBroken
from tenants.unit import Unit
from tenants.viewers import TenantId

MOST = 1000  # entries of one pass, and so of one transaction
_COLUMNS = "id, xid, at, actor, action, subject_type, subjects, fields, outcome, details, purpose, request_id"
_HORIZON = "pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
_NEXT = "pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
_TAKE = text(
    f"""
    SELECT {_COLUMNS}, {_HORIZON} AS horizon FROM audit_entries e
    WHERE e.tenant_id = :tenant
    AND e.xid >= CASE WHEN :since > {_HORIZON} THEN 0 ELSE :since END
    AND (e.xid < {_HORIZON} OR e.xid >= {_NEXT})
    AND NOT EXISTS (SELECT FROM audit_links l WHERE l.tenant_id = e.tenant_id AND l.entry_id = e.id)
    ORDER BY e.xid, e.id LIMIT :most
    """  # noqa: S608  # names of our own columns
).columns(*(getattr(content.table.c, name) for name in _COLUMNS.split(", ")))
_FEED = text(
    f"""
    SELECT tenant_id, min(xid) < {_HORIZON} AS is_ready, {_HORIZON} AS horizon
    FROM audit_entries WHERE xid >= :since GROUP BY tenant_id
    UNION ALL SELECT NULL, NULL, {_HORIZON}
    """  # noqa: S608
).bindparams(bindparam("since", type_=BigInteger))
