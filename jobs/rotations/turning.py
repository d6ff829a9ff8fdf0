"""The night's work on a tenant's keys: what is due begins to be turned over, what nothing needs is destroyed."""

from domain import rotations
from jobs.handling import Run
from tenants.jobs import NoArguments
from tenants.keys import data_keys, index_keys


async def turn_keys(run: Run[NoArguments]) -> None:
    """Destroying an index key fences, as it changes keyrings; so it is looked first whether there is one."""
    async with run.step() as step:
        begun = await rotations.turn_due(step.unit)
        destroyed = await data_keys.destroy_unneeded(step.unit)
        has_outlived = await index_keys.has_outlived(step.unit)
        result = {"begun": int(begun is not None), "destroyed": destroyed}
        if not has_outlived:
            return step.finish(result=result)
        step.move(cursor=None, done=destroyed)
    async with run.step(fences=True) as step:
        gone = await index_keys.destroy_after_grace(step.unit)
        return step.finish(result=result | {"destroyed": destroyed + gone})
