"""The end of a tenant, by the platform's operator: after its key is gone its rows go, and a certificate says what went.

No unit opens here: a unit needs the tenant's keys. What has no value of a person stays, and names itself: the audit
log, the ledger of erasures, which keys and backups there were.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Table, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from tenants.database import SCOPE, Database
from tenants.erasures import certificates
from tenants.erasures.certificates import Signed
from tenants.erasures.offboardings import Offboarding, OffboardingState
from tenants.errors import OffboardingHeld, OffboardingNotDue, OffboardingUnknown
from tenants.ids import global_id
from tenants.owned import TenantOwned, places
from tenants.signing_in.issuers import issuers
from tenants.viewers import TenantId

_AT_ONCE = 5_000
_APPROVED = (OffboardingState.COOLING, OffboardingState.SHREDDING, OffboardingState.CLOSED)
_HOLDS = text("SELECT id FROM legal_holds WHERE tenant_id = :tenant AND lifted_at IS NULL ORDER BY id LIMIT 20")
_PLACES = text(
    """
    SELECT DISTINCT url FROM (
        SELECT unnest(places) AS url FROM backups WHERE tenant_id = :tenant
        UNION ALL SELECT unnest(stores) FROM key_files WHERE tenant_id = :tenant
    ) AS urls
    """
)
_DEAD_KEYS = (
    "UPDATE data_keys SET wrapped = '', state = 'DESTROYED' WHERE tenant_id = :tenant",
    "UPDATE backups SET wrapped_key = '', state = 'EXPIRED' WHERE tenant_id = :tenant",
)


@dataclass(frozen=True, slots=True)
class Due:
    """An offboarding that may go on; `signed` is its certificate, once it is over.

    `rows` counts what was deleted by table, `objects` by store's URL, over all tries.
    """

    id: UUID
    requested_by: UUID
    requested_at: datetime
    approved_by: UUID | None
    approved_at: datetime
    shredded_at: datetime | None
    rows: dict[str, int]
    objects: dict[str, int]
    signed: Signed | None


async def due(app: Database, tenant: TenantId, now: datetime) -> Due:
    """Raises `OffboardingUnknown`, and `OffboardingNotDue` before its cooling is over."""
    async with app.session(write=False) as session:
        await session.execute(SCOPE, {"tenant": tenant, "writes": False})
        mine = select(Offboarding.__table__).where(Offboarding.tenant_id == tenant, Offboarding.state.in_(_APPROVED))
        row = (await session.execute(mine.order_by(Offboarding.id.desc()).limit(1))).one_or_none()
    if row is None:
        raise OffboardingUnknown
    if now < row.shred_after:
        raise OffboardingNotDue(row.shred_after)
    return _due(row)


async def begin(app: Database, tenant: TenantId, offboarding: UUID) -> None:
    """From here on nobody calls it off, and nobody places a hold.

    Raises `OffboardingUnknown` where somebody just has called it off, `OffboardingHeld` while there are holds.
    """
    mine = (Offboarding.tenant_id == tenant, Offboarding.id == offboarding, Offboarding.ended_at.is_(None))
    begun = update(Offboarding).where(*mine).values(state=OffboardingState.SHREDDING).returning(Offboarding.shredded_at)
    async with app.session(write=True) as session:
        await session.execute(SCOPE, {"tenant": tenant, "writes": False})
        row = (await session.execute(begun)).one_or_none()
        if row is None:
            raise OffboardingUnknown
        kept = (await session.execute(_HOLDS, {"tenant": tenant})).scalars().all() if row.shredded_at is None else []
        if kept:  # this comes after the row is locked, so none is placed behind it
            raise OffboardingHeld([global_id("LegalHold", hold) for hold in kept])


async def note_shredded(app: Database, tenant: TenantId, offboarding: UUID, now: datetime) -> None:
    """That the key is gone; the moment stays the first one."""
    mine = (Offboarding.tenant_id == tenant, Offboarding.id == offboarding, Offboarding.shredded_at.is_(None))
    async with app.session(write=True) as session:
        await session.execute(SCOPE, {"tenant": tenant, "writes": False})
        await session.execute(update(Offboarding).where(*mine).values(shredded_at=now))


async def note_places(app: Database, tenant: TenantId, offboarding: UUID, urls: Collection[str]) -> set[str]:
    """All stores that may list anything of the tenant, these and those of before; kept, for the rows that say so go."""
    async with app.session(write=True) as session:
        await session.execute(SCOPE, {"tenant": tenant, "writes": False})
        found = (await session.execute(_PLACES, {"tenant": tenant})).scalars().all()

        def add(said: dict[str, Any]) -> None:
            for url in {*urls, *found} - {""}:
                said["stores"].setdefault(url, [0, 0])

        return set((await _note(session, tenant, offboarding, add))["stores"])


async def note_objects(app: Database, tenant: TenantId, offboarding: UUID, url: str, listed: int) -> None:
    """That the store lists so many, before they are deleted, and that it lists none, after.

    What an earlier try counted and could not delete, or not tell of, is not counted again.
    """

    def count(said: dict[str, Any]) -> None:
        total, left = said["stores"].get(url, [0, 0])
        said["stores"][url] = [total + max(0, listed - left), listed]

    async with app.session(write=True) as session:
        await session.execute(SCOPE, {"tenant": tenant, "writes": False})
        await _note(session, tenant, offboarding, count)


async def purge(app: Database, tenant: TenantId, offboarding: UUID) -> None:
    """Delete the tenant's rows in batches, each noted as it goes. Cut off anywhere, it is asked for again."""
    for table in reversed(TenantOwned.metadata.sorted_tables):
        if table.name == issuers.name or "DELETE" in _rights(table):
            await _emptied(app, tenant, offboarding, table)
    async with app.session(write=True) as session:
        await session.execute(SCOPE, {"tenant": tenant, "writes": False})
        for statement in (*_DEAD_KEYS, *_unsealing()):
            await session.execute(text(statement), {"tenant": tenant})


