"""The job that restores a tenant's data: frozen, backed up as they are, then replaced in one transaction.

All of the backup is read before, and what can't be restored is refused while nothing is frozen. Killed anywhere the
tenant is as it was, or it is done. Everything but that transaction can be done again, and is: the freeze has an epoch,
and only while it stands is the backup made under it the last word on what is replaced.
"""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

from domain import backup_acts, restores
from domain.restores import RESTORED, Restore
from jobs import backing_up
from jobs.backups.errors import StoreAway, StoreFull
from jobs.depots import Depot, Pace
from jobs.handling import Handler, Run
from jobs.restoring.asides import Aside
from jobs.restoring.comparing import check, compare
from jobs.restoring.errors import SafetyImpossible
from jobs.restoring.replacing import Counts, Progress, replace_data
from jobs.restoring.sources import Proven, prove
from tenants.backups import BackupKind, freezes, loading
from tenants.errors import BackupsUnavailable
from tenants.units import Units


def restore_by(depot: Depot | None, units: Units | None) -> Handler:
    """None: this worker has no stores, or no right to make keys of backups, and takes no such job."""

    async def restore(run: Run[Restore]) -> None:
        if depot is None or units is None:
            raise BackupsUnavailable
        async with units.enter(run.tenant, run.principal, write=False) as unit:
            restores.may_go_on(unit, run.arguments)
            await backup_acts.refuse_while_writing(unit, run.job)
        proven = await prove(depot, units, run.tenant, run.arguments.backup)
        await run.show(done=0, total=proven.rows)
        if run.arguments.dry_run:
            await _try(run, units, proven)
        else:
            await _Restoring(depot, units, run, proven).work()

    return restore


class _Restoring:
    def __init__(self, depot: Depot, units: Units, run: Run[Restore], proven: Proven) -> None:
        self._depot = depot
        self._units = units
        self._run = run
        self._proven = proven

    async def work(self) -> None:
        await self._check()
        async with self._units.enter(self._run.tenant, None, write=True, fences=True, thaws=True) as unit:
            epoch = await freezes.freeze(unit)
        try:
            safety = None if self._run.arguments.without_safety else await self._safety()
            await self._run.show(done=0, total=self._proven.rows)  # or is cancelled, while nothing is replaced
            await self._replace(epoch, safety)
        finally:  # also where it was cancelled; what dies before it gets here is thawed by the sweeper
            if not self._run.is_finished:
                async with self._units.enter(self._run.tenant, None, write=True, thaws=True) as unit:
                    await backup_acts.let_go(unit, self._run.job)
                    await freezes.thaw(unit, epoch)

    async def _check(self) -> None:
        if not self._run.arguments.without_safety and not all([await store.answers() for store in self._depot.stores]):
            raise SafetyImpossible
        async with self._units.enter(self._run.tenant, None, write=False) as unit, self._proven.dump() as dump:
            await check(unit, dump, self._proven.source, _paced(self._run, self._proven))

    async def _safety(self) -> UUID:
        """At once or not at all: a store may be away for weeks, and each try freezes the tenant.

        One that an earlier try of this job made may lack what was written since, and gives way to the new one.
        """
        aside = Aside(self._run, self._units)
        try:
            await backing_up.make(self._depot, aside, BackupKind.BEFORE_RESTORE)
        except (StoreAway, StoreFull) as error:
            raise SafetyImpossible from error
        safety = UUID(aside.cursor)
        async with self._units.enter(self._run.tenant, None, write=True, thaws=True) as unit:
            await restores.keep_one_safety(unit, self._run.job, safety)
        return safety

    async def _replace(self, epoch: int, safety: UUID | None) -> None:
        run, proven = self._run, self._proven
        async with AsyncExitStack() as stack:
            step = await stack.enter_async_context(run.step(fences=True, thaws=True))
            await freezes.still(step.unit, epoch)
            # On a connection of the backups', which this job has no other use for now.
            stood = await stack.enter_async_context(loading.standing(self._depot.dumps, run.tenant))
            dump = await stack.enter_async_context(proven.dump())
            counts = await replace_data(step.unit, dump, proven.source, stood, _paced(run, proven))
            details: dict[str, Any] = {"job": str(run.job), **counts.said}
            if safety is not None:
                details["safety"] = str(safety)
            step.unit.publish(RESTORED, [run.arguments.backup], details=details)
            await freezes.thaw(step.unit, epoch, access_changed=True)
            step.finish(result=_result(counts, safety), done=proven.rows, total=proven.rows)


async def _try(run: Run[Restore], units: Units, proven: Proven) -> None:
    async with units.enter(run.tenant, None, write=False) as unit, proven.dump() as dump:
        counts = await compare(unit, dump, proven.source, _paced(run, proven))
        openings = unit.openings
    async with run.step(thaws=True) as step:
        step.unit.openings += openings
        details = {"job": str(run.job), **counts.said}
        backup = run.arguments.backup
        step.unit.audit("backup.restore_tried", subject_type="Backup", subjects=[backup], details=details)
        step.finish(result=_result(counts), done=proven.rows, total=proven.rows)


def _paced(run: Run[Restore], proven: Proven) -> Progress:
    pace = Pace(run)

    async def told(rows: int) -> None:
        await pace(rows, proven.rows)

    return told


def _result(counts: Counts, safety: UUID | None = None) -> Mapping[str, Any]:
    return counts.said | ({} if safety is None else {"safety": str(safety)})
