"""Links the entries of one tenant to its audit chain, each exactly once and none left out.

Transactions commit in another order than they began, so neither ids nor times tell which entries are all there. Each
entry bears the id of the transaction that wrote it (`xid`). A pass takes, in the order (xid, id), what lies in
``[head.xid, horizon)`` and has no link yet, where the horizon is the oldest transaction that still runs as the taking
statement's own snapshot sees it (https://www.postgresql.org/docs/current/functions-info.html, pg_snapshot_xmin).

Why none is left out: whatever began before the horizon has ended, and if it committed, the snapshot sees it; whatever
begins later has a higher xid. So once a pass has taken all below the horizon, nothing can appear there any more, and
the head may move up to it. A pass that met its limit moves the head to its last entry's xid only, and the next one
begins behind that entry; what is linked is besides never taken again. Hence the chain's order is (xid, id), for ever.

Why none is linked twice: passes of a tenant follow one another by the lock on its head, which is taken in a statement
of its own: the next statement's snapshot (READ COMMITTED) sees all that the holder before us has committed.

Transaction ids start anew in a cluster that a dump was restored into. A head beyond the present horizon says so, and
the pass starts from 0. Entries of the old cluster that had no link yet may lie beyond all ids of the new one; no
snapshot sees a live transaction's row there, so they are complete and are taken as well.

A writing transaction that stays open, in whatever database of the cluster, holds the horizon back and delays linking.
"""

from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Date,
    LargeBinary,
    Row,
    Uuid,
    bindparam,
    case,
    func,
    literal_column,
    select,
    text,
    true,
    tuple_,
)
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.orm import aliased

from crypto import chain
from crypto.values import Secret
from tenants.audit.entries import CONTENT, DISCLOSED, REVEALED, AuditEntry, DisclosureCounter, content_of
from tenants.audit.tables import AuditHead, AuditLink, ChainKey
from tenants.database import Database
from tenants.errors import ChainBroken
from tenants.unit import Unit
from tenants.viewers import TenantId

MOST = 1000  # entries of one pass, and so of one transaction
HORIZON = literal_column("pg_snapshot_xmin(pg_current_snapshot())::text::bigint", BigInteger)
_UNBORN = literal_column("pg_snapshot_xmax(pg_current_snapshot())::text::bigint", BigInteger)
_NO_ID = bindparam(None, UUID(int=0), Uuid)  # before all ids
_ADD = text(
    """
    INSERT INTO audit_links (tenant_id, seq, entry_id, day, mac)
    SELECT :tenant, l.seq, l.entry_id, :day, l.mac
    FROM unnest(CAST(:seqs AS bigint[]), CAST(:entries AS uuid[]), CAST(:macs AS bytea[])) AS l (seq, entry_id, mac)
    """
).bindparams(
    bindparam("tenant", type_=Uuid),
    bindparam("day", type_=Date),
    bindparam("seqs", type_=ARRAY(BigInteger)),
    bindparam("entries", type_=ARRAY(Uuid)),
    bindparam("macs", type_=ARRAY(LargeBinary)),
)


@dataclass(frozen=True, slots=True)
class Linked:
    """What one pass did. `oldest` is when the oldest of its entries happened; `is_full` says that more may wait."""

    count: int = 0
    is_full: bool = False
    oldest: datetime | None = None


class NoHead(Exception):  # steers the caller; never leaves tenants
    """There is something to link and no chain yet: it begins with the first day's key."""


class DayTurned(Exception):  # likewise
    """The head still holds the key of a day that has passed."""


async def link(unit: Unit, *, first_key: bytes | None = None, turns: bool = False, most: int = MOST) -> Linked:
    """One pass, in the transaction of `unit`.

    Raises `NoHead` unless there is a chain or a `first_key`; `DayTurned` where the day's key must give way to the next
    and `turns` is not set, so that a checkpoint may come first; `ChainBroken` where links have lost their head.
    """
    head = await _locked_head(unit)
    if head is None:
        if not await _take(unit, 0, 0, 1):
            return Linked()
        if first_key is None:
            raise NoHead
        head = await _begun(unit, first_key)
    key = await _key_of_today(unit, head, turns=turns)
    rows = await _take(unit, head.xid, head.seq, most)
    if rows:
        await _append(unit, head, key, rows)
        head.xid = rows[-1].horizon if len(rows) < most else min(rows[-1].xid, rows[-1].horizon)
        await _count_disclosures(unit, rows)
    await unit.flush()
    return Linked(len(rows), len(rows) == most, min((row.at for row in rows), default=None))


async def newcomers(platform: Database, since: int) -> tuple[dict[TenantId, bool], int]:
    """The tenants with entries from this xid on, each with whether some are below the horizon; and the horizon."""
    told = (
        select(AuditEntry.tenant_id, (func.min(AuditEntry.xid) < HORIZON).label("is_ready"))
        .where(AuditEntry.xid >= since)
        .group_by(AuditEntry.tenant_id)
        .subquery()
    )
    snapshot = select(HORIZON.label("horizon")).subquery()
    statement = select(told, snapshot.c.horizon).select_from(snapshot.outerjoin(told, true()))
    async with platform.connection() as connection:
        rows = (await connection.execute(statement)).all()
    return {TenantId(row.tenant_id): row.is_ready for row in rows if row.tenant_id is not None}, rows[0].horizon