def said(tenant: TenantId, slug: str, offboarding: Due, away: Collection[str], now: datetime) -> dict[str, Any]:
    """What the certificate says; `away` are the former stores that do not answer."""
    beyond = [{"stores": sorted(away), **_FORMER}] if away else []
    return {
        "format": certificates.FORMAT,
        "kind": "offboarding",
        "tenant": str(tenant),
        "slug": slug,
        "offboarding": str(offboarding.id),
        "requestedBy": str(offboarding.requested_by),
        "requestedAt": certificates.moment(offboarding.requested_at),
        "approvedBy": None if offboarding.approved_by is None else str(offboarding.approved_by),
        "approvedAt": certificates.moment(offboarding.approved_at),
        "keyDestroyedAt": certificates.moment(offboarding.shredded_at or now),
        "rows": offboarding.rows,
        "stores": [{"objects": count, "store": store} for store, count in sorted(offboarding.objects.items())],
        "finishedAt": certificates.moment(now),
        "mayRemain": [*_REMAINS, *beyond],
    }


_FORMER = {"where": "former stores", "opens": False, "until": "they answer, or the operator deletes them"}
_REMAINS = [
    {"where": "audit log, ledger of erasures, list of backups", "opens": True, "until": "for ever: no value"},
    {"where": "write-ahead log, replicas, database backups", "opens": False, "until": "the operator deletes them"},
    {"where": "versions of objects in stores", "opens": False, "until": "the store's rule deletes old versions"},
    {"where": "backups of the key store", "opens": True, "until": "the operator deletes those from before"},
]


async def close(app: Database, tenant: TenantId, offboarding: UUID, signed: Signed, now: datetime) -> None:
    """Keep the certificate; the offboarding is over."""
    values = {
        "state": OffboardingState.CLOSED,
        "ended_at": now,
        "certificate": dict(signed.said),
        "key_version": signed.key_version,
        "signature": signed.signature,
    }
    async with app.session(write=True) as session:
        await session.execute(SCOPE, {"tenant": tenant, "writes": False})
        mine = (Offboarding.tenant_id == tenant, Offboarding.id == offboarding)
        await session.execute(update(Offboarding).where(*mine).values(values))


async def _emptied(app: Database, tenant: TenantId, offboarding: UUID, table: Table) -> None:
    """Each batch in a transaction of its own, so that none is long."""
    batch = text(
        f"DELETE FROM {table.name} WHERE ctid = ANY (ARRAY("  # noqa: S608  # a name of ours
        f"SELECT ctid FROM {table.name} WHERE tenant_id = :tenant LIMIT {_AT_ONCE}))"
    )
    while True:
        async with app.session(write=True) as session:
            await session.execute(SCOPE, {"tenant": tenant, "writes": False})
            gone: Any = await session.execute(batch, {"tenant": tenant})
            if not gone.rowcount:
                return
            await _note(session, tenant, offboarding, partial(_count, str(table.name), int(gone.rowcount)))


def _count(table: str, more: int, said: dict[str, Any]) -> None:
    said["rows"][table] = said["rows"].get(table, 0) + more


async def _note(
    session: AsyncSession, tenant: TenantId, offboarding: UUID, change: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Change what is kept of what was destroyed, in this transaction; what it is by then."""
    mine = (Offboarding.tenant_id == tenant, Offboarding.id == offboarding)
    kept = (await session.execute(select(Offboarding.destroyed).where(*mine).with_for_update())).scalar_one()
    noted: dict[str, Any] = kept or {"rows": {}, "stores": {}}
    change(noted)
    await session.execute(update(Offboarding).where(*mine).values(destroyed=noted))
    return noted


def _unsealing() -> Sequence[str]:
    """Sealed values in tables that stay: of no use to anybody any more."""
    return [
        f"UPDATE {owned.__tablename__} SET {column} = NULL WHERE tenant_id = :tenant"  # noqa: S608  # names of ours
        for owned in _mapped()
        if "DELETE" not in owned.rights
        for column in places(owned)
    ]


def _mapped() -> list[type[TenantOwned]]:
    return [mapper.class_ for mapper in TenantOwned.registry.mappers]


def _rights(table: Table) -> frozenset[str]:
    return next((owned.rights for owned in _mapped() if owned.__table__ is table), frozenset())


def _due(row: Row[Any]) -> Due:
    signed = None if row.signature is None else Signed(row.certificate, row.key_version, row.signature)
    who = (row.id, row.requested_by, row.requested_at, row.approved_by, row.approved_at)
    noted = row.destroyed or {"rows": {}, "stores": {}}
    objects = {url: total for url, (total, _) in noted["stores"].items()}
    return Due(*who, row.shredded_at, noted["rows"], objects, signed)
