"""The job that turns over a tenant's data key: makes a new one, seals everything anew, proves it, retires the old one.

States: COMMITTED (the new key is kept), FENCED (it is in force: whoever sealed by the old one has ended), RESEALING,
DRAINED (no declared column holds anything older), PROVEN (no column at all does), RETIRED (no keyring holds the old
key). Here the rotation ends; the old key is destroyed later, when no backup and no key file needs it any more, by
`tenants.keys.data_keys.destroy_unneeded`. Cut off anywhere, the job goes on by the rotation's state, and inside
RESEALING by its cursor.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from crypto.keys import KeyState, Purpose
from crypto.transit import TransitKeys
from jobs.handling import Handler, Run, Step
from jobs.throttle import throttle_of
from tenants.errors import Conflict, RotationRefused, RotationStopped, RotationUnavailable, RotationWaits
from tenants.keys import data_keys, new_keys, proving, resealing, rotating
from tenants.keys.rotating import BEGUN, SIGNED_BY, RotationArguments, proof_message
from tenants.unit import Unit

PAGE = 200  # rows: a statement that takes longer is felt by whoever reads a page meanwhile
_FENCES = 5  # tries, before the job is put off
_FIRST_PAUSE = 0.25  # seconds
_IDLE_PASSES = 8  # that found nothing but rows which others hold
_STOPPED = "key.rotation.stopped"


def rotate_dek_by(keys: TransitKeys | None, maker: TransitKeys | None) -> Handler:
    """`maker` may make keys, `keys` open them and sign. None: this worker takes no such job."""

    async def rotate_dek(run: Run[RotationArguments]) -> None:
        if keys is None or maker is None:
            raise RotationUnavailable
        turning = await _found(run, keys, maker)
        try:
            await turning.go_on()
        except RotationStopped as stopped:
            await turning.tell(stopped)
            raise

    return rotate_dek


async def _found(run: Run[RotationArguments], keys: TransitKeys, maker: TransitKeys) -> "_Turning":
    async with run.looking() as unit:
        row = await rotating.find(unit, run.arguments.rotation)
        return _Turning(run, keys, maker, row.id, row.state, row.from_version, row.to_version)


@dataclass
class _Turning:
    """One rotation on its way from the key of version `old` to that of version `new`."""

    run: Run[RotationArguments]
    keys: TransitKeys
    maker: TransitKeys
    rotation: UUID
    state: str
    old: int
    new: int

    async def go_on(self) -> None:
        """From the present state to the end."""
        acts: dict[str, Callable[[], Awaitable[None]]] = {
            BEGUN: self._commit,
            "COMMITTED": self._fence,
            "FENCED": self._begin_resealing,
            "RESEALING": self._reseal,
            "DRAINED": self._prove,
            "PROVEN": self._retire,
        }
        while self.state in acts:
            await acts[self.state]()
        if not self.run.is_finished:
            async with self.run.step() as step:
                step.finish(result=self._result())

    async def tell(self, stopped: RotationStopped) -> None:
        """Name in the audit log what has to be mended."""
        details = {"purpose": "DEK", "code": stopped.code, "place": stopped.place}
        details |= {"row": stopped.row} if stopped.row else {}
        async with self.run.step() as step:
            step.unit.audit(_STOPPED, subject_type="KeyRotation", subjects=[self.rotation], details=details)
            step.move(cursor=self.run.cursor, gains=False)

    async def _commit(self) -> None:
        """Kept before it is in force, so that nothing is ever sealed by a key that can get lost."""
        made = await new_keys.make(self.maker, self.keys, self.run.tenant, Purpose.DEK, self.new, KeyState.NEXT)
        async with self.run.step() as step:
            await data_keys.check_in(step.unit, made)
            await self._move(step, "COMMITTED")
        self.state = "COMMITTED"

    async def _fence(self) -> None:
        async def put_in_force(step: Step) -> None:
            await data_keys.put_in_force(step.unit, self.old, self.new)
            await self._move(step, "FENCED")

        await self._alone(put_in_force)
        self.state = "FENCED"

    async def _begin_resealing(self) -> None:
        async with self.run.step() as step:
            total = await resealing.count_old(step.unit, self.new)
            await self._move(step, "RESEALING", total=total)
        self.state = "RESEALING"

    async def _reseal(self) -> None:
        """Passes over all tables, until none finds anything; what somebody holds is met again in the next."""
        throttle, idle = throttle_of(self.run), 0
        while self.state == "RESEALING":
            with throttle.measured():
                found = await self._turn_a_page()
            idle = 0 if found else idle + 1
            if idle > _IDLE_PASSES:
                raise RotationWaits
            await (throttle.rest() if found else _pause(idle))

    async def _turn_a_page(self) -> int:
        """How many rows were sealed anew. None at the end of a pass, which begins anew, or was the last."""
        async with self.run.step() as step:
            if step.unit.keyring.active_version(Purpose.DEK) != self.new:
                raise RotationRefused
            cursor, page = await self._next_page(step.unit, self.run.cursor)
            is_drained = page == 0 and not await resealing.count_old(step.unit, self.new)
            if is_drained:
                await self._move(step, "DRAINED")
            else:
                done = self.run.done + page
                step.move(cursor=cursor, done=done, total=max(done, self.run.total or 0))
        self.state = "DRAINED" if is_drained else self.state
        return page

    async def _next_page(self, unit: Unit, cursor: Any) -> tuple[Any, int]:
        """The cursor is the table, and the id of the last row, behind which the next page begins; None: a new pass."""
        table, after = (cursor["table"], cursor["after"]) if cursor else ("", None)
        for shelf in resealing.shelves():
            if shelf.table < table:
                continue
            behind = UUID(after) if after and shelf.table == table else None
            page = await resealing.reseal_page(unit, shelf, self.new, behind, PAGE)
            if page.rows:
                return {"table": shelf.table, "after": str(page.last)}, page.rows
        return None, 0

    async def _prove(self) -> None:
        async with self.run.looking() as unit:
            said = await proving.prove(unit, self.rotation, self.old, self.new)
        signed = await self.keys.sign(SIGNED_BY, proof_message(self.run.tenant, said))
        async with self.run.step() as step:
            await self._move(step, "PROVEN", proof=said, signed=signed)
        self.state = "PROVEN"

    async def _retire(self) -> None:
        async def retire(step: Step) -> None:
            await data_keys.retire(step.unit, self.old)
            await rotating.move(step.unit, self.rotation, "RETIRED", ended=True)
            step.finish(result=self._result())

        await self._alone(retire)
        self.state = "RETIRED"

    async def _alone(self, act: Callable[[Step], Awaitable[None]]) -> None:
        """A step that has the tenant to itself. Raises `Conflict` where writers left it no gap."""
        for tried in range(1, _FENCES + 1):
            try:
                async with self.run.step(fences=True) as step:
                    await act(step)
                return
            except Conflict:
                if tried == _FENCES:
                    raise
            await _pause(tried)

    async def _move(self, step: Step, state: str, *, total: int | None = None, **what: Any) -> None:
        """The job begins the next state without a cursor."""
        await rotating.move(step.unit, self.rotation, state, **what)
        step.move(cursor=None, total=total)

    def _result(self) -> dict[str, Any]:
        return {"rotation": str(self.rotation), "resealed": self.run.done}


async def _pause(tried: int) -> None:
    """Exponential with jitter: writers have the tenant to themselves meanwhile."""
    await asyncio.sleep(random.uniform(0.5, 1) * _FIRST_PAUSE * 2 ** min(tried - 1, 4))  # noqa: S311  # spreads load
