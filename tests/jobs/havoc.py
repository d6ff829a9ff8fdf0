"""Everything that is done to keys and backups, begun in random order while workers die of it."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import asyncpg

from crypto.errors import CofferError
from domain import backups, restores
from domain.backups import CHECK_BACKUPS, RETIRE_BACKUPS, Depth
from domain.errors import Refused
from domain.restores import DRILL, Restore
from domain.rotations import TURN_KEYS
from jobs.backups.shapes import folder
from tenants.errors import JobRefused
from tenants.jobs import JobKind, NoArguments, job_acts
from tenants.keys import rotating
from tenants.keys.rotations import Cause, KeyPurpose
from tenants.unit import Unit
from tests.jobs.crowds import Crowd
from tests.jobs.desk import until

_DAMAGED = 5  # the number of the one store that rots
_VERIFIED = "SELECT id, job_id FROM backups WHERE tenant_id = $1 AND state = 'VERIFIED' ORDER BY number"


@dataclass
class Havoc:
    """Of one tenant. `floors` are those of the crowd when a job that backs up was asked for, by that job.

    A restore is of a backup that was asked for, and verified, while no restore was open: so it is known what it holds.
    """

    crowd: Crowd
    superuser: asyncpg.Connection
    stores: list[Path]
    chance: Random
    begun: Counter[str] = field(default_factory=Counter)
    floors: dict[UUID, Mapping[int, int | None]] = field(default_factory=dict)
    restore: tuple[UUID, Mapping[int, int | None]] | None = None
    _deck: list[str] = field(default_factory=list)

    async def stir(self) -> None:
        """Begin the next thing; each has its turn before any has a second one."""
        if not self._deck:
            self._deck = [*self._acts(), "back_up"]
            self.chance.shuffle(self._deck)
        await self.start(self._deck.pop())

    async def start(self, name: str) -> None:
        try:
            await self._acts()[name]()
        except (CofferError, Refused) as error:  # frozen for a restore, or the backup went meanwhile
            self.begun[f"{name} refused: {getattr(error, 'code', 'Refused')}"] += 1
        else:
            self.begun[name] += 1

    def _acts(self) -> Mapping[str, Callable[[], Awaitable[object]]]:
        return {
            **{purpose.value: self._rotating(purpose) for purpose in KeyPurpose},
            "back_up": self._back_up,
            "verify": self._verify,
            "repair": self._repair,
            "check": partial(self._enqueue, CHECK_BACKUPS),
            "retire": partial(self._enqueue, RETIRE_BACKUPS),
            "drill": partial(self._enqueue, DRILL),
            "turn": partial(self._enqueue, TURN_KEYS),
            "restore": self._restore,
        }

    async def backed_up(self) -> None:
        """One backup that may be restored."""
        await self._back_up()

        async def is_there() -> bool:
            return bool(await self._verified())

        await until(is_there, 60)

    async def watch(self) -> None:
        """See whether the restore is over, and let go on what three dead workers parked, as an operator would."""
        parked = "SELECT id FROM jobs WHERE tenant_id = $1 AND state = 'PARKED' AND reason = 'WORKER_DIED'"
        for job in await self.superuser.fetch(parked, self.crowd.tenant):
            try:
                await self._act(partial(job_acts.retry, job=job["id"]))
            except JobRefused:  # another does the same by now
                await self.superuser.execute("UPDATE jobs SET state = 'CANCELLED' WHERE id = $1", job["id"])
            except CofferError:
                continue
            self.begun["retry"] += 1
        if self.restore is not None:
            restore, floors = self.restore
            said = "SELECT state || ' ' || coalesce(reason, '') FROM jobs WHERE id = $1"
            state, _, reason = (await self.superuser.fetchval(said, restore)).partition(" ")
            if state == "DONE":
                self.restore = None
                self.crowd.went_back(floors)
            elif (state, reason) != ("PARKED", "WORKER_DIED") and state in ("PARKED", "CANCELLED"):
                self.restore, self.crowd.is_restoring = None, False

    async def _back_up(self) -> None:
        floors, is_open = self.crowd.floors, self.restore is not None
        job = await self._act(backups.make)
        if not is_open and job not in self.floors:
            self.floors[job] = floors

    async def _restore(self) -> None:
        good = [row for row in await self._verified() if row["job_id"] in self.floors]
        if self.restore is not None or not good:
            return
        backup = self.chance.choice(good)
        floors = self.floors[backup["job_id"]]
        self.floors = {row["job_id"]: self.floors[row["job_id"]] for row in good}  # others may hold what is undone
        wanted = Restore(backup["id"], dry_run=False, without_safety=self.chance.random() < 0.3)
        self.crowd.is_restoring = True
        try:
            self.restore = await self._act(partial(restores.start, wanted=wanted)), floors
        except BaseException:
            self.crowd.is_restoring = False
            raise
        self.begun["restore of a backup"] += 1

    async def _verify(self) -> None:
        depth = self.chance.choice(list(Depth))
        for backup in (await self._verified())[-1:]:
            await self._act(partial(backups.verify, backup=backup["id"], depth=depth))

    async def _repair(self) -> None:
        """Of what a store has lost or has rotten."""
        for backup in (await self._verified())[-2:]:
            there = self.stores[_DAMAGED] / folder(self.crowd.tenant, backup["id"])
            await asyncio.to_thread(_damage, there, self.chance)
            await self._act(partial(backups.repair, backup=backup["id"]))

    def _rotating(self, purpose: KeyPurpose) -> Callable[[], Awaitable[object]]:
        return partial(self._act, partial(rotating.begin, purpose=purpose, cause=Cause.ASKED))

    async def _enqueue(self, kind: JobKind[Any], arguments: Any = None) -> UUID:
        wanted = NoArguments() if arguments is None else arguments
        return UUID(str(await self._act(lambda unit: unit.enqueue(kind, wanted))))

    async def _act(self, act: Callable[[Unit], Awaitable[Any]]) -> Any:
        async with self.crowd.house.api.units.enter(self.crowd.tenant, None, write=True) as unit:
            return await act(unit)

    async def _verified(self) -> list[asyncpg.Record]:
        return list(await self.superuser.fetch(_VERIFIED, self.crowd.tenant))


def _damage(folder: Path, chance: Random) -> None:
    """Some objects are lost, some have a bit that is another."""
    for path in sorted(folder.glob("*")):
        fate = chance.random()
        with suppress(FileNotFoundError):  # the backup may be going just now
            if fate < 0.3:
                path.unlink()
            elif fate < 0.6:
                content = bytearray(path.read_bytes())
                content[int(fate * 1000) % len(content)] ^= 1
                path.write_bytes(content)
