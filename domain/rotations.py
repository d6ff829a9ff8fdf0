"""Rotations as people see them, the keys they turn over, and which key is due by its age or its use.

How far a rotation is, and what it has left, is in `tenants.keys.rotating` and in jobs/rotations.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from uuid import UUID

from sqlalchemy import ColumnElement, func, select

from crypto.keys import KeyState, Purpose
from crypto.transit import wrapped_version
from domain import step_ups, usage
from domain.errors import CoverageTooLarge, Refused, UserError
from domain.indexes import INDEXES
from domain.paging import Page, Window, cut, windowed
from tenants.audit.entries import AuditEntry
from tenants.audit.tables import AuditHead, AuditLink
from tenants.jobs import JobKind, NoArguments, Priority
from tenants.keys import DataKeyRow, proving, rotating, token_tables
from tenants.keys.proving import Coverage
from tenants.keys.rotations import Cause, KeyPurpose, Rotation
from tenants.unit import Unit

# How old a key gets before the night's work turns it over.
AGES: Mapping[KeyPurpose, timedelta] = MappingProxyType(
    {
        KeyPurpose.KEK: timedelta(days=90),
        KeyPurpose.DEK: timedelta(days=365),
        KeyPurpose.BIK: timedelta(days=730),
    }
)
# How many acts a data key may see. Each stands in the audit log and seals at most 16 values of one person, so that no
# key derived from it seals more than 2**32: NIST SP 800-38D, 8.3, for random nonces.
MOST_ACTS = 2**28
STUCK_AFTER = timedelta(days=2)  # in one state
PAUSE = timedelta(hours=1)  # between two rotations of a key that people ask for
MOST_COVERED = 200_000  # customers whose values a request may count
TURN_KEYS = JobKind(
    "turn_keys", NoArguments, "Begin to turn over a key that is due, and destroy those nothing needs.", Priority.IDLE
)


@dataclass(frozen=True, slots=True)
class KeyView:
    """A data key without any bytes of it. `kek_version` is the key store's it is wrapped by; None once destroyed."""

    id: UUID
    purpose: Purpose
    version: int
    state: KeyState
    kek_version: int | None
    created_at: datetime
    changed_at: datetime | None


async def keys(unit: Unit) -> list[KeyView]:
    """All data keys, by purpose and version."""
    mine = select(DataKeyRow).where(DataKeyRow.tenant_id == unit.tenant.id)
    rows = await unit.scalars(mine.order_by(DataKeyRow.purpose, DataKeyRow.version))
    return [_key(row) for row in rows]


async def keys_by_id(unit: Unit, ids: Sequence[UUID]) -> dict[UUID, KeyView]:
    mine = select(DataKeyRow).where(DataKeyRow.tenant_id == unit.tenant.id, DataKeyRow.id.in_(set(ids)))
    return {row.id: _key(row) for row in await unit.scalars(mine)}


async def page(unit: Unit, window: Window, *, purpose: KeyPurpose | None = None) -> Page[Rotation]:
    """Ordered by `started_at` and id, newest first."""
    statement = select(Rotation).where(*_mine(unit, purpose))
    rows = await unit.scalars(windowed(statement, (Rotation.started_at, Rotation.id), window, descending=True))
    return Page(*cut(rows, window))


async def count(unit: Unit, *, purpose: KeyPurpose | None = None) -> int:
    return int((await unit.scalars(select(func.count()).where(*_mine(unit, purpose))))[0])


async def get_many(unit: Unit, ids: Sequence[UUID]) -> dict[UUID, Rotation]:
    rows = await unit.scalars(select(Rotation).where(*_mine(unit, None), Rotation.id.in_(set(ids))))
    return {row.id: row for row in rows}


async def coverage(unit: Unit) -> list[Coverage]:
    """How much is sealed, or indexed, under which version of its key. Raises `CoverageTooLarge` if that takes long."""
    size = await usage.size(unit)
    if size is None or size.customers > MOST_COVERED:
        raise CoverageTooLarge
    return [*await proving.count_versions(unit), *await indexed(unit)]


async def indexed(unit: Unit) -> list[Coverage]:
    """How many tokens of the search index were made by which version of the index key; places are table.token."""
    return [
        Coverage(f"{index.tokens.__tablename__}.token", version, rows)
        for index in INDEXES
        for version, rows in await token_tables.count_versions(unit, index)
    ]


async def every_open(unit: Unit) -> list[Rotation]:
    return list(await unit.scalars(select(Rotation).where(*_mine(unit, None), Rotation.ended_at.is_(None))))


