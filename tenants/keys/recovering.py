"""A tenant whose database came back as it was before is brought forward to what its key file knows.

What the key file can't know to have ended since may live again in the copy, so all of that ends: sessions, tokens of
letters, API keys, and rotations of data keys and index keys, whose versions may be taken. Whatever is done here may be
done again. The data keys come first: `tenants.keys.recovered_keys`.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import Executable, delete, select, update
from sqlalchemy.dialects.postgresql import insert

from crypto.keys import KeyState, Purpose
from crypto.transit import wrapped_version
from tenants import backups, erasures
from tenants.backups import BackupRow, BackupState, LiveBackup
from tenants.erasures import Erased
from tenants.jobs import Job, JobState
from tenants.keys import DataKeyRow, key_files
from tenants.keys.key_files import KeyFileRow
from tenants.keys.recovered_keys import told
from tenants.keys.rotating import ABANDONED, ROTATE
from tenants.keys.rotations import KeyPurpose, Rotation
from tenants.signing_in import sessions
from tenants.signing_in.api_keys import ApiKey
from tenants.signing_in.one_time_tokens import OneTimeToken
from tenants.subjects import Subject
from tenants.tenants import tenants
from tenants.unit import Unit

T = TypeVar("T", bound=Executable)
_AT_ONCE = 1000
_LEAP = 1 << 20  # past every epoch that a process which still runs may have seen before the copy was brought back


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What a proven key file says. `sha256` is its identity; `backups` are those it has keys of.

    `newest_wrapping` is the version of the tenant's key in the key store up to which wrapped keys open.
    """

    generation: int
    sha256: bytes
    created: datetime
    kek_versions: Sequence[int]
    dek_versions: Sequence[int]
    ledger: Sequence[Erased]
    backups: Sequence[LiveBackup]
    newest_wrapping: int


@dataclass(frozen=True, slots=True)
class Ended:
    sessions: int
    letters: int
    api_keys: int
    rotations: int


async def bring_forward(unit: Unit, past: Past, missing: Sequence[dict[str, Any]]) -> int:
    """Forget whom the key file's ledger names, and take over its generation and its backups.

    `missing` are rows of backups that the copy lacks. How many erasures it lacked. Raises `LedgerBroken`,
    `RecoveryRefused`. `unit` must fence and thaw.
    """
    async with told():
        replayed = await erasures.replay(unit, past.ledger)
        if not await is_current(unit, past):
            await _take_generation(unit, past)
            await _take_backups(unit, past, missing)
    return replayed


async def take_secrets(unit: Unit, secrets: Mapping[UUID, bytes], erased: Collection[UUID]) -> None:
    """Of subjects that the copy lacks: backups that are newer than it need them. Nobody's who was erased."""
    rows = [
        {"tenant_id": unit.tenant.id, "id": subject, "secret": secret, "created_at": unit.now}
        for subject, secret in secrets.items()
        if subject not in erased
    ]
    for start in range(0, len(rows), _AT_ONCE):
        await unit.run(insert(Subject).values(rows[start : start + _AT_ONCE]).on_conflict_do_nothing())


async def end_all(unit: Unit, *, api_keys: bool, lost_keys: int = 0) -> Ended:
    """Every session, token of a letter, rotation of what seals and, if asked to, API key; and what processes remember.

    `lost_keys` is how many keys are gone for good.
    """
    gone = await sessions.end(unit, sessions.Why.RECOVERED)
    letters = delete(OneTimeToken).where(OneTimeToken.tenant_id == unit.tenant.id)
    sent = await unit.rows(letters.returning(OneTimeToken.member_id).execution_options(synchronize_session=False))
    live = (ApiKey.tenant_id == unit.tenant.id, ApiKey.revoked_at.is_(None))
    revoking = update(ApiKey).where(*live).values(revoked_at=unit.now).returning(ApiKey.id)
    keys = await unit.scalars(revoking.execution_options(synchronize_session=False)) if api_keys else []
    turning = await _end_rotations(unit)
    epochs = {"key_epoch": tenants.c.key_epoch + _LEAP, "access_epoch": tenants.c.access_epoch + _LEAP}
    await unit.run(update(tenants).where(tenants.c.id == unit.tenant.id).values(**epochs))
    ended = Ended(len(gone), len(sent), len(keys), turning)
    counts = {"sessions": ended.sessions, "letters": ended.letters, "apiKeys": ended.api_keys}
    counts |= {"rotations": ended.rotations, "lostKeys": lost_keys}
    unit.audit("installation.recovered", subject_type="Tenant", subjects=[unit.tenant.id], details=counts)
    return ended


