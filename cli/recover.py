"""`coffer recover`: after Postgres came back from a copy, bring it forward to what the key files know."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from crypto.errors import CofferError

if TYPE_CHECKING:
    from cli.parts import Parts
    from crypto.transit import TransitKeys
    from jobs.key_files.recovering import Recovered
    from settings import Settings
    from tenants.tenants import Tenant


def recover(
    slug: Annotated[str | None, typer.Argument(help="The tenant's slug; else all tenants.", metavar="TENANT")] = None,
    keep_api_keys: Annotated[
        bool, typer.Option("--keep-api-keys", help="Only if the copy lacks nothing: a revoked key would live again.")
    ] = False,
    without_key_files: Annotated[
        bool,
        typer.Option("--without-key-files", help="Only if the stores are lost; nobody is forgotten again then."),
    ] = False,
) -> None:
    """After Postgres was restored from a copy: forget again who was erased since, and end what may have been ended.

    Run it before any API or worker starts; it may be repeated. Exits with 1 if a tenant is left as it came back.
    See deploy/recovery.md.
    """
    from cli.parts import with_parts

    wishes = {"api_keys": not keep_api_keys, "needs_file": not without_key_files}
    failed = with_parts(lambda parts: recover_all(parts, slug, **wishes))
    if failed:
        typer.echo(f"{failed} left as they came back; mend what is named above, then run this again.", err=True)
        sys.exit(1)


async def recover_all(parts: "Parts", slug: str | None, **wishes: bool) -> int:
    """How many tenants could not be brought forward."""
    from jobs.backups.stores import Store
    from jobs.key_files.files import KeyFiles
    from jobs.key_files.recovering import Recovering
    from tenants.units import Units

    failed = 0
    stores = [Store(url) for url in parts.settings.backup_stores]
    async with _backup_keys(parts.settings) as backup_keys:
        units = Units(parts.database, parts.keys, parts.keyrings, admits=("ACTIVE", "SUSPENDED"))
        key_files = KeyFiles(units, parts.keys, backup_keys, stores)
        recovering = Recovering(units, parts.database, parts.keys, key_files)
        async for tenant in _tenants(parts, slug):
            try:
                typer.echo(f"{tenant.slug}: {_told(await recovering.recover(tenant.id, **wishes))}")
            except CofferError as error:
                failed += 1
                typer.echo(f"{tenant.slug}: {error.code}. {error}", err=True)
    return failed


def _told(done: "Recovered") -> str:
    found = "no key file" if done.found is None else f"key file {done.found}"
    now = "no stores" if done.generation == 0 else f"key file {done.generation} published"
    parts = [
        f"{found} found, {now}",
        f"{done.erased} erasures replayed",
        f"{done.data_keys} data keys and {len(done.backups)} backups taken over",
        f"{done.ended.sessions} sessions, {done.ended.letters} links of letters, {done.ended.api_keys} API keys,"
        f" {done.ended.rotations} rotations ended",
    ]
    if done.lost_keys:
        parts.append(f"gone for good: {', '.join(done.lost_keys)}; what they sealed does not open: {_advised(done)}")
    parts += [f"no manifest of backups {', '.join(map(str, done.lost))}"] if done.lost else []
    return "; ".join(parts) + "."


def _advised(done: "Recovered") -> str:
    if done.restore is None:
        return "no backup has it"
    return f"restore backup {done.restore.number} ({done.restore.id})"


async def _tenants(parts: "Parts", slug: str | None) -> AsyncIterator["Tenant"]:
    """Those that were ever served; one that is still to be made has nothing to bring forward."""
    from tenants import tenants

    if slug is not None:
        yield await tenants.get(parts.platform, slug)
        return
    after = ""
    while page := await tenants.page(parts.platform, after=after):
        for tenant in page:
            if tenant.status not in ("PENDING", "CLOSED"):
                yield tenant
        after = page[-1].slug


@asynccontextmanager
async def _backup_keys(settings: "Settings") -> AsyncIterator["TransitKeys | None"]:
    from cli.parts import keys_as

    if settings.backup_role is None:
        yield None
        return
    keys = keys_as(settings.backup_role, settings)
    try:
        yield keys
    finally:
        await keys.close()
