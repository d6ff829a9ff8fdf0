"""The job that turns over a tenant's index key: search goes on all the while, by one key and then by the next.

From COMMITTED on all writers write tokens of both keys, and this job those of what was there before (FILLING). Where
both agree (FILLED), readers change over at once (SWITCHED), and then the tokens of the old key go (CLEANED).
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any
from uuid import UUID

from crypto.keys import KeyState, Purpose
from crypto.transit import TransitKeys
from domain.indexes import INDEXES
from jobs.handling import Handler, Run, Step
from jobs.throttle import throttle_of
from tenants.errors import IndexDrifts, RotationUnavailable
from tenants.keys import index_keys, new_keys, rotating, token_tables
from tenants.keys.rotating import BEGUN, SIGNED_BY, RotationArguments, proof_message
from tenants.keys.token_tables import TokenTable
from tenants.unit import Unit

FILLED_AT_ONCE = 200  # owners of tokens: their rows are locked meanwhile
PROVEN_AT_ONCE = 2_000
CLEARED_AT_ONCE = 500
_PROVING = "PROVING"  # within FILLING: all is filled, and is compared
_SIGNING = "SIGNING"  # within SWITCHED: nothing of the old key is left
_FIRST = UUID(int=0)


@dataclass(frozen=True, slots=True)
class At:
    """Where the job stands: in which state, at which table of `INDEXES`, behind which owner; and what it counted.

    As the job's cursor it is JSON. `proof` has counts by table: "owners", "tokens", "rewritten", "cleared".
    """

    state: str
    versions: tuple[int, int]
    table: int = 0
    after: str | None = None
    proof: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @classmethod
    def load(cls, cursor: Any) -> "At":
        return cls(**{**cursor, "versions": tuple(cursor["versions"])})

    def enter(self, state: str) -> "At":
        return replace(self, state=state, table=0, after=None)

    def past(self, page: Sequence[UUID], most: int, **counted: int) -> "At":
        """Behind that page; at the next table after one that is not full: who comes now comes with all tokens."""
        known = self.proof.get(self.index.name, {})
        counts = dict(known) | {name: known.get(name, 0) + number for name, number in counted.items()}
        at = replace(self, proof={**self.proof, self.index.name: counts})
        is_last = len(page) < most
        return replace(at, table=at.table + is_last, after=None if is_last else str(page[-1]))

    @property
    def is_through(self) -> bool:
        return self.table == len(INDEXES)

    @property
    def index(self) -> TokenTable:
        return INDEXES[self.table]

    async def page(self, unit: Unit, most: int) -> list[UUID]:
        return list(await token_tables.page(unit, self.index, UUID(self.after) if self.after else _FIRST, most))


def rotate_bik_by(keys: TransitKeys | None, maker: TransitKeys | None) -> Handler:
    """None: this worker has no right to make keys, and takes no such job."""

    async def rotate_bik(run: Run[RotationArguments]) -> None:
        if keys is None or maker is None:
            raise RotationUnavailable
        throttle = throttle_of(run)
        if run.cursor is None:
            await _find_place(run)
        while not run.is_finished:
            at = At.load(run.cursor)
            with throttle.measured():
                await _move_on(run, at, keys, maker)
            await throttle.rest()

    return rotate_bik


async def _move_on(run: Run[RotationArguments], at: At, keys: TransitKeys, maker: TransitKeys) -> None:
    if at.state == BEGUN:
        await _commit(run, at, keys, maker)
    elif at.state == _SIGNING:
        await _end(run, at, keys)
    else:
        async with run.step(fences=at.state == "FILLED") as step:
            await _STEPS[at.state](run, step, at)


async def _find_place(run: Run[RotationArguments]) -> None:
    """A job that takes over from another goes on in the state that the rotation is in, from its beginning."""
    async with run.step() as step:
        found = await rotating.find(step.unit, run.arguments.rotation)
        if found.ended_at is None:
            owners = [await token_tables.count_owners(step.unit, index) for index in INDEXES]
            known = (found.proof or {}).get("tables", {}) if found.state in ("FILLED", "SWITCHED") else {}
            at = At(found.state, (found.from_version, found.to_version), proof=known)
            step.move(cursor=asdict(at), done=0, total=sum(owners))
        else:
            step.finish(result=found.proof)


async def _commit(run: Run[RotationArguments], at: At, keys: TransitKeys, maker: TransitKeys) -> None:
    made = await new_keys.make(maker, keys, run.tenant, Purpose.BIK, at.versions[1], KeyState.NEXT)
    async with run.step(fences=True) as step:
        await index_keys.announce(step.unit, made)
        await _enter(run, step, at, "COMMITTED")


async def _start_filling(run: Run[RotationArguments], step: Step, at: At) -> None:
    await _enter(run, step, at, "FILLING")


async def _fill(run: Run[RotationArguments], step: Step, at: At) -> None:
    """A page: what changed since the key was announced has its tokens, and gets the same anew."""
    page = await at.page(step.unit, FILLED_AT_ONCE)
    if page:
        await at.index.rewrite(step.unit, page, at.versions[1:])
    at = at.past(page, FILLED_AT_ONCE)
    step.move(cursor=asdict(at.enter(_PROVING) if at.is_through else at), done=run.done + len(page))


async def _prove(run: Run[RotationArguments], step: Step, at: At) -> None:
    """A page: where the keys' tokens do not agree, those of both are written anew. Raises `IndexDrifts`."""
    page = await at.page(step.unit, PROVEN_AT_ONCE)
    wrong: list[UUID] = []
    tokens = 0
    if page:
        wrong = await token_tables.disagreeing(step.unit, at.index, page, at.versions)
        for n in range(0, len(wrong), FILLED_AT_ONCE):
            await at.index.rewrite(step.unit, wrong[n : n + FILLED_AT_ONCE], at.versions)
        if wrong and await token_tables.disagreeing(step.unit, at.index, page, at.versions):
            raise IndexDrifts
        tokens = await token_tables.count(step.unit, at.index, page, at.versions[1])
    at = at.past(page, PROVEN_AT_ONCE, owners=len(page), tokens=tokens, rewritten=len(wrong))
    if at.is_through:
        await _enter(run, step, at, "FILLED", proof=_proof(run, at))
    else:
        step.move(cursor=asdict(at))


async def _switch(run: Run[RotationArguments], step: Step, at: At) -> None:
    await index_keys.switch(step.unit, *at.versions)
    await _enter(run, step, at, "SWITCHED")


async def _clear(run: Run[RotationArguments], step: Step, at: At) -> None:
    page = await at.page(step.unit, CLEARED_AT_ONCE)
    cleared = await token_tables.clear(step.unit, at.index, page) if page else 0
    at = at.past(page, CLEARED_AT_ONCE, cleared=cleared)
    if at.is_through:
        is_left = [index for index in INDEXES if not await token_tables.is_clear(step.unit, index)]
        at = at.enter("SWITCHED" if is_left else _SIGNING)
    step.move(cursor=asdict(at))


async def _end(run: Run[RotationArguments], at: At, keys: TransitKeys) -> None:
    proof = _proof(run, at)
    signed = await keys.sign(SIGNED_BY, proof_message(run.tenant, proof))
    async with run.step() as step:
        rotation = run.arguments.rotation
        await rotating.move(step.unit, rotation, "CLEANED", proof=proof, signed=signed, ended=True)
        step.finish(result=proof)


_STEPS: Mapping[str, Callable[[Run[RotationArguments], Step, At], Awaitable[None]]] = {
    "COMMITTED": _start_filling,
    "FILLING": _fill,
    _PROVING: _prove,
    "FILLED": _switch,
    "SWITCHED": _clear,
}


async def _enter(
    run: Run[RotationArguments], step: Step, at: At, state: str, proof: Mapping[str, Any] | None = None
) -> None:
    await rotating.move(step.unit, run.arguments.rotation, state, proof=proof)
    step.move(cursor=asdict(at.enter(state)))


def _proof(run: Run[RotationArguments], at: At) -> dict[str, Any]:
    """For each table how many owners it has, how many tokens they have by either key, whose had to be mended."""
    return {
        "rotation": str(run.arguments.rotation),
        "purpose": Purpose.BIK.value,
        "fromVersion": at.versions[0],
        "toVersion": at.versions[1],
        "tables": at.proof,
    }
