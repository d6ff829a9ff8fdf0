"""`coffer tenant`: create, list, suspend and resume tenants."""

from collections.abc import Callable
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.commands import Slug, minute
from cli.parts import Parts, provisioner_keys, with_parts
from domain import normalise
from domain.normalise import Invalid
from tenants import provisioning, tenants
from tenants.provisioning import Provisioning

commands = typer.Typer()


@commands.command("create")
def create_tenant(
    slug: Slug,
    name: Annotated[str, typer.Option(help="The company's name.")],
    region: Annotated[str, typer.Option(help="Reads phone numbers without a country code; ISO 3166-1.")] = "US",
    language: Annotated[str, typer.Option(help="BCP 47.")] = "en",
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Leave the making of its keys to a worker.")] = False,
) -> None:
    """Create a tenant with its keys; repeating it finishes what was cut off.

    Here and now if the provisioner's AppRole is set, else by a worker that has it.
    """
    from jobs.provisioning import provision_here

    country, tag = _parsed("--region", normalise.country, region), _parsed("--language", normalise.language, language)

    async def create(parts: Parts) -> tenants.Tenant:
        if no_wait or parts.settings.provisioner_role is None:
            return await provisioning.create(parts.platform, slug, name, region=country, language=tag)
        async with provisioner_keys(parts.settings) as maker:
            made = await provisioning.create(parts.platform, slug, name, region=country, language=tag)
            doing = Provisioning(parts.platform, parts.database, maker, parts.keys)
            return await provision_here(doing, made, parts.units, parts.database, parts.platform)

    made = with_parts(create)
    waits = " A worker makes its keys." if made.status == "PENDING" else ""
    typer.echo(f"{made.slug} is {made.status}.{waits}")


@commands.command("list")
def list_tenants() -> None:
    """List all tenants by slug."""

    async def read(parts: Parts) -> list[tenants.Tenant]:
        found: list[tenants.Tenant] = []
        while page := await tenants.page(parts.platform, after=found[-1].slug if found else ""):
            found += page
        return found

    table = Table("slug", "name", "status", "created")
    for tenant in with_parts(read):
        table.add_row(tenant.slug, Text(tenant.name), tenant.status, minute(tenant.created_at))
    Console().print(table)


@commands.command()
def suspend(slug: Slug) -> None:
    """Stop serving a tenant, from the next request on; its keys leave every process."""
    tenant = with_parts(lambda parts: tenants.suspend(parts.platform, slug))
    typer.echo(f"{tenant.slug} is {tenant.status}.")


@commands.command()
def resume(slug: Slug) -> None:
    """Serve a suspended tenant again."""
    tenant = with_parts(lambda parts: tenants.resume(parts.platform, slug))
    typer.echo(f"{tenant.slug} is {tenant.status}.")


def _parsed(option: str, parse: Callable[[str], str], value: str) -> str:
    try:
        return parse(value)
    except Invalid as invalid:
        raise typer.BadParameter(f"{option} {invalid.reason}.") from None