async def _end_rotations(unit: Unit) -> int:
    """How many there were. What they had made and not put in force goes; what is due begins anew.

    That of the tenant's key goes on: its versions are the key store's own.
    """
    mine = (Rotation.tenant_id == unit.tenant.id, Rotation.purpose != KeyPurpose.KEK.value)
    ending = update(Rotation).where(*mine, Rotation.ended_at.is_(None))
    ending = ending.values(state=ABANDONED, moved_at=unit.now, ended_at=unit.now)
    ended = await unit.rows(_silent(ending.returning(Rotation.id)))
    kinds = [ROTATE[purpose].name for purpose in KeyPurpose if purpose is not KeyPurpose.KEK]
    jobs = update(Job).where(Job.tenant_id == unit.tenant.id, Job.kind.in_(kinds), Job.ended_at.is_(None))
    cancelled = {"state": JobState.CANCELLED, "ended_at": unit.now, "lease_until": None, "wish": None}
    await unit.run(_silent(jobs.values(cancelled)))
    waiting = update(DataKeyRow).where(DataKeyRow.tenant_id == unit.tenant.id, DataKeyRow.state == KeyState.NEXT.value)
    gone = {"state": KeyState.DESTROYED.value, "wrapped": "", "changed_at": unit.now}
    await unit.run(_silent(waiting.where(DataKeyRow.purpose == Purpose.BIK.value).values(gone)))
    left = {"state": KeyState.RETIRED.value, "changed_at": unit.now}  # a later backup may need it
    await unit.run(_silent(waiting.values(left)))
    return len(ended)


async def is_current(unit: Unit, past: Past) -> bool:
    """Whether the database knows that key file as the current one: then it lacks nothing of it."""
    is_current = (KeyFileRow.state == "CURRENT", KeyFileRow.generation == past.generation)
    same = (*is_current, KeyFileRow.sha256 == past.sha256)
    return bool(await unit.scalars(select(KeyFileRow.generation).where(KeyFileRow.tenant_id == unit.tenant.id, *same)))


async def _take_generation(unit: Unit, past: Past) -> None:
    mine = KeyFileRow.tenant_id == unit.tenant.id
    stores = sorted(await key_files.places(unit))
    await unit.run(delete(KeyFileRow).where(mine).execution_options(synchronize_session=False))
    row = {
        "tenant_id": unit.tenant.id,
        "generation": past.generation,
        "state": "CURRENT",
        "sha256": past.sha256,
        "kek_versions": sorted(past.kek_versions),
        "dek_versions": sorted(past.dek_versions),
        "stores": stores,
        "created_at": past.created,
    }
    await unit.run(insert(KeyFileRow).values(row))


async def _take_backups(unit: Unit, past: Past, missing: Sequence[dict[str, Any]]) -> None:
    """Those of the copy whose keys are gone have expired since; the others' may have been wrapped anew."""
    mine = BackupRow.tenant_id == unit.tenant.id
    gone = (BackupRow.wrapped_key != "", BackupRow.id.not_in([each.id for each in past.backups]))
    await unit.run(_silent(update(BackupRow).where(mine, *gone).values(state=BackupState.EXPIRED, wrapped_key="")))
    wrapped = {each.id: each.wrapped_key for each in await backups.live(unit)}
    for each in (one for one in past.backups if one.id in wrapped):
        if wrapped_version(wrapped[each.id]) < wrapped_version(each.wrapped_key) <= past.newest_wrapping:
            newer = update(BackupRow).where(mine, BackupRow.id == each.id).values(wrapped_key=each.wrapped_key)
            await unit.run(_silent(newer))
    for row in missing:
        adding = insert(BackupRow).values(row | {"tenant_id": unit.tenant.id})
        same_place = ["tenant_id", "number"]
        await unit.run(adding.on_conflict_do_update(index_elements=same_place, set_=row))


async def known_backups(unit: Unit) -> set[UUID]:
    """Those that the database has a finished row of."""
    mine = (BackupRow.tenant_id == unit.tenant.id, BackupRow.state != BackupState.WRITING)
    return set(await unit.scalars(select(BackupRow.id).where(*mine)))


def _silent(statement: T) -> T:
    """Rows that the unit has read already are not told."""
    return statement.execution_options(synchronize_session=False)
