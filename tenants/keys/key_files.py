"""The table of key files: which generation of a tenant's keys lies on the stores, and what a new one must hold.

A key file is written in three steps. It is claimed: its generation stands here, WRITING. It is written from a snapshot
that is younger than the claim, once its hash stands here as well. It is committed: CURRENT, and every older row goes.
So the generations are in the order of their claims, and a later one holds all that was committed before any earlier one
was claimed. A row that was claimed and is never committed stays until the next commit: what lies on a store under its
number does not count, but its hash tells that it was written by us, and that nothing in it is newer than the database.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    Index,
    Integer,
    LargeBinary,
    Text,
    delete,
    func,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import TIMESTAMP, insert
from sqlalchemy.orm import Mapped

from crypto.keys import SERVING, KeyState, Purpose, WrappedKey
from tenants import backups, erasures
from tenants.backups import BackupRow, LiveBackup
from tenants.erasures import Erased
from tenants.jobs import Job, JobId, JobKind, NoArguments, Priority
from tenants.keys import DataKeyRow
from tenants.owned import Backup, TenantOwned, clear
from tenants.unit import Unit

PUBLISH_KEY_FILE = JobKind(
    "publish_key_file",
    NoArguments,
    "Write the tenant's keys to every store anew, and delete what lay there.",
    priority=Priority.URGENT,
)
_WAITING = "waiting"
_SUBJECTS = """
    SELECT get_byte(uuid_send(id), 15) AS bucket, string_agg(uuid_send(id) || secret, CAST('' AS bytea) ORDER BY id)
        AS pairs
    FROM subjects WHERE tenant_id = CAST(current_setting('coffer.tenant') AS uuid) GROUP BY 1 ORDER BY 1
"""


class KeyFileRow(TenantOwned, backup=Backup.NEVER, rights="SELECT INSERT UPDATE DELETE"):
    """One generation. At most one is CURRENT; it is on every store, or was when it was committed."""

    __tablename__ = "key_files"
    __table_args__ = (
        Index("uq_key_files_current", "tenant_id", unique=True, postgresql_where=text("state = 'CURRENT'")),
        CheckConstraint("generation > 0", name="generation"),
        CheckConstraint("state IN ('WRITING', 'CURRENT')", name="state"),
        CheckConstraint("state = 'WRITING' OR sha256 IS NOT NULL", name="sha256"),
        CheckConstraint("octet_length(sha256) = 32", name="sha256_length"),
    )

    generation: Mapped[int] = clear("a count", BigInteger, primary_key=True, autoincrement=False)
    state: Mapped[str] = clear("whether it is on the stores", Text)
    sha256: Mapped[bytes | None] = clear(
        "of its signed statement, which has no value in clear", LargeBinary, nullable=True
    )
    kek_versions: Mapped[Any] = clear("versions of the key store's key it was wrapped by", ARRAY(Integer))
    dek_versions: Mapped[Any] = clear("versions of the data keys in it", ARRAY(Integer))
    stores: Mapped[list[str]] = clear("URLs of all stores that may list any key file", ARRAY(Text), server_default="{}")
    created_at: Mapped[datetime] = clear("when it was claimed", TIMESTAMP(timezone=True))


@dataclass(frozen=True, slots=True)
class Known:
    """What the database knows of a generation; `sha256` is 32 bytes, None where no byte of it was written."""

    generation: int
    is_current: bool
    sha256: bytes | None
    kek_versions: Sequence[int]
    dek_versions: Sequence[int]


@dataclass(frozen=True, slots=True)
class Contents:
    """All that a key file holds but the subjects' secrets."""

    backups: Sequence[LiveBackup]
    data_keys: Sequence[WrappedKey]
    ledger: Sequence[Erased]


async def enqueue_publish(unit: Unit) -> JobId:
    """A job that publishes what this unit changed; one that waits already is enough.

    It is kept from beginning until the unit ends: see `begin_publish`.
    """
    while True:
        job = await unit.enqueue(PUBLISH_KEY_FILE, NoArguments(), once=_WAITING, by_house=True)
        waiting = select(Job.id).where(Job.tenant_id == unit.tenant.id, Job.id == job, Job.once == _WAITING)
        if await unit.scalars(waiting.with_for_update(read=True)):
            return job


async def begin_publish(unit: Unit, job: JobId) -> None:
    """From now on this job is not the one that waits: who changes something from here on enqueues another.

    Whoever has found this job waiting holds its row, so all of them have committed before this goes on.
    """
    mine = (Job.tenant_id == unit.tenant.id, Job.id == job)
    await unit.run(update(Job).where(*mine).values(once=None).execution_options(synchronize_session=False))


async def known(unit: Unit) -> list[Known]:
    """The newest generation first."""
    file = KeyFileRow
    columns = (file.generation, file.state, file.sha256, file.kek_versions, file.dek_versions)
    statement = select(*columns).where(file.tenant_id == unit.tenant.id).order_by(file.generation.desc())
    return [
        Known(
            each.generation,
            each.state == "CURRENT",
            each.sha256 and bytes(each.sha256),
            tuple(each.kek_versions),
            tuple(each.dek_versions),
        )
        for each in await unit.rows(statement)
    ]


async def current(unit: Unit) -> Known | None:
    return next((each for each in await known(unit) if each.is_current), None)


async def lists_data_key(unit: Unit, version: int) -> bool:
    """Whether the current key file holds the data key of that version: then it may not be destroyed yet."""
    found = await current(unit)
    return found is not None and version in found.dek_versions


