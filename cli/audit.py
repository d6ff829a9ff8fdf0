"""`coffer audit`: verify the chain of a tenant's audit log, and export the log."""

import sys
from datetime import UTC, datetime
from typing import Annotated

import orjson
import typer

from cli.parts import Parts, with_parts
from tenants import inspections, tenants
from tenants.audit.export import exported
from tenants.audit.store import CheckpointStore
from tenants.audit.verify import ChainVerifier, Verdict

commands = typer.Typer()
Slug = Annotated[str, typer.Argument(help="The tenant's slug.", metavar="TENANT")]
_FORMATS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S%z"]


@commands.command()
def verify(slug: Slug) -> None:
    """Recompute the whole chain and hold it against all checkpoints.

    Exits with 1 if it is not as it was written, with 3 if it is but the second place could not be asked.
    """

    async def run(parts: Parts) -> Verdict:
        tenant = await tenants.get(parts.platform, slug)
        chain = ChainVerifier(parts.keys, CheckpointStore(parts.settings.audit_store))
        async with inspections.snapshot(parts.database, tenant.id) as read:
            return await chain.verify(tenant.id, read)

    verdict = with_parts(run)
    copies = "the second place did not answer" if verdict.copies is None else f"{verdict.copies} copies"
    typer.echo(f"{verdict.entries} entries fit; {verdict.checkpoints} checkpoints, {copies}.")
    if verdict.broken is not None:
        entry = "" if verdict.broken.entry is None else f", entry {verdict.broken.entry}"
        typer.echo(f"BROKEN at seq {verdict.broken.seq}{entry}: {verdict.broken.kind.value}")
        sys.exit(1)
    typer.echo("The chain is intact.")
    if verdict.copies is None:
        typer.echo("But whether its end was cut off could not be checked; see COFFER_AUDIT_STORE.", err=True)
        sys.exit(3)


@commands.command()
def export(
    slug: Slug,
    since: Annotated[datetime | None, typer.Option("--from", help="The first moment, UTC.", formats=_FORMATS)] = None,
    until: Annotated[datetime | None, typer.Option("--to", help="The first moment after.", formats=_FORMATS)] = None,
) -> None:
    """Print the linked entries as JSON Lines, in the order of the chain, each with its seq and mac."""

    async def run(parts: Parts) -> None:
        tenant = await tenants.get(parts.platform, slug)
        async with inspections.snapshot(parts.database, tenant.id) as read:
            async for line in exported(tenant.id, read, _utc(since), _utc(until)):
                sys.stdout.buffer.write(orjson.dumps(line) + b"\n")

    with_parts(run)


def _utc(moment: datetime | None) -> datetime | None:
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment
