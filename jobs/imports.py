"""The job that makes customers of an imported file's rows."""

from dataclasses import asdict

from domain import imports
from jobs.handling import Run
from tenants.jobs import NoArguments


async def import_customers(run: Run[NoArguments]) -> None:
    """The cursor is the last row that was tried; each step tries the next hundred."""
    while True:
        async with run.step() as step:
            row, tried = await imports.work(step.unit, run.job, run.cursor or 0)
            if not tried:
                return step.finish(result=asdict(await imports.finish(step.unit, run.job)))
            step.move(cursor=row, done=run.done + tried, total=run.total)
