"""The data keys of a tenant whose database came back as it was before: which of them serve on, and which are gone.

A key that was destroyed since, and whose copy the key store refuses now, is gone: without it the tenant can be entered
again, and what it sealed is in the backups that were made since. Without units, as these need the keys to open.
"""

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.exc import IntegrityError

from crypto.errors import KeyRefused
from crypto.keys import KeyState, Purpose, WrappedKey
from crypto.transit import wrapped_version
from tenants.database import SCOPE, Database
from tenants.errors import RecoveryRefused
from tenants.keys import DataKeyRow
from tenants.keys.key_files import KeyFileRow
from tenants.tenants import tenants
from tenants.viewers import TenantId

Opens = Callable[[WrappedKey], bool]
_GONE = KeyState.DESTROYED


@dataclass(frozen=True, slots=True)
class Settled:
    """`keys` are rows to be written, in this order; `lost` are those of the database that nothing opens any more.

    `newest_wrapping` is the highest version of the tenant's key in the key store that some key opened by, or 0.
    """

    keys: Sequence[WrappedKey]
    lost: Sequence[WrappedKey]
    newest_wrapping: int


async def committed(app: Database, tenant: TenantId) -> tuple[int, bytes] | None:
    """Generation and SHA-256 of the key file that the database counts as the current one."""
    mine = (KeyFileRow.tenant_id == tenant, KeyFileRow.state == "CURRENT")
    async with app.session(write=False) as session:
        await session.execute(SCOPE, {"tenant": tenant})
        row = (await session.execute(select(KeyFileRow.generation, KeyFileRow.sha256).where(*mine))).one_or_none()
    return None if row is None else (row.generation, bytes(row.sha256))


async def held(app: Database, tenant: TenantId) -> list[WrappedKey]:
    """All that the database has, of any purpose and in any state."""
    async with app.session(write=False) as session:
        await session.execute(SCOPE, {"tenant": tenant})
        rows = list(await session.scalars(select(DataKeyRow).where(DataKeyRow.tenant_id == tenant)))
    return [
        WrappedKey(
            row.tenant_id,
            row.id,
            Purpose(row.purpose),
            row.version,
            row.wrapped,
            row.check_value,
            KeyState(row.state),
        )
        for row in rows
    ]


def settle(mine: Sequence[WrappedKey], theirs: Sequence[WrappedKey], opens: Opens) -> Settled:
    """What becomes of the database's keys (`mine`) and those of a proven key file (`theirs`).

    Each is kept wrapped as newly as it opens. Keys that the database lacks take their versions: data keys are RETIRED,
    as they open backups, index keys DESTROYED, as nothing has their tokens. Where the key in force is gone, the newest
    of the key file's is put in force. Raises `KeyRefused` where the key store may be the one that is too old, or where
    nothing replaces the key in force; `RecoveryRefused` where both have another key of the same version.
    """
    theirs = _without_parted(mine, theirs)
    wrapped = {key.id: key for key in theirs}
    settled: list[WrappedKey] = []
    lost: list[WrappedKey] = []
    for key in (each for each in mine if each.state is not _GONE):
        known = [key, *([replace(wrapped[key.id], state=key.state)] if key.id in wrapped else [])]
        known.sort(key=lambda each: wrapped_version(each.wrapped), reverse=True)
        found = next(filter(opens, known), None)
        settled += [found] if found is not None else []
        lost += [known[0]] if found is None else []
    versions = [wrapped_version(key.wrapped) for key in [*settled, *filter(opens, theirs)]]
    newest = max(versions, default=0)
    if any(wrapped_version(key.wrapped) >= newest for key in lost):
        raise KeyRefused("The key store refuses a key that is wrapped as newly as any; is its snapshot too old?")
    known_ids = {key.id for key in mine}
    added = [_taken(key) for key in theirs if key.id not in known_ids]
    usable = [*settled, *(key for key in theirs if key.id not in known_ids)]
    in_force = [_successor(key, usable, opens) for key in lost if key.state is KeyState.ACTIVE]
    after = {key.id: key for key in [*settled, *added]} | {key.id: key for key in in_force}
    before = {key.id: key for key in mine}
    gone = [replace(key, wrapped="", state=_GONE) for key in lost]
    return Settled([*gone, *(key for key in after.values() if before.get(key.id) != key)], lost, newest)


async def write(app: Database, tenant: TenantId, keys: Sequence[WrappedKey]) -> int:
    """Keep these rows, and let every open keyring go stale. How many are kept; a key that is gone stays so."""
    if not keys:
        return 0
    async with told(), app.session(write=True) as session:
        await session.execute(SCOPE, {"tenant": tenant, "writes": True})
        mine = select(DataKeyRow.id, DataKeyRow.state).where(DataKeyRow.tenant_id == tenant)
        known = {row.id: row.state for row in await session.execute(mine)}
        for key in keys:
            values: dict[str, Any] = {"wrapped": key.wrapped, "state": key.state.value}
            values |= {"changed_at": func.now()} if known.get(key.id) != key.state.value else {}
            if key.id in known:
                one = (DataKeyRow.tenant_id == tenant, DataKeyRow.id == key.id, DataKeyRow.state != _GONE.value)
                await session.execute(update(DataKeyRow).where(*one).values(values))
            else:
                await session.execute(insert(DataKeyRow).values(_new(key) | values))
        stale = update(tenants).where(tenants.c.id == tenant).values(key_epoch=tenants.c.key_epoch + 1)
        await session.execute(stale)
    return len(keys)


@asynccontextmanager
async def told() -> AsyncIterator[None]:
    """Raises `RecoveryRefused` where what is taken over contradicts what is there."""
    try:
        yield
    except IntegrityError as error:
        raise RecoveryRefused from error


def _without_parted(mine: Sequence[WrappedKey], theirs: Sequence[WrappedKey]) -> list[WrappedKey]:
    """Without index keys whose version is another's here: they are worth nothing without their tokens."""
    taken = {(key.purpose, key.version): key.id for key in mine}
    parted = [key for key in theirs if taken.get((key.purpose, key.version), key.id) != key.id]
    for key in parted:
        if key.purpose is not Purpose.BIK:
            raise RecoveryRefused(f"The key file has another {key.purpose} of version {key.version} than the database.")
    return [key for key in theirs if key not in parted]


def _taken(key: WrappedKey) -> WrappedKey:
    if key.purpose is Purpose.BIK:
        return replace(key, wrapped="", state=_GONE)
    return replace(key, state=KeyState.RETIRED)


def _successor(lost: WrappedKey, keys: Collection[WrappedKey], opens: Opens) -> WrappedKey:
    later = [key for key in keys if key.purpose is lost.purpose and key.version > lost.version and opens(key)]
    if not later:
        raise KeyRefused(f"The key store refuses the {lost.purpose} in force, and the key file has none that follows.")
    return replace(max(later, key=lambda key: key.version), state=KeyState.ACTIVE)


def _new(key: WrappedKey) -> dict[str, Any]:
    return {
        "tenant_id": key.tenant,
        "id": key.id,
        "purpose": key.purpose.value,
        "version": key.version,
        "check_value": key.check_value,
        "created_at": func.now(),
    }
