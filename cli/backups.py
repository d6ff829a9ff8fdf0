"""`coffer backups`: list a tenant's backups, make one, verify it, and repair it. A worker does the work."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Annotated
from uuid import UUID

import typer
from rich.console import Console
from rich.table import Column, Table

from cli.commands import minute
from cli.parts import Parts, with_parts
from domain import backups
from domain.backups import Depth
from domain.errors import Refused
from domain.paging import Window
from tenants import tenants
from tenants.backups import BackupRow
from tenants.ids import any_local_id
from tenants.jobs import ENDED, Job, JobId, JobState, job_inspections
from tenants.unit import Unit
from tenants.viewers import TenantId

commands = typer.Typer()
_POLL = 0.5  # seconds
_MOST = 100
Start = Callable[[Unit], Awaitable[JobId]]
Slug = Annotated[str, typer.Argument(help="The tenant's slug.", metavar="TENANT")]
Wait = Annotated[bool, typer.Option(help="Until a worker has done it.")]


def _backup(text: str) -> UUID:
    """As `backups list` prints it, or as GraphQL tells it."""
    found = any_local_id(text)
    if found is not None and found[0] == "Backup":
        return found[1]
    try:
        return UUID(text)
    except ValueError:
        raise typer.BadParameter("no backup's id; `coffer backups list` tells them") from None


Id = Annotated[UUID | None, typer.Option("--backup", help="Its id; else the newest.", metavar="ID", parser=_backup)]

_DEPTH = typer.Option(
    help="SHARDS: every byte, without a key. CHUNKS: opened too. Whether it restores, `drill` tells.",
    case_sensitive=False,
)


@commands.command("list")
def list_(slug: Slug) -> None:
    """The newest hundred, the newest first."""

    async def run(parts: Parts) -> list[BackupRow]:
        tenant = await tenants.get(parts.platform, slug)
        async with parts.units.enter(tenant.id, None, write=False) as unit:
            return list((await backups.page(unit, Window(_MOST))).nodes)

    numbers = [Column(name, justify="right") for name in ("rows", "MB", "missing", "rotten")]
    table = Table("number", "id", "made", "kind", "state", "verified", *numbers, "kept as", box=None)
    for row in with_parts(run):
        verified = minute(row.verified_at) if row.verified_at else "never"
        counts = (sum(row.tables.values()), round(row.bytes / 1e6), row.missing, row.rotten)
        kept = ", ".join([*row.kept_as, *(["held"] if row.held else [])]).lower()
        told = (row.number, row.id, minute(row.created_at), row.kind, row.state, verified, *counts, kept)
        table.add_row(*map(str, told))
    Console(width=None if sys.stdout.isatty() else 200).print(table)


@commands.command()
def make(slug: Slug, wait: Wait = True) -> None:
    """Back the tenant up now, and verify the backup."""
    _do(slug, backups.make, wait)


@commands.command()
def verify(
    slug: Slug,
    backup: Id = None,
    depth: Annotated[Depth, _DEPTH] = Depth.CHUNKS,
    wait: Wait = True,
) -> None:
    """Look whether a backup is what it should be. Exits with 1 if it is not."""

    async def start(unit: Unit) -> JobId:
        return await backups.verify(unit, backup or await _newest(unit), depth)

    _do(slug, start, wait)


@commands.command()
def repair(slug: Slug, backup: Id = None, wait: Wait = True) -> None:
    """Make what is lost or damaged anew from what is good, then verify the backup."""

    async def start(unit: Unit) -> JobId:
        return await backups.repair(unit, backup or await _newest(unit))

    _do(slug, start, wait)


async def _newest(unit: Unit) -> UUID:
    found = (await backups.page(unit, Window(1))).nodes
    if not found:
        raise typer.BadParameter("the tenant has no backup yet")
    return found[0].id


def _do(slug: str, start: Start, wait: bool) -> None:
    async def run(parts: Parts) -> Job:
        tenant = await tenants.get(parts.platform, slug)
        try:
            async with parts.units.enter(tenant.id, None, write=True) as unit:
                job = await start(unit)
        except Refused as refused:
            raise typer.BadParameter(refused.message) from None
        typer.echo(f"job {job}", err=True)
        if not wait:
            return await job_inspections.get(parts.database, tenant.id, job)
        return await _ended(parts, tenant.id, job)

    job = with_parts(run)
    result = job.result or {}
    typer.echo(" ".join([job.state, *([job.reason] if job.reason else []), *(f"{k}={v}" for k, v in result.items())]))
    is_bad = result.get("state") == "BROKEN" or result.get("missing") or result.get("rotten")
    if job.state in ENDED and (job.state != JobState.DONE or is_bad):
        sys.exit(1)


async def _ended(parts: Parts, tenant: TenantId, job: JobId) -> Job:
    while True:
        found = await job_inspections.get(parts.database, tenant, job)
        if found.state in ENDED:
            return found
        await asyncio.sleep(_POLL)
