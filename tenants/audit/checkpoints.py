"""Signed statements of how far a tenant's audit chain has come: in the database, and copied to a second place.

Who holds the database, and even the chain's key of today, can't take back what a checkpoint in the second place says.
"""

import asyncio
from base64 import b64decode, b64encode
from binascii import Error
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self
from uuid import UUID

import orjson
from sqlalchemy import Row, select
from sqlalchemy.dialects.postgresql import insert

from crypto import chain
from crypto.transit import TransitKeys
from tenants.audit.store import CheckpointStore
from tenants.audit.tables import AuditCheckpoint, AuditHead
from tenants.errors import StoreUnavailable
from tenants.events import Event, EventKind
from tenants.ids import new_id
from tenants.unit import Unit
from tenants.units import Units
from tenants.viewers import TenantId

MADE = EventKind(
    "audit.checkpoint", "AuditCheckpoint", "The audit chain was signed as far as it had come; the id holds the number."
)
SIGNER = "coffer-audit"  # the Transit key; deploy/vault names it too
PAUSE = timedelta(minutes=1)  # between two of one tenant
_MOST_OWED = 10_000
_AT_ONCE = 0.3  # seconds that whoever makes a checkpoint waits for its copy; linking may stand behind them
_PATIENCE = 12.0  # seconds for one copy that nobody waits for


@dataclass(frozen=True, slots=True)
class Checkpoint:
    tenant: UUID
    seq: int
    mac: bytes
    at: datetime
    key_version: int
    signature: bytes

    def dump(self) -> bytes:
        """JSON; mac in hex, signature in base64, the moment in RFC 3339."""
        return orjson.dumps(
            {
                "tenant": str(self.tenant),
                "seq": self.seq,
                "mac": self.mac.hex(),
                "at": self.at,
                "keyVersion": self.key_version,
                "signature": b64encode(self.signature).decode(),
            }
        )

    @classmethod
    def load(cls, raw: bytes) -> Self:
        """Raises `ValueError` for what no checkpoint looks like."""
        try:
            said = orjson.loads(raw)
            at, signature = datetime.fromisoformat(said["at"]), b64decode(said["signature"], validate=True)
            mac = bytes.fromhex(said["mac"])
            return cls(UUID(said["tenant"]), int(said["seq"]), mac, at, int(said["keyVersion"]), signature)
        except (LookupError, TypeError, AttributeError, Error) as cause:
            raise ValueError("not a checkpoint") from cause

    def is_signed(self, public_keys: dict[int, bytes]) -> bool:
        key = public_keys.get(self.key_version)
        if key is None or self.at.tzinfo is None or not 0 <= self.seq < 1 << 64:
            return False
        return chain.is_signed(key, self.signature, chain.statement(self.tenant, self.seq, self.mac, self.at))


class Checkpoints:
    """Makes checkpoints and carries them to the second place; what could not be carried is owed and tried again."""

    def __init__(self, units: Units, keys: TransitKeys, store: CheckpointStore) -> None:
        self._units = units
        self._keys = keys
        self._store = store
        self._owed: dict[tuple[UUID, int], Checkpoint] = {}
        self._is_prompt = True  # the second place: whether it took its last copy, and soon

    @property
    def owed(self) -> int:
        """Copies that the second place has not taken yet."""
        return len(self._owed)

    async def make(self, tenant: TenantId, *, at_once: bool = False) -> bool:
        """Vouch for the chain as it stands; False if the last checkpoint is younger than `PAUSE` and not `at_once`.

        Raises `KeyUnavailable`, `KeyRefused`. A second place that is away or slow is owed its copy, which somebody
        has to `settle`; it is not waited for again until that went well.
        """
        head, last, now = await self._read(tenant)
        if head is None:
            return True
        if last is None or last.seq < head.seq:
            if last is not None and now - last.at < PAUSE and not at_once:
                return False
            last = await self._write(tenant, await self._sign(tenant, head, now))
        self._owe(last)
        if self._is_prompt:
            await self._carry_at_once()
        return True

    async def settle(self) -> int:
        """Carry what is owed, oldest first; how many remain because the second place is away.

        One that neither takes nor refuses a copy for 12 seconds is away.
        """
        for key, owed in list(self._owed.items()):
            try:
                async with asyncio.timeout(_PATIENCE):
                    await self._store.put(owed.tenant, owed.seq, owed.dump())
            except (StoreUnavailable, TimeoutError):
                self._is_prompt = False
                return len(self._owed)
            self._owed.pop(key, None)
        self._is_prompt = True
        return 0

    async def _carry_at_once(self) -> None:
        try:
            async with asyncio.timeout(_AT_ONCE):
                await self.settle()
        except TimeoutError:
            self._is_prompt = False

    def _owe(self, checkpoint: Checkpoint) -> None:
        self._owed[checkpoint.tenant, checkpoint.seq] = checkpoint
        if len(self._owed) > _MOST_OWED:  # a newer one vouches for all that an older one did
            del self._owed[next(iter(self._owed))]

    async def _read(self, tenant: TenantId) -> tuple[Row[tuple[int, bytes]] | None, Checkpoint | None, datetime]:
        async with self._units.enter(tenant, None, write=False) as unit:
            head = select(AuditHead.seq, AuditHead.mac).where(AuditHead.tenant_id == tenant, AuditHead.seq > 0)
            return next(iter(await unit.rows(head)), None), await newest(unit), unit.now

    async def _sign(self, tenant: TenantId, head: Row[tuple[int, bytes]], now: datetime) -> Checkpoint:
        version, signature = await self._keys.sign(SIGNER, chain.statement(tenant, head.seq, head.mac, now))
        return Checkpoint(tenant, head.seq, head.mac, now, version, signature)

    async def _write(self, tenant: TenantId, made: Checkpoint) -> Checkpoint:
        """The one that is kept, where two processes vouch for the same link at once."""
        row = {
            "tenant_id": tenant,
            "seq": made.seq,
            "mac": made.mac,
            "at": made.at,
            "key_version": made.key_version,
            "signature": b64encode(made.signature).decode(),
        }
        async with self._units.enter(tenant, None, write=True, thaws=True) as unit:
            made_now = insert(AuditCheckpoint).values(row).on_conflict_do_nothing().returning(AuditCheckpoint.seq)
            if await unit.rows(made_now):
                unit.add(_told(unit, made.seq))
            kept = select(AuditCheckpoint).where(AuditCheckpoint.tenant_id == tenant, AuditCheckpoint.seq == made.seq)
            return of_row((await unit.scalars(kept))[0])


def _told(unit: Unit, seq: int) -> Event:
    """An event alone: an audit entry about it would be the next checkpoint's reason, for ever."""
    about = {"type": MADE.name, "version": MADE.version, "subject": UUID(int=seq), "fields": []}
    return Event(tenant_id=unit.tenant.id, id=new_id(), at=unit.now, **about)


async def newest(unit: Unit) -> Checkpoint | None:
    statement = select(AuditCheckpoint).where(AuditCheckpoint.tenant_id == unit.tenant.id)
    found = await unit.scalars(statement.order_by(AuditCheckpoint.seq.desc()).limit(1))
    return of_row(found[0]) if found else None


def of_row(row: AuditCheckpoint) -> Checkpoint:
    try:
        signature = b64decode(row.signature, validate=True)
    except Error:
        signature = b""  # then it is not signed
    return Checkpoint(row.tenant_id, row.seq, row.mac, row.at, row.key_version, signature)
