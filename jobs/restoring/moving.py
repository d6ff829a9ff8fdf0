"""A new tenant made of another's backup: everything sealed anew, under keys and subjects' secrets of its own."""

from collections.abc import Collection, Sequence
from contextlib import aclosing
from functools import partial
from uuid import UUID

from crypto.transit import TransitKeys
from domain import restored_holds, restored_pages, transplants
from domain.restored_pages import Opened
from jobs.backups.stores import Store
from jobs.backups.threads import in_thread
from jobs.backups.writing import SHAPE
from jobs.depots import Depot
from jobs.key_files.files import KeyFiles
from jobs.restoring.drilling import try_out
from jobs.restoring.errors import HoldsWouldGo
from jobs.restoring.replacing import Counts
from jobs.restoring.sources import Proven, prove
from migrations.apply import newest
from tenants import backups
from tenants.backups import loading
from tenants.database import Database
from tenants.jobs import Schedule
from tenants.units import Units
from tenants.viewers import TenantId


def reading_depot(units: Units, keys: TransitKeys, database: Database, stores: Sequence[str]) -> Depot:
    """For who reads backups and makes none."""
    placed = [Store(url) for url in stores]
    return Depot(
        stores=placed,
        keys=keys,
        maker=keys,
        key_files=KeyFiles(units, keys, None, placed),
        dumps=database,
        shape=SHAPE,
        revision=newest(),
    )


async def refuse_unmovable(depot: Depot, units: Units, tenant: TenantId, backup: UUID) -> None:
    """Read it all before there is a new tenant. Raises what `move` does, and `BackupHasDuplicates`."""
    proven = await prove(depot, units, tenant, backup)
    async with units.enter(tenant, None, write=False) as old, proven.dump() as dump:
        held = (await restored_holds.held(old)).customers
        await try_out(old, dump, proven.source, _quietly, partial(_refuse_held, held=held))


async def _quietly(_rows: int) -> None:
    """Nobody watches a command's progress."""


async def move(depot: Depot, units: Units, tenant: TenantId, backup: UUID, into: TenantId) -> Counts:
    """One transaction of the new tenant, which must have nobody yet; cut off anywhere it is asked for again.

    Raises `HoldsWouldGo`, `Unrestorable`, and what `prove` and reading do.
    """
    async with units.enter(tenant, None, write=True, thaws=True) as old:
        await backups.lock_for_long(old, backup)  # nobody deletes it meanwhile
        proven, held = await prove(depot, units, tenant, backup), (await restored_holds.held(old)).customers
        counts = await _moved(units, into, proven, held)
        old.audit("backup.moved", subject_type="Backup", subjects=[backup], details={"into": str(into)})
    return counts


async def _moved(units: Units, into: TenantId, proven: Proven, held: Collection[UUID]) -> Counts:
    counts, source = Counts(), proven.source
    async with units.enter(into, None, write=True, fences=True) as unit, proven.dump() as dump:
        await transplants.refuse_inhabited(unit)
        for target in dump.targets:
            if target.table is Schedule.__table__:  # a scheduler gives every new tenant the house's own
                await loading.empty(unit, target)
        async with aclosing(dump.pages()) as pages:
            async for target, rows in pages:
                opened = await in_thread(restored_pages.open_page, target, rows, source)
                _refuse_held(opened, held)
                secrets = await transplants.secrets(unit, opened, source)
                page = await in_thread(transplants.page_of, opened, source, unit, secrets)
                loaded, made = await restored_pages.write(unit, page)
                await transplants.index_members(unit, opened)
                counts.rows += len(rows)
                counts.add(target.name, written=loaded.written, dropped=loaded.dropped, erased=page.erased)
                counts.add(target.name, cleared=loaded.cleared)
                counts.add("subjects", written=made)
        details = {"backup": str(proven.manifest.about.backup), **counts.said}
        unit.audit("tenant.made_of_backup", subject_type="Tenant", subjects=[source.tenant], details=details)
    return counts


def _refuse_held(opened: Opened, held: Collection[UUID]) -> None:
    if restored_pages.is_indexed(opened.target) and (found := {UUID(row["id"]) for row in opened.rows} & set(held)):
        raise HoldsWouldGo(len(found))
