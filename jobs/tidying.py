"""The job of a tenant's housekeeping: one batch a step, one table after the other."""

from domain.imports import forget_cancelled
from domain.tidying import BATCH, FORGOTTEN, forget_some
from domain.usage import keep_size
from jobs.handling import Run
from tenants.jobs import NoArguments


async def tidy(run: Run[NoArguments]) -> None:
    """The cursor is the place of the table in `FORGOTTEN`."""
    tables = list(FORGOTTEN)
    while True:
        async with run.step() as step:
            place = run.cursor or 0
            if run.cursor is None:
                await forget_cancelled(step.unit)
            gone = await forget_some(step.unit, tables[place])
            place += gone < BATCH
            if place == len(tables):
                await keep_size(step.unit)
                return step.finish(result={"forgotten": run.done + gone}, done=run.done + gone)
            step.move(cursor=place, done=run.done + gone)
