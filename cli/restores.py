"""`coffer backups restore` and `drill`: data back, a new tenant made of a backup, and the proof it would go."""

import sys
from typing import Annotated
from uuid import UUID

import typer

from cli.backups import Id, Slug, Wait, _backup, _do, _newest
from cli.parts import Parts, provisioner_keys, with_parts
from domain import restores, transplants
from domain.restores import Restore
from tenants import tenants
from tenants.jobs import JobId
from tenants.provisioning import Provisioning
from tenants.tenants import Tenant
from tenants.unit import Unit
from tenants.viewers import TenantId

commands = typer.Typer()
Named = Annotated[UUID, typer.Argument(help="As `coffer backups list` prints it.", metavar="BACKUP", parser=_backup)]


@commands.command()
def restore(
    slug: Slug,
    backup: Named,
    now: Annotated[bool, typer.Option("--now", help="Do it; else only tell what would change.")] = False,
    without_safety: Annotated[
        bool, typer.Option("--without-safety", help="Make no backup of what is replaced: there is no way back.")
    ] = False,
    into: Annotated[
        str | None, typer.Option(help="The slug of a new tenant, made of the backup; the old one stays as it is.")
    ] = None,
    wait: Wait = True,
) -> None:
    """Replace a tenant's data by a backup's, or make a new tenant of it with --into."""
    if into is not None:
        told = with_parts(lambda parts: _move(parts, slug, backup, into))
        typer.echo(" ".join([f"{into} is made.", *(f"{name}={count}" for name, count in told.items())]))
        return

    async def start(unit: Unit) -> JobId:
        return await restores.start(unit, Restore(backup, dry_run=not now, without_safety=without_safety))

    _do(slug, start, wait)


@commands.command()
def drill(slug: Slug, backup: Id = None, wait: Wait = True) -> None:
    """Restore a backup on trial, into nothing. Exits with 1 if it could not be restored."""

    async def start(unit: Unit) -> JobId:
        return await restores.start_drill(unit, backup or await _newest(unit))

    _do(slug, start, wait)


async def _move(parts: Parts, slug: str, backup: UUID, into: str) -> dict[str, int]:
    """Refused before anything is made. Repeating it finishes what was cut off: all rows come in one transaction."""
    from jobs.restoring.moving import move, reading_depot, refuse_unmovable

    tenants.check_slug(into)
    old = await tenants.get(parts.platform, slug)
    stores = parts.settings.backup_stores
    if not stores:
        typer.echo("COFFER_BACKUP_STORES is missing; see README, Settings.", err=True)
        sys.exit(2)
    depot = reading_depot(parts.units, parts.keys, parts.database, stores)
    await _refuse_inhabited(parts, into)
    await refuse_unmovable(depot, parts.units, old.id, backup)
    try:
        new = await _made(parts, old, into)
        return (await move(depot, parts.units, old.id, backup, TenantId(new.id))).said
    except Exception:
        again = f"coffer backups restore {slug} {backup} --into {into}"
        typer.echo(f"{into} may stand by now, with nobody and nothing in it. To go on there: {again}", err=True)
        raise


async def _refuse_inhabited(parts: Parts, into: str) -> None:
    found = await tenants.find(parts.platform, into)
    if found is not None and found.status != "PENDING":
        async with parts.units.enter(found.id, None, write=False) as unit:
            await transplants.refuse_inhabited(unit)


async def _made(parts: Parts, old: Tenant, into: str) -> Tenant:
    async with parts.units.enter(old.id, None, write=False) as unit:
        region, language = unit.tenant.default_region, unit.tenant.default_language
    async with provisioner_keys(parts.settings) as maker:
        doing = Provisioning(parts.platform, parts.database, maker, parts.keys)
        return await doing.provision(into, old.name, region=region, language=language)
