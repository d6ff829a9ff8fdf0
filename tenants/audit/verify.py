"""Recomputes a tenant's audit chain from its audit key and names the first place where it is not as it was made.

What is read is one snapshot; links and entries stream through in the order of their seq, a page at a time. A break is
one of five, and has the seq where it shows first:

- EDIT: the link at seq and its entry do not fit its mac, and no other link or entry fits there; or a checkpoint of
  that seq does not fit its signature.
- GAP: there is no link at seq while later ones exist; or the link's entry is gone; or an entry below the head's horizon
  has no link: it was put in later, or its link was taken out. Its seq is then the place it would have in the order of
  the chain, (xid, id).
- REORDER: at seq stands something else, but what fits there, link or entry, stands at a later seq.
- FORK: a seq or an entry is linked twice; or the chain goes on behind its head, or its last mac is not the head's;
  or the chain fits in itself and contradicts a checkpoint that is signed, so it was made anew from before that seq.
- TRUNCATED: the chain ends before the seq that its head or a signed checkpoint says, or has lost its head; the seq is
  the first that is missing.

Of several breaks the lowest seq is told; at the same seq FORK before REORDER, TRUNCATED, GAP and EDIT.

In a cluster that a dump was restored into, transaction ids start anew: until the first pass of linking there, the head
lies beyond the horizon and entries without a link say nothing.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Text, Uuid, cast, exists, func, select, tuple_

from crypto import chain
from crypto.transit import TransitKeys
from tenants.audit.checkpoints import SIGNER, Checkpoint, of_row
from tenants.audit.entries import CONTENT, AuditEntry, content_of
from tenants.audit.linking import HORIZON
from tenants.audit.store import CheckpointStore
from tenants.audit.tables import AuditCheckpoint, AuditHead, AuditLink
from tenants.database import Read
from tenants.errors import ChainTooLong, StoreUnavailable, VerificationRuns
from tenants.keys import find_audit_key, open_audit_key

_PAGE = 1000
_BEFORE_ALL = -(1 << 63)


class BreakKind(StrEnum):
    """In the order in which one hides the others at the same seq."""

    FORK = "FORK"
    REORDER = "REORDER"
    TRUNCATED = "TRUNCATED"
    GAP = "GAP"
    EDIT = "EDIT"


@dataclass(frozen=True, slots=True)
class Break:
    """`entry` is None where no entry can be named: a checkpoint's break, or a link gone with its entry."""

    seq: int
    entry: UUID | None
    kind: BreakKind

    @property
    def rank(self) -> tuple[int, int]:
        return self.seq, list(BreakKind).index(self.kind)


@dataclass(frozen=True, slots=True)
class Verdict:
    """`entries` fit from the first on; `checkpoints` and `copies` are well signed, in the database and in the second
    place; `copies` is None where that did not answer.
    """

    entries: int
    checkpoints: int
    copies: int | None
    broken: Break | None