async def claim(unit: Unit, stores: Sequence[str] = ()) -> int:
    """The next generation, WRITING; of two at once each gets its own. `stores` are the URLs it will be written to."""
    mine = KeyFileRow.tenant_id == unit.tenant.id
    while True:
        before = await unit.rows(select(KeyFileRow.generation, KeyFileRow.stores).where(mine))
        newest = max((row.generation for row in before), default=0)
        everywhere = sorted({*stores, *(url for row in before for url in row.stores)})
        row = {"tenant_id": unit.tenant.id, "generation": newest + 1, "state": "WRITING", "created_at": unit.now}
        lists = {"kek_versions": [], "dek_versions": [], "stores": everywhere}
        claiming = insert(KeyFileRow).values(row | lists).on_conflict_do_nothing()
        if made := await unit.scalars(claiming.returning(KeyFileRow.generation)):
            return int(made[0])


async def places(unit: Unit) -> set[str]:
    """The URLs of all stores that may list a key file of the tenant, also of those that are configured no longer."""
    rows = await unit.scalars(select(KeyFileRow.stores).where(KeyFileRow.tenant_id == unit.tenant.id))
    return {url for urls in rows for url in urls}


async def emptied(unit: Unit, stores: Sequence[str]) -> None:
    """These stores list no key file of the tenant any more."""
    for url in stores:
        here = (KeyFileRow.tenant_id == unit.tenant.id, KeyFileRow.stores.any_() == url)
        change = update(KeyFileRow).where(*here).values(stores=func.array_remove(KeyFileRow.stores, url))
        await unit.run(change.execution_options(synchronize_session=False))


async def note(unit: Unit, generation: int, sha256: bytes) -> bool:
    """What will lie on stores under a generation that is claimed; False where a later one was committed meanwhile."""
    claimed = (
        KeyFileRow.tenant_id == unit.tenant.id,
        KeyFileRow.generation == generation,
        KeyFileRow.state == "WRITING",
    )
    noting = update(KeyFileRow).where(*claimed).values(sha256=sha256).returning(KeyFileRow.generation)
    return bool(await unit.scalars(noting.execution_options(synchronize_session=False)))


async def hold(unit: Unit) -> bool:
    """Nobody else writes the tenant's key files until this unit ends; False where somebody does."""
    name = func.hashtextextended(f"key files {unit.tenant.id}", 0)
    return bool((await unit.scalars(select(func.pg_try_advisory_xact_lock(name))))[0])


async def is_superseded(unit: Unit, generation: int) -> bool:
    """Whether a later one was committed, which holds all that this one would."""
    rows = await known(unit)
    return any(each.is_current and each.generation > generation for each in rows)


async def contents(unit: Unit) -> Contents:
    """Of the unit's snapshot. Data keys are those that serve, and those that a backup needs."""
    live = await backups.live(unit)
    needed = {version for backup in live for version in backup.dek_versions}
    of_tenant = select(DataKeyRow).where(DataKeyRow.tenant_id == unit.tenant.id, DataKeyRow.wrapped != "")
    rows = await unit.scalars(of_tenant.order_by(DataKeyRow.purpose, DataKeyRow.version))
    held = [row for row in rows if row.state in SERVING or (row.purpose == Purpose.DEK and row.version in needed)]
    return Contents(live, [_wrapped(row) for row in held], await erasures.ledger(unit))


async def secrets(unit: Unit, name: str) -> AsyncIterator[tuple[int, bytes]]:
    """The buckets that are not empty, in order: number, and the pairs of id and secret, sorted by id.

    One at a time, as of the unit's snapshot; `name` is a word that no other reading of this unit has.
    """
    if not name.isalpha():
        raise ValueError("a cursor's name is a word")
    await unit.run(text(f"DECLARE {name} NO SCROLL CURSOR FOR {_SUBJECTS}"))
    while rows := await unit.rows(text(f"FETCH FORWARD 1 FROM {name}")):
        yield int(rows[0].bucket), bytes(rows[0].pairs)
    await unit.run(text(f"CLOSE {name}"))


async def commit(
    unit: Unit, generation: int, sha256: bytes, *, kek_versions: Sequence[int], dek_versions: Sequence[int]
) -> bool:
    """Make it the current one, and forget all before it. False where a later one was committed meanwhile."""
    if await is_superseded(unit, generation):
        return False
    mine = KeyFileRow.tenant_id == unit.tenant.id
    older = delete(KeyFileRow).where(mine, KeyFileRow.generation < generation)
    await unit.run(older.execution_options(synchronize_session=False))
    values = {
        "state": "CURRENT",
        "sha256": sha256,
        "kek_versions": sorted(set(kek_versions)),
        "dek_versions": sorted(set(dek_versions)),
    }
    committing = update(KeyFileRow).where(mine, KeyFileRow.generation == generation).values(values)
    return bool(
        await unit.scalars(committing.returning(KeyFileRow.generation).execution_options(synchronize_session=False))
    )


async def rewrap_backup(unit: Unit, backup: LiveBackup, wrapped: str) -> None:
    """The same key under another version of the key store's, unless it has expired or was rewrapped meanwhile."""
    mine = (BackupRow.tenant_id == unit.tenant.id, BackupRow.id == backup.id)
    change = update(BackupRow).where(*mine, BackupRow.wrapped_key == backup.wrapped_key).values(wrapped_key=wrapped)
    await unit.run(change.execution_options(synchronize_session=False))


def _wrapped(row: DataKeyRow) -> WrappedKey:
    purpose, state = Purpose(row.purpose), KeyState(row.state)
    return WrappedKey(row.tenant_id, row.id, purpose, row.version, row.wrapped, row.check_value, state)
