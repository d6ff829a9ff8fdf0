"""`coffer worker` and `coffer jobs`: run background work, and see how far it is."""

import asyncio
import sys
from dataclasses import replace
from datetime import timedelta
from typing import Annotated
from uuid import UUID

import typer
from rich.console import Console
from rich.table import Column, Table

import settings as environment
from api.app import Api
from api.paging import any_local_id
from cli.commands import group, minute, with_api
from telemetry import logs, metrics
from tenants import job_acts, job_inspections, tenants
from tenants.jobs import Job, JobState
from tenants.viewers import TenantId

jobs_app = group("Background work: what waits, runs and has ended.")


def _job(text: str) -> UUID:
    """As `jobs list` prints it, or as GraphQL tells it."""
    found = any_local_id(text)
    if found is not None and found[0] == "Job":
        return found[1]
    try:
        return UUID(text)
    except ValueError:
        raise typer.BadParameter("no job's id; `coffer jobs list` tells them") from None


Id = Annotated[UUID, typer.Argument(help="The job's id.", metavar="ID", parser=_job)]


def worker(
    threads: Annotated[
        int | None, typer.Option(help="Jobs at once in a process; else COFFER_WORKER_THREADS.", min=1, max=100)
    ] = None,
    processes: Annotated[int, typer.Option(help="With 2 or more, one that dies is started again.", min=1)] = 1,
    alive: Annotated[
        bool, typer.Option("--alive", help="Only tell, by the exit status, whether one works here.")
    ] = False,
) -> None:
    """Do background work until SIGTERM or Ctrl-C; then running steps end, and jobs are given back."""
    from jobs.supervising import supervise
    from jobs.worker import is_alive

    if alive:
        sys.exit(0 if is_alive() else 1)
    settings = environment.read()
    settings = settings if threads is None else replace(settings, worker_threads=threads)
    logs.configure(settings.log_level)
    if processes > 1:
        command = [sys.executable, "-c", "import cli; cli.main()", "worker", "--threads", str(settings.worker_threads)]
        sys.exit(asyncio.run(supervise(command, processes)))
    asyncio.run(_working(settings))


async def _working(settings: environment.Settings) -> None:
    from jobs.worker import Worker

    made = Worker(settings)
    try:
        await made.check()
        typer.echo(f"Coffer works, {settings.worker_threads} jobs at once.", err=True)
        async with metrics.serving(made.metrics, settings.metrics_host, settings.metrics_port):
            await made.run()
    finally:
        await made.close()


@jobs_app.command("list")
def list_jobs(
    tenant: Annotated[str | None, typer.Option(help="A tenant's slug; else all tenants.")] = None,
    state: Annotated[JobState | None, typer.Option(help="Only jobs in this state.", case_sensitive=False)] = None,
    most: Annotated[int, typer.Option(help="How many at most.", min=1, max=10_000)] = 100,
) -> None:
    """List jobs, newest first."""

    async def read(api: Api) -> list[job_inspections.ListedJob]:
        of = None if tenant is None else (await tenants.get(api.platform, tenant)).id
        return await job_inspections.every(api.platform, tenant=of, state=state, most=most)

    # An id that is cut off could not be shown or retried.
    table = Table(Column("job", no_wrap=True, min_width=36), "tenant", "kind", "state", "created", "due")
    for job in with_api(read):
        table.add_row(str(job.id), job.slug, job.kind, job.state, minute(job.created_at), minute(job.due_at))
    Console().print(table)


@jobs_app.command()
def show(job: Id) -> None:
    """Show kind, state, attempts, progress and what is left of one job."""

    async def read(api: Api) -> Job:
        return await job_inspections.get(api.database, await job_inspections.tenant_of(api.platform, job), job)

    table = Table(show_header=False, box=None)
    for name, value in _told(with_api(read)).items():
        table.add_row(name, value)
    Console().print(table)


@jobs_app.command()
def retry(job: Id) -> None:
    """Let a parked job go on where it stood; its attempts and deaths count from nought."""

    async def act(api: Api) -> Job:
        tenant: TenantId = await job_inspections.tenant_of(api.platform, job)
        async with api.units.enter(tenant, None, write=True) as unit:
            return await job_acts.retry(unit, job)

    typer.echo(f"{job} is {with_api(act).state}.")


def _told(job: Job) -> dict[str, str]:
    progress = job_acts.progress(job)
    left = progress.left and timedelta(seconds=round(progress.left.total_seconds()))
    return {
        "job": str(job.id),
        "kind": job.kind,
        "state": job.state if job.wish is None else f"{job.state}, asked to {job.wish}",
        "attempt": str(job.attempt),
        "deaths": str(job.deaths),
        "progress": str(progress.done) if progress.total is None else f"{progress.done} of {progress.total}",
        "rate": "-" if progress.rate is None else f"{progress.rate:.1f}/s",
        "time left": "-" if left is None else str(left),
        "reason": job.reason or "-",
        "created": minute(job.created_at),
        "due": minute(job.due_at),
        "ended": "-" if job.ended_at is None else minute(job.ended_at),
    }
