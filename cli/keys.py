"""`coffer keys`: a tenant's keys without their secrets, how their turning-over goes, and whether all is as it says."""

import sys
from dataclasses import dataclass, field
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from cli.commands import minute
from cli.parts import Parts, with_parts
from crypto.errors import CofferError
from domain import key_checks, rotations
from domain.errors import Refused
from tenants import inspections, tenants
from tenants.inspections import DataKey, OpenRotation
from tenants.keys import proving, rotating
from tenants.keys.proving import Coverage
from tenants.keys.rotations import Cause, KeyPurpose
from tenants.viewers import TenantId

commands = typer.Typer()
Slug = Annotated[str, typer.Argument(help="The tenant's slug.", metavar="TENANT")]
_PURPOSE = typer.Option(
    help="KEK: the key in the key store. DEK: seals values. BIK: indexes them.", case_sensitive=False
)


@dataclass
class _Begun:
    """How many, and the slugs of those left out, and of those it could not be begun for, with the reason."""

    count: int = 0
    skipped: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


@commands.command()
def rotate(
    purpose: Annotated[KeyPurpose, _PURPOSE],
    slug: Annotated[str | None, typer.Argument(help="The tenant's slug.", metavar="TENANT")] = None,
    every: Annotated[bool, typer.Option("--all", help="A job for each active tenant.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Even within an hour of the last one.")] = False,
) -> None:
    """Begin to turn over a key; a worker does it while all goes on. One that was parked is taken up again."""
    if (slug is None) == (not every):
        raise typer.BadParameter("give a tenant, or --all")

    async def begin(parts: Parts) -> _Begun:
        if slug is not None:
            await _begin(parts, (await tenants.get(parts.platform, slug)).id, purpose, is_forced=force)
            return _Begun(1)
        return await _begin_everywhere(parts, purpose, is_forced=force)

    begun = with_parts(begin)
    typer.echo(
        f"{begun.count} rotation{'' if begun.count == 1 else 's'} of {purpose} begun or going on;"
        " see `coffer keys status`."
    )
    for each in begun.skipped:
        typer.echo(f"Left out: {each}")
    for each in begun.refused:
        typer.echo(f"Not begun: {each}", err=True)
    if begun.refused:
        sys.exit(1)


@commands.command()
def abandon(purpose: Annotated[KeyPurpose, _PURPOSE], slug: Slug) -> None:
    """End a rotation that is BEGUN and can't go on, its job parked or cancelled: so far it changed nothing."""

    async def end(parts: Parts) -> None:
        tenant = await tenants.get(parts.platform, slug)
        async with parts.units.enter(tenant.id, None, write=True) as unit:
            await rotating.abandon(unit, purpose)

    with_parts(end)
    typer.echo(f"The rotation of {purpose} was ended.")


@commands.command()
def status(slug: Slug) -> None:
    """Show each data key, how far a rotation is, and how much is sealed under which version."""

    async def read(parts: Parts) -> tuple[list[DataKey], list[OpenRotation], list[Coverage] | str]:
        tenant = (await tenants.get(parts.platform, slug)).id
        keys = await inspections.data_keys(parts.database, tenant)
        return keys, await inspections.open_rotations(parts.database, tenant), await _coverage(parts, tenant)

    keys, rotations, coverage = with_parts(read)
    console = Console()
    console.print(_keys(keys))
    if rotations:
        console.print(_rotations(rotations))
    if isinstance(coverage, str):
        typer.echo(f"What is sealed was not counted: {coverage}")
    elif coverage:
        console.print(_covered(coverage))


@commands.command()
def verify(slug: Slug) -> None:
    """Check the signature of each rotation's proof, and read every sealed value's header anew.

    Exits with 1 if a proof was changed, or if something needs a key that was left.
    """

    async def run(parts: Parts) -> list[str]:
        tenant = await tenants.get(parts.platform, slug)
        public_keys = await parts.keys.public_keys(rotating.SIGNED_BY)
        async with parts.units.enter(tenant.id, None, write=False) as unit:
            return await key_checks.faults(unit, public_keys)

    faults = with_parts(run)
    for fault in faults:
        typer.echo(f"WRONG: {fault}")
    if faults:
        sys.exit(1)
    typer.echo("The proofs are as they were signed, and nothing needs a key that was left.")


async def _begin(parts: Parts, tenant: TenantId, purpose: KeyPurpose, *, is_forced: bool) -> None:
    async with parts.units.enter(tenant, None, write=True) as unit:
        if not is_forced:
            await rotations.require_pause(unit, purpose)
        await rotating.begin(unit, purpose, Cause.ASKED)


async def _begin_everywhere(parts: Parts, purpose: KeyPurpose, *, is_forced: bool) -> _Begun:
    """One tenant holds up no other."""
    begun, last = _Begun(), ""
    while page := await tenants.page(parts.platform, after=last):
        last = page[-1].slug
        for tenant in page:
            if tenant.status != "ACTIVE":
                begun.skipped.append(f"{tenant.slug}: it is {tenant.status}")
                continue
            try:
                await _begin(parts, tenant.id, purpose, is_forced=is_forced)
                begun.count += 1
            except Refused as refused:
                begun.refused += [f"{tenant.slug}: {each.code}" for each in refused.errors]
            except CofferError as error:
                begun.refused.append(f"{tenant.slug}: {error.code}")
    return begun


async def _coverage(parts: Parts, tenant: TenantId) -> list[Coverage] | str:
    """The code of the error where the tenant can't be entered, as while it is suspended."""
    try:
        async with parts.units.enter(tenant, None, write=False) as unit:
            return [*await proving.count_versions(unit), *await rotations.indexed(unit)]
    except CofferError as error:
        return error.code


def _keys(keys: list[DataKey]) -> Table:
    table = Table("purpose", "version", "state", "wrapped by", "created", "days")
    for key in keys:
        wrapped_by = "-" if key.kek_version is None else f"v{key.kek_version}"
        made = minute(key.created_at)
        table.add_row(key.purpose, str(key.version), key.state, wrapped_by, made, str(key.age.days))
    return table


def _rotations(rotations: list[OpenRotation]) -> Table:
    table = Table("rotation of", "state", "since", "job", "done", "reason")
    for each in rotations:
        done = "-" if each.done is None else str(each.done) if each.total is None else f"{each.done} of {each.total}"
        since = minute(each.moved_at)
        table.add_row(each.purpose, each.state, since, each.job_state or "-", done, each.reason or "-")
    return table


def _covered(coverage: list[Coverage]) -> Table:
    table = Table("sealed or indexed in", "version", "rows")
    for each in coverage:
        table.add_row(each.place, str(each.version), str(each.rows))
    return table