class ChainVerifier:
    def __init__(self, keys: TransitKeys, store: CheckpointStore) -> None:
        self._keys = keys
        self._store = store
        self._running: set[UUID] = set()

    async def verify(self, tenant: UUID, read: Read, most: int | None = None) -> Verdict:
        """One at a time of a tenant, since it takes a processor.

        Raises `ChainTooLong` for more than `most` links, `VerificationRuns`, `KeyUnavailable`, `KeyRefused`.
        """
        if tenant in self._running:
            raise VerificationRuns
        self._running.add(tenant)
        try:
            return await self._verify(tenant, read, most)
        finally:
            self._running.discard(tenant)

    async def _verify(self, tenant: UUID, read: Read, most: int | None) -> Verdict:
        longest = (await read(select(func.max(AuditLink.seq)).where(AuditLink.tenant_id == tenant)))[0][0] or 0
        if most is not None and longest > most:
            raise ChainTooLong
        audit_key = await open_audit_key(self._keys, await find_audit_key(read, tenant))
        public = await self._keys.public_keys(SIGNER)
        scan = await _scanned(tenant, read, chain.first_key(audit_key, tenant))
        found = [each async for each in _structural(tenant, read, scan)]
        kept = _Vouchers(tenant, read, scan, public)
        async for batch in _kept_checkpoints(tenant, read):
            await kept.weigh(batch)
        copies = _Vouchers(tenant, read, scan, public)
        is_there = await self._weigh_copies(tenant, copies)
        found += [*kept.breaks, *copies.breaks]
        broken = min(found, key=lambda each: each.rank, default=None)
        return Verdict(scan.fitting, kept.signed, copies.signed if is_there else None, broken)

    async def _weigh_copies(self, tenant: UUID, copies: "_Vouchers") -> bool:
        try:
            async for batch in self._store.read(tenant):
                await copies.weigh([_parsed(name, content, tenant) for name, content in batch])
        except StoreUnavailable:
            return False
        return True


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the scan stopped fitting; `day` and `mac` are None where there is no link at all."""

    seq: int
    before: bytes
    day: date | None = None
    mac: bytes | None = None


class _Scan:
    """Takes the links in the order of their seq; after the first break it only looks for what belonged there."""

    def __init__(self, tenant: UUID, first_key: bytes, first_day: date, last_day: date) -> None:
        self.fitting = 0
        self.last = 0
        self.last_mac = chain.START
        self.broken: Break | None = None
        self._tenant = tenant
        self._keys = [first_key]
        self._first_day = first_day
        self._last_day = last_day
        self._place: _Place | None = None

    def take(self, row: Row[Any]) -> None:
        if self.broken is None:
            self._check(row)
        if self._place is not None and row.seq > self._place.seq and row.id is not None:
            self._search(row, self._place)
        self.last, self.last_mac = row.seq, row.mac

    def _check(self, row: Row[Any]) -> None:
        seq = self.fitting + 1
        if row.seq > seq:
            self.broken, self._place = Break(seq, None, BreakKind.GAP), _Place(seq, self.last_mac)
        elif row.seq < seq:
            self.broken = Break(row.seq, row.entry_id, BreakKind.FORK)
        elif row.id is None:
            self.broken = Break(seq, row.entry_id, BreakKind.GAP)
        elif self._fits(row, seq, row.day, self.last_mac, row.mac):
            self.fitting = seq
        else:
            self.broken = Break(seq, row.entry_id, BreakKind.EDIT)
            self._place = _Place(seq, self.last_mac, row.day, row.mac)

    def _search(self, row: Row[Any], place: _Place) -> None:
        """Is this the link, or the entry, that belongs to the place?"""
        is_link = self._fits(row, place.seq, row.day, place.before, row.mac)
        is_entry = place.day is not None and self._fits(row, place.seq, place.day, place.before, place.mac)
        if (is_link or is_entry) and self.broken is not None:
            self.broken = Break(place.seq, self.broken.entry or row.entry_id, BreakKind.REORDER)
            self._place = None

    def _fits(self, row: Row[Any], seq: int, day: date, before: bytes, mac: bytes | None) -> bool:
        key = self._key(day)
        if key is None:
            return False
        try:
            return chain.link_mac(key, self._tenant, seq, day, before, chain.entry_bytes(content_of(row))) == mac
        except (TypeError, ValueError, OverflowError):  # what no entry of ours ever held
            return False

    def _key(self, day: date) -> bytes | None:
        if not self._first_day <= day <= self._last_day:
            return None
        number = (day - self._first_day).days
        while len(self._keys) <= number:
            self._keys.append(chain.next_key(self._keys[-1]))
        return self._keys[number]


async def _scanned(tenant: UUID, read: Read, first_key: bytes) -> _Scan:
    days = [row.first_day for row in await read(select(AuditHead.first_day).where(AuditHead.tenant_id == tenant))]
    mine = select(AuditLink.day).where(AuditLink.tenant_id == tenant).order_by(AuditLink.seq).limit(1)
    days = days or [row.day for row in await read(mine)]
    today = datetime.now(UTC).date()
    last = (await read(select(func.max(AuditHead.day)).where(AuditHead.tenant_id == tenant)))[0][0] or today
    scan = _Scan(tenant, first_key, days[0] if days else today, max(last, today))
    async for rows in _pages(tenant, read):
        for row in rows:
            scan.take(row)
    return scan


async def _pages(tenant: UUID, read: Read) -> AsyncIterator[Sequence[Row[Any]]]:
    same = (AuditEntry.tenant_id == AuditLink.tenant_id) & (AuditEntry.id == AuditLink.entry_id)
    statement = (
        select(AuditLink.seq, AuditLink.entry_id, AuditLink.day, AuditLink.mac, *CONTENT)
        .outerjoin(AuditEntry, same)
        .where(AuditLink.tenant_id == tenant)
        .order_by(AuditLink.seq)
        .limit(_PAGE)
    )
    after = _BEFORE_ALL
    while rows := await read(statement.where(AuditLink.seq > after)):
        yield rows
        after = rows[-1].seq


async def _structural(tenant: UUID, read: Read, scan: _Scan) -> AsyncIterator[Break]:
    """What needs no mac to be seen, and the scan's own break."""
    if scan.broken is not None:
        yield scan.broken
    for twice in (_seqs_twice(tenant), _entries_twice(tenant)):
        for row in await read(twice):
            yield Break(row.seq, row.entry_id, BreakKind.FORK)
    head = next(iter(await read(select(*_HEAD).where(AuditHead.tenant_id == tenant))), None)
    if head is None:
        if scan.last:
            yield Break(scan.last + 1, None, BreakKind.TRUNCATED)
        return
    if scan.last > head.seq:
        yield Break(head.seq + 1, None, BreakKind.FORK)
    elif scan.last < head.seq:
        yield Break(scan.last + 1, None, BreakKind.TRUNCATED)
    elif scan.last_mac != head.mac:
        yield Break(head.seq, None, BreakKind.FORK)
    if head.xid <= head.horizon:
        async for each in _unlinked(tenant, read, head.xid):
            yield each


