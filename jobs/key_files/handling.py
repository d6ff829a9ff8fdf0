"""The job that publishes a tenant's key file."""

from jobs.handling import Handler, Run
from jobs.key_files.files import KeyFiles
from tenants.jobs import NoArguments
from tenants.keys import key_files as rows


def publish_key_file_by(key_files: KeyFiles | None) -> Handler:
    """None: this worker has no right to make keys of backups, and takes no such job."""

    async def publish_key_file(run: Run[NoArguments]) -> None:
        if run.cursor is None:
            async with run.step(thaws=True) as step:
                await rows.begin_publish(step.unit, run.job)
                step.move(cursor=0)
        generation = 0 if key_files is None else await key_files.publish(run.tenant)
        async with run.step(thaws=True) as step:
            step.finish(result={"generation": generation})

    return publish_key_file
