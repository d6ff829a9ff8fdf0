"""The job that takes erased people out of the key files, and certifies that nothing is left that would open them."""

from collections.abc import Sequence

from crypto.transit import TransitKeys
from domain import erasures
from domain.erasures import Wanted
from jobs.handling import Handler, Run
from jobs.key_files.files import KeyFiles
from tenants.erasures import certificates

_AT_ONCE = 20


def finish_erasure_by(key_files: KeyFiles | None, keys: TransitKeys | None) -> Handler:
    """None: this worker may not write key files or sign, and takes no such job.

    The cursor is [the ledger's newest number before the key file was written, the file's generation once it is].
    """

    async def finish_erasure(run: Run[Wanted]) -> None:
        if key_files is None or keys is None:
            raise TypeError("a worker without the role of backups takes no finish_erasure")
        if run.cursor is None and not await _begun(run):
            return
        if len(run.cursor) == 1:
            generation = await key_files.publish(run.tenant)
            async with run.step(thaws=True) as step:
                step.move(cursor=[*run.cursor, generation])
        while not run.is_finished:
            await _certified(run, keys, [store.url for store in key_files.stores])

    return finish_erasure


async def _begun(run: Run[Wanted]) -> bool:
    """False where another job has finished this erasure with its own."""
    async with run.step(thaws=True) as step:
        newest = await erasures.newest_unfinished(step.unit, run.arguments.erasure)
        if newest is None:
            step.finish(result={"certificates": 0})
        else:
            step.move(cursor=[newest])
    return newest is not None


async def _certified(run: Run[Wanted], keys: TransitKeys, stores: Sequence[str]) -> None:
    until, generation = run.cursor
    async with run.step(thaws=True) as step:
        found = await erasures.unfinished(step.unit, until, _AT_ONCE)
        said = await erasures.said(step.unit, found, generation, stores)
        signed = [await certificates.sign(keys, run.tenant, each) for each in said]
        await erasures.finish(step.unit, found, generation, signed)
        if len(found) < _AT_ONCE:
            step.finish(result={"keyFile": generation}, done=run.done + len(found))
        else:
            step.move(cursor=run.cursor, done=run.done + len(found))