_HEAD = (AuditHead.seq, AuditHead.mac, AuditHead.xid, HORIZON.label("horizon"))


def _seqs_twice(tenant: UUID) -> Any:
    one = cast(func.min(cast(AuditLink.entry_id, Text)), Uuid)  # uuid has no min() before Postgres 18
    mine = select(AuditLink.seq, one.label("entry_id"))
    twice = mine.where(AuditLink.tenant_id == tenant).group_by(AuditLink.seq).having(func.count() > 1)
    return twice.order_by(AuditLink.seq).limit(1)


def _entries_twice(tenant: UUID) -> Any:
    """The second link of an entry: the first one may be right."""
    nth = func.row_number().over(partition_by=AuditLink.entry_id, order_by=AuditLink.seq).label("nth")
    numbered = select(AuditLink.seq, AuditLink.entry_id, nth).where(AuditLink.tenant_id == tenant).subquery()
    return select(numbered.c.seq, numbered.c.entry_id).where(numbered.c.nth > 1).order_by(numbered.c.seq).limit(1)


async def _unlinked(tenant: UUID, read: Read, horizon: int) -> AsyncIterator[Break]:
    linked = exists().where(AuditLink.tenant_id == AuditEntry.tenant_id, AuditLink.entry_id == AuditEntry.id)
    lost = select(AuditEntry.id, AuditEntry.xid).where(AuditEntry.tenant_id == tenant, AuditEntry.xid < horizon)
    for row in await read(lost.where(~linked).order_by(AuditEntry.xid, AuditEntry.id).limit(1)):
        same = (AuditEntry.tenant_id == AuditLink.tenant_id) & (AuditEntry.id == AuditLink.entry_id)
        earlier = tuple_(AuditEntry.xid, AuditEntry.id) < tuple_(row.xid, row.id)
        before = select(func.max(AuditLink.seq)).join(AuditEntry, same).where(AuditLink.tenant_id == tenant, earlier)
        yield Break(((await read(before))[0][0] or 0) + 1, row.id, BreakKind.GAP)


class _Vouchers:
    """Checkpoints of one place, held against the chain."""

    def __init__(self, tenant: UUID, read: Read, scan: _Scan, public: dict[int, bytes]) -> None:
        self.signed = 0
        self.breaks: list[Break] = []
        self._tenant = tenant
        self._read = read
        self._scan = scan
        self._public = public

    async def weigh(self, batch: Sequence[Checkpoint]) -> None:
        """Keeps the lowest break only, so that a hopeless place takes no memory."""
        signed = [each for each in batch if each.is_signed(self._public)]
        self.signed += len(signed)
        forged = [Break(each.seq, None, BreakKind.EDIT) for each in batch if not each.is_signed(self._public)]
        said = [*self.breaks, *forged, *self._held(signed, await self._macs(signed))]
        self.breaks = sorted(said, key=lambda each: each.rank)[:1]

    def _held(self, signed: Sequence[Checkpoint], macs: dict[int, bytes]) -> Iterator[Break]:
        end, broken = self._scan.last, self._scan.broken
        for each in signed:
            if each.seq > end:
                yield Break(max(end, 0) + 1, None, BreakKind.TRUNCATED)
            elif each.seq in macs and macs[each.seq] != each.mac and (broken is None or each.seq < broken.seq):
                yield Break(each.seq, None, BreakKind.FORK)

    async def _macs(self, signed: Sequence[Checkpoint]) -> dict[int, bytes]:
        seqs = [each.seq for each in signed if each.seq < 1 << 63]
        mine = select(AuditLink.seq, AuditLink.mac).where(AuditLink.tenant_id == self._tenant)
        return {row.seq: row.mac for row in await self._read(mine.where(AuditLink.seq.in_(seqs)))}


async def _kept_checkpoints(tenant: UUID, read: Read) -> AsyncIterator[list[Checkpoint]]:
    statement = select(AuditCheckpoint).where(AuditCheckpoint.tenant_id == tenant).order_by(AuditCheckpoint.seq)
    after = _BEFORE_ALL
    while rows := await read(statement.where(AuditCheckpoint.seq > after).limit(_PAGE)):
        yield [of_row(row[0]) for row in rows]
        after = rows[-1][0].seq


def _parsed(name: str, content: bytes, tenant: UUID) -> Checkpoint:
    """An object that is no checkpoint of its own name is one that nobody signed."""
    stem = PurePosixPath(name).stem
    seq = int(stem) if stem.isdecimal() else 0
    try:
        read = Checkpoint.load(content)
    except ValueError:
        read = None
    if read is None or (read.tenant, read.seq) != (tenant, seq):
        return Checkpoint(tenant, seq, b"", datetime.now(UTC), 0, b"")
    return read
