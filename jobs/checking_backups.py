"""The jobs that look after backups: verify one or all, make what is lost anew, delete what has expired."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from crypto.errors import CannotOpen, KeyRefused
from domain import backup_acts
from domain.backup_acts import Findings, Live
from domain.backups import Depth, RepairBackup, VerifyBackup
from jobs.backups import finding, repairing, verifying
from jobs.backups.errors import BackupBroken, BackupUnknown, ManifestRefused, StoreAway
from jobs.backups.shapes import folder
from jobs.backups.verifying import Fault, Rot
from jobs.depots import Depot, Pace
from jobs.handling import Handler, Run
from tenants import backups
from tenants.errors import BackupsUnavailable
from tenants.jobs import NoArguments

_UNTRUE = (BackupUnknown, ManifestRefused, BackupBroken, CannotOpen, KeyRefused)  # what no waiting mends by itself


@dataclass(slots=True)
class _Counted:
    """Faults by object; one whose store does not answer is missing. `lost` chunks make the whole backup unreadable."""

    missing: set[tuple[int, int | None]] = field(default_factory=set)
    rotten: set[tuple[int, int | None]] = field(default_factory=set)
    lost: int = 0
    unseen: int = 0  # chunks that stores may have which do not answer

    async def objects(self, faults: AsyncIterator[Fault]) -> None:
        async for fault in faults:
            is_missing = fault.what in (Rot.LOST, Rot.AWAY)
            (self.missing if is_missing else self.rotten).add((fault.segment, fault.shard))

    async def chunks(self, faults: AsyncIterator[Fault]) -> None:
        async for fault in faults:
            self.unseen += fault.what is Rot.AWAY
            self.lost += fault.what is not Rot.AWAY

    def found(self, depth: Depth) -> Findings:
        """Raises `StoreAway` where it can't be said whether all can be read."""
        if self.unseen and not self.lost:
            raise StoreAway
        missing, rotten = len(self.missing), len(self.rotten - self.missing)
        reason = BackupBroken.code if self.lost else None
        return Findings(depth=depth, missing=missing, rotten=rotten, is_readable=not self.lost, reason=reason)


async def check(depot: Depot, run: Run[Any], backup: UUID | str, depth: Depth, *, repairs: bool) -> Findings:
    """What there is to say of a backup; where it `repairs`, after what can be made anew was made.

    Raises `BackupUnknown` for one that is gone, `StoreAway` while too little can be seen to judge.
    """
    live = await _live(run, UUID(str(backup)))
    found = await _looked(depot, run, live, depth)
    return await _mended(depot, run, live) if repairs and found.is_readable and not found.is_whole else found


def verify_backup_by(depot: Depot | None) -> Handler:
    async def verify_backup(run: Run[VerifyBackup]) -> None:
        asked = run.arguments
        found = await check(_wanted(depot), run, asked.backup, asked.depth, repairs=False)
        await _finish(run, asked.backup, found)

    return verify_backup


def repair_backup_by(depot: Depot | None) -> Handler:
    async def repair_backup(run: Run[RepairBackup]) -> None:
        there, backup = _wanted(depot), run.arguments.backup
        await _finish(run, backup, await _mended(there, run, await _live(run, backup)))

    return repair_backup


def check_backups_by(depot: Depot | None) -> Handler:
    """The cursor is the number of the last backup that was looked at."""

    async def check_backups(run: Run[NoArguments]) -> None:
        there = _wanted(depot)
        while True:
            async with run.step() as step:
                left = [each for each in await backup_acts.live(step.unit) if each.number > (run.cursor or 0)]
                if not left:
                    return step.finish(result={"backups": run.done})
                step.move(cursor=run.cursor, total=run.done + len(left))
            done = run.done
            found = await _judgement(there, run, left[0])
            async with run.step() as step:
                if found is not None:
                    await backup_acts.judged(step.unit, left[0].id, found)
                step.move(cursor=left[0].number, done=done + 1)

    return check_backups