async def ask(unit: Unit, purpose: KeyPurpose) -> Rotation:
    """The rotation that is open, or a new one. Raises `Refused`: STEP_UP_REQUIRED, KEY_ROTATED_LATELY."""
    await step_ups.require(unit)
    await require_pause(unit, purpose)
    return await rotating.find(unit, await rotating.begin(unit, purpose, Cause.ASKED))


async def require_pause(unit: Unit, purpose: KeyPurpose) -> None:
    """Raises `Refused`, KEY_ROTATED_LATELY, where the last rotation of that purpose has hardly ended."""
    ended = (Rotation.ended_at > unit.now - PAUSE, Rotation.state != rotating.ABANDONED)
    if await rotating.find_open(unit, purpose) is None and await unit.scalars(
        select(Rotation.id).where(*_mine(unit, purpose), *ended).limit(1)
    ):
        raise Refused([UserError("KEY_ROTATED_LATELY", ("purpose",), "It was turned over within the last hour.")])


async def turn_due(unit: Unit) -> UUID | None:
    """Begin to turn over one key that is due, unless one is being turned over that moves; else take up what stands.

    One that was parked or cancelled is taken up again: a key that is half turned over is no state to stay in. It may
    stand still for long, as without a store, so it keeps no key of another purpose from being turned over.
    """
    running = await every_open(unit)
    standing = [each for each in running if not await rotating.is_led(unit, each)]
    taken_up = [await rotating.begin(unit, KeyPurpose(each.purpose), Cause(each.cause)) for each in standing]
    if any(each not in standing and not is_stuck(each, unit.now) for each in running):
        return next(iter(taken_up), None)
    if due := await find_due(unit, skipping=[KeyPurpose(each.purpose) for each in running]):
        return await rotating.begin(unit, *due)
    return next(iter(taken_up), None)


def is_stuck(rotation: Rotation, now: datetime) -> bool:
    """Whether its state has been the same for long; sealing much anew may take that long as well."""
    return now - rotation.moved_at >= STUCK_AFTER


async def find_due(unit: Unit, skipping: Collection[KeyPurpose] = ()) -> tuple[KeyPurpose, Cause] | None:
    """The first that is, in the order of their ages."""
    for purpose, age in AGES.items():
        if purpose in skipping:
            continue
        since = await _in_force_since(unit, purpose)
        if since is not None and unit.now - since >= age:
            return purpose, Cause.AGE
        if purpose is KeyPurpose.DEK and since is not None and await acts_since(unit, since) >= MOST_ACTS:
            return purpose, Cause.USE
    return None


async def acts_since(unit: Unit, since: datetime) -> int:
    """How many entries of the audit log were linked since about that moment: its chain counts them."""
    first = (
        select(AuditLink.seq)
        .join(AuditEntry, (AuditEntry.tenant_id == AuditLink.tenant_id) & (AuditEntry.id == AuditLink.entry_id))
        .where(AuditEntry.tenant_id == unit.tenant.id, AuditEntry.at >= since)
        .order_by(AuditEntry.at, AuditEntry.id)
        .limit(1)
    )
    last = await unit.scalars(select(AuditHead.seq).where(AuditHead.tenant_id == unit.tenant.id))
    linked = await unit.scalars(first)
    return int(last[0] - linked[0] + 1) if last and linked else 0


async def _in_force_since(unit: Unit, purpose: KeyPurpose) -> datetime | None:
    mine = DataKeyRow.tenant_id == unit.tenant.id
    if purpose is not KeyPurpose.KEK:
        active = (mine, DataKeyRow.purpose == purpose.value, DataKeyRow.state == KeyState.ACTIVE.value)
        moments = await unit.scalars(select(func.coalesce(DataKeyRow.changed_at, DataKeyRow.created_at)).where(*active))
        return next(iter(moments), None)
    turned = select(func.max(Rotation.started_at)).where(*_mine(unit, purpose), Rotation.state == "RAISED")
    made = select(func.min(DataKeyRow.created_at)).where(mine)
    found = await unit.scalars(select(func.coalesce(turned.scalar_subquery(), made.scalar_subquery())))
    return next(iter(found), None)


def _mine(unit: Unit, purpose: KeyPurpose | None) -> list[ColumnElement[bool]]:
    mine = [Rotation.tenant_id == unit.tenant.id]
    return mine if purpose is None else [*mine, Rotation.purpose == purpose.value]


def _key(row: DataKeyRow) -> KeyView:
    wrapped_by = wrapped_version(row.wrapped) if row.wrapped else None
    purpose, state = Purpose(row.purpose), KeyState(row.state)
    return KeyView(row.id, purpose, row.version, state, wrapped_by, row.created_at, row.changed_at)