async def _locked_head(unit: Unit) -> AuditHead | None:
    found = await unit.scalars(select(AuditHead).where(AuditHead.tenant_id == unit.tenant.id).with_for_update())
    return next(iter(found), None)


async def _begun(unit: Unit, first_key: bytes) -> AuditHead:
    """The head that whoever came first made."""
    await unit.rows(select(func.pg_advisory_xact_lock(func.hashtextextended(f"audit {unit.tenant.id}", 0))))
    if head := await _locked_head(unit):
        return head
    if await unit.scalars(select(AuditLink.seq).where(AuditLink.tenant_id == unit.tenant.id).limit(1)):
        raise ChainBroken
    await unit.load_subjects([unit.tenant.id])
    today = _today(unit)
    head = AuditHead(tenant_id=unit.tenant.id, id=unit.tenant.id, seq=0, mac=chain.START, xid=0)
    head.first_day, head.day, head.key = today, today, _kept(first_key)
    unit.add(head)
    await unit.flush()
    return head


async def _key_of_today(unit: Unit, head: AuditHead, *, turns: bool) -> bytes:
    """A day never turns back: where clocks differ around midnight, the later one counts."""
    await unit.load_subjects([unit.tenant.id])
    key = b64decode(unit.open_row(head, "key", "to link the audit log").key)
    days = (_today(unit) - head.day).days
    if days <= 0:
        return key
    if not turns:
        raise DayTurned
    key = chain.key_after(key, days)
    head.day, head.key = _today(unit), _kept(key)
    return key


def _kept(key: bytes) -> Secret[ChainKey]:
    return Secret(ChainKey(key=b64encode(key).decode()))


def _today(unit: Unit) -> date:
    return unit.now.astimezone(UTC).date()


async def _take(unit: Unit, since: int, last: int, most: int) -> Sequence[Row[Any]]:
    """What comes after the link `last`, in order; `since` is the head's xid."""
    tenant = unit.tenant.id
    # A scalar, so that the planner probes the index for each entry and never reads the whole chain to join it.
    link = select(AuditLink.seq).where(AuditLink.tenant_id == tenant, AuditLink.entry_id == AuditEntry.id)
    is_unlinked = link.correlate(AuditEntry).limit(1).scalar_subquery().is_(None)
    # A CASE, since an OR would be looked up as two ranges that together are the whole log.
    is_complete = case((AuditEntry.xid < HORIZON, true()), else_=AuditEntry.xid >= _UNBORN)
    done = aliased(AuditEntry)
    within = select(done.id).join(AuditLink, (AuditLink.tenant_id == done.tenant_id) & (AuditLink.entry_id == done.id))
    within = within.where(AuditLink.tenant_id == tenant, AuditLink.seq == last, done.xid == since)
    start = case((since > HORIZON, 0), else_=since)  # see above: another cluster's ids
    statement = (
        select(*CONTENT, AuditEntry.xid, HORIZON.label("horizon"))
        .where(AuditEntry.tenant_id == tenant, is_complete, is_unlinked)
        .where(tuple_(AuditEntry.xid, AuditEntry.id) > tuple_(start, func.coalesce(within.scalar_subquery(), _NO_ID)))
        .order_by(AuditEntry.xid, AuditEntry.id)
        .limit(most)
    )
    return await unit.rows(statement)


async def _append(unit: Unit, head: AuditHead, key: bytes, rows: Sequence[Row[Any]]) -> None:
    macs = []
    for seq, row in enumerate(rows, head.seq + 1):
        head.mac = chain.link_mac(key, unit.tenant.id, seq, head.day, head.mac, chain.entry_bytes(content_of(row)))
        macs.append(head.mac)
    seqs = list(range(head.seq + 1, head.seq + 1 + len(rows)))
    head.seq += len(rows)
    entries = [row.id for row in rows]
    await unit.run(_ADD.bindparams(tenant=unit.tenant.id, day=head.day, seqs=seqs, entries=entries, macs=macs))


async def _count_disclosures(unit: Unit, rows: Sequence[Row[Any]]) -> None:
    """What left, per viewer and hour; counted with the link, so each disclosure counts once."""
    sums: dict[tuple[UUID, datetime], list[int]] = {}
    for row in rows:
        if row.action in (DISCLOSED, REVEALED) and row.actor is not None:
            hour = row.at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
            counts = sums.setdefault((row.actor, hour), [0, 0, 0])
            for n, name in enumerate(_COUNTED):
                counts[n] += _number(row.details, name)
    if sums:
        # In order, so that nobody waits crosswise.
        values = [
            {"tenant_id": unit.tenant.id, "viewer": viewer, "hour": hour, **dict(zip(_COUNTED, counts, strict=True))}
            for (viewer, hour), counts in sorted(sums.items())
        ]
        fresh = insert(DisclosureCounter).values(values)
        added = {name: getattr(DisclosureCounter, name) + fresh.excluded[name] for name in _COUNTED}
        await unit.run(fresh.on_conflict_do_update(index_elements=["tenant_id", "viewer", "hour"], set_=added))


_COUNTED = ("records", "plain", "masked")


def _number(details: Mapping[str, Any], name: str) -> int:
    found = details.get(name)
    return found if isinstance(found, int) else 0