def retire_backups_by(depot: Depot | None) -> Handler:
    """Objects first, on every store there is or was; then, when none lists it any more, the key."""

    async def retire_backups(run: Run[NoArguments]) -> None:
        there = _wanted(depot)
        async with run.step() as step:
            going = await backup_acts.expire(step.unit)
            step.move(cursor=None, total=run.done + len(going), gains=False)
        left = 0
        for backup in going:
            if not await _discard(there, run, backup):
                left += 1
                continue
            async with run.step() as step:
                await backup_acts.gone(step.unit, backup.id)
                step.move(cursor=None, done=run.done + 1)
        if left:
            raise StoreAway
        async with run.step() as step:
            step.finish(result={"deleted": run.done})

    return retire_backups


def _wanted(depot: Depot | None) -> Depot:
    if depot is None:
        raise BackupsUnavailable
    return depot


async def _finish(run: Run[Any], backup: UUID, found: Findings) -> None:
    async with run.step() as step:
        state = await backup_acts.judged(step.unit, backup, found)
        step.finish(result={"state": state, "missing": found.missing, "rotten": found.rotten})


async def _mended(depot: Depot, run: Run[Any], live: Live) -> Findings:
    try:
        await _repair(depot, run, live)
    except _UNTRUE as error:
        found = await _looked(depot, run, live, Depth.CHUNKS)
        return replace(found, is_readable=False, reason=error.code)
    return await _looked(depot, run, await _live(run, live.id), Depth.CHUNKS)


async def _judgement(depot: Depot, run: Run[Any], live: Live) -> Findings | None:
    """None where a store is away or the backup went meanwhile: one's trouble must not hold up the others."""
    try:
        return await check(depot, run, live.id, Depth.CHUNKS, repairs=True)
    except (StoreAway, BackupUnknown):
        return None


async def _live(run: Run[Any], backup: UUID) -> Live:
    """From now on, until the job has ended, nobody deletes it."""
    async with run.step() as step:
        live = await backup_acts.find_live(step.unit, backup)
        if live is not None:
            await backups.use(step.unit, backup, run.job)
        step.move(cursor=run.cursor, gains=False)
    if live is None:
        raise BackupUnknown
    return live


async def _looked(depot: Depot, run: Run[Any], live: Live, depth: Depth) -> Findings:
    """With keys also where something is amiss, so that it is known whether all of it can be read."""
    counted, pace = _Counted(), Pace(run)
    try:
        found = await depot.find(run.tenant, live)
        stores = [*depot.stores, *depot.former(live.places)]
        counted.missing |= {(-1, number) for number, _ in enumerate([*found.missing, *found.away])}  # manifests
        counted.rotten |= {(-2, number) for number, _ in enumerate(found.refused)}
        await counted.objects(verifying.verify_shards(found.manifest, stores, pace))
        if depth is Depth.CHUNKS or counted.missing or counted.rotten:
            key = await depot.open_key(run.tenant, live.id, live.wrapped_key)
            await counted.chunks(verifying.verify_chunks(found.manifest, stores, key, pace))
    except _UNTRUE as error:
        return Findings(depth=depth, is_readable=False, reason=error.code)
    return counted.found(depth)


async def _repair(depot: Depot, run: Run[Any], live: Live) -> None:
    """What lies on stores that are configured no longer moves to those that are."""
    found = await depot.find(run.tenant, live)
    former = depot.former(live.places)
    made = await repairing.repair(found, depot.stores, depot.sign, Pace(run), leaving=former)
    async with run.step() as step:
        manifest = made.manifest
        is_there = await backup_acts.moved(step.unit, live.id, manifest.generation, manifest.places, made.rewritten)
        step.move(cursor=run.cursor)
    if not is_there:  # what was made anew has nobody who would delete it
        await _discard(depot, run, live)
        raise BackupUnknown


async def _discard(depot: Depot, run: Run[Any], live: Live) -> bool:
    """Whether no store lists it any more."""
    stores = [*depot.stores, *depot.former(live.places)]
    try:
        await finding.discard(stores, run.tenant, live.id)
        return not any([await store.sizes(folder(run.tenant, live.id)) for store in stores])
    except StoreAway:
        return False
