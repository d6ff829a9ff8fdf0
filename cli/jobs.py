"""`coffer jobs`: what background work waits, runs and has ended."""

from datetime import timedelta
from typing import Annotated
from uuid import UUID

import typer
from rich.console import Console
from rich.table import Column, Table

from cli.commands import minute
from cli.parts import Parts, with_parts
from tenants import tenants
from tenants.ids import any_local_id
from tenants.jobs import Job, JobState, job_acts, job_inspections
from tenants.viewers import TenantId

commands = typer.Typer()


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


@commands.command("list")
def list_jobs(
    tenant: Annotated[str | None, typer.Option(help="A tenant's slug; else all tenants.")] = None,
    state: Annotated[JobState | None, typer.Option(help="Only jobs in this state.", case_sensitive=False)] = None,
    most: Annotated[int, typer.Option(help="How many at most.", min=1, max=10_000)] = 100,
) -> None:
    """List jobs, newest first."""

    async def read(parts: Parts) -> list[job_inspections.ListedJob]:
        of = None if tenant is None else (await tenants.get(parts.platform, tenant)).id
        return await job_inspections.every(parts.platform, tenant=of, state=state, most=most)

    # An id that is cut off could not be shown or retried.
    table = Table(Column("job", no_wrap=True, min_width=36), "tenant", "kind", "state", "created", "due")
    for job in with_parts(read):
        table.add_row(str(job.id), job.slug, job.kind, job.state, minute(job.created_at), minute(job.due_at))
    Console().print(table)


@commands.command()
def show(job: Id) -> None:
    """Show kind, state, attempts, progress and what is left of one job."""

    async def read(parts: Parts) -> Job:
        return await job_inspections.get(parts.database, await job_inspections.tenant_of(parts.platform, job), job)

    table = Table(show_header=False, box=None)
    for name, value in _told(with_parts(read)).items():
        table.add_row(name, value)
    Console().print(table)


@commands.command()
def retry(job: Id) -> None:
    """Let a parked job go on where it stood; its attempts and deaths count from nought."""

    async def act(parts: Parts) -> Job:
        tenant: TenantId = await job_inspections.tenant_of(parts.platform, job)
        async with parts.units.enter(tenant, None, write=True) as unit:
            return await job_acts.retry(unit, job)

    typer.echo(f"{job} is {with_parts(act).state}.")


@commands.command()
def cancel(job: Id) -> None:
    """End a job: a running one after its present step, also where it has frozen its tenant. What it did stays done."""

    async def act(parts: Parts) -> Job:
        tenant: TenantId = await job_inspections.tenant_of(parts.platform, job)
        async with parts.units.enter(tenant, None, write=True, thaws=True) as unit:
            return await job_acts.cancel(unit, job)

    done = with_parts(act)
    typer.echo(f"{job} is {done.state}." if done.wish is None else f"{job} is {done.state}, asked to {done.wish}.")


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
