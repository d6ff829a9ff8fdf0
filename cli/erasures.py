"""`coffer erasures`: verify a tenant's ledger of erasures, and that nobody in it has come back."""

import sys
from typing import Annotated

import typer

from cli.parts import Parts, with_parts
from domain import erasures
from tenants import tenants

commands = typer.Typer()


@commands.command()
def verify(slug: Annotated[str, typer.Argument(help="The tenant's slug.", metavar="TENANT")]) -> None:
    """Recompute the chain, check every certificate, and look for anybody who was erased and is there.

    Exits with 1 if anything is wrong.
    """

    async def run(parts: Parts) -> erasures.Verdict:
        tenant = await tenants.get(parts.platform, slug)
        public_keys = await parts.keys.public_keys(erasures.SIGNER)
        async with parts.units.enter(tenant.id, None, write=False) as unit:
            return await erasures.verify(unit, public_keys)

    verdict = with_parts(run)
    typer.echo(f"{verdict.erasures} erasures, {verdict.certificates} certificates.")
    for problem in verdict.problems:
        typer.echo(f"BROKEN: {problem}")
    if verdict.problems:
        sys.exit(1)
    typer.echo("The ledger is intact, and nobody in it is there.")
