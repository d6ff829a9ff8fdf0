"""The job that gives all customers of one member to another."""

from uuid import UUID

from domain import hand_overs
from domain.hand_overs import HandOver
from jobs.handling import Run

_FIRST = UUID(int=0)


async def hand_over_customers(run: Run[HandOver]) -> None:
    """The cursor is the id of the last customer handed over: one that comes to the member behind it stays there."""
    while True:
        async with run.step() as step:
            after = UUID(run.cursor) if run.cursor else _FIRST
            last, moved = await hand_overs.work(step.unit, run.arguments, after)
            if not moved:
                return step.finish(result={"handedOver": run.done})
            step.move(cursor=str(last), done=run.done + moved)
