"""`coffer recover`: after Postgres came back from a copy, bring it forward to what the key files know."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from api.app import Api
from cli.commands import with_api
from crypto.errors import CofferError
from crypto.transit import TransitKeys
from settings import Settings
from tenants import tenants
from tenants.tenants import Tenant
from tenants.units import Units

if TYPE_CHECKING:
    from jobs.key_files.recovering import Recovered


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
    wishes = {"api_keys": not keep_api_keys, "needs_file": not without_key_files}
    failed = with_api(lambda api: recover_all(api, slug, **wishes))
    if failed:
        typer.echo(f"{failed} left as they came back; mend what is named above, then run this again.", err=True)
        sys.exit(1)


async def recover_all(api: Api, slug: str | None, **wishes: bool) -> int:
    """How many tenants could not be brought forward."""
    from jobs.backups.stores import Store
    from jobs.key_files.files import KeyFiles
    from jobs.key_files.recovering import Recovering

    failed = 0
    stores = [Store(url) for url in api.settings.backup_stores]
    async with _backup_keys(api.settings) as backup_keys:
        units = Units(api.database, api.keys, api.keyrings, admits=("ACTIVE", "SUSPENDED"))
        key_files = KeyFiles(units, api.keys, backup_keys, stores)
        recovering = Recovering(units, api.database, api.keys, key_files)
        async for tenant in _tenants(api, slug):
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


async def _tenants(api: Api, slug: str | None) -> AsyncIterator[Tenant]:
    """Those that were ever served; one that is still to be made has nothing to bring forward."""
    if slug is not None:
        yield await tenants.get(api.platform, slug)
        return
    after = ""
    while page := await tenants.page(api.platform, after=after):
        for tenant in page:
            if tenant.status not in ("PENDING", "CLOSED"):
                yield tenant
        after = page[-1].slug


@asynccontextmanager
async def _backup_keys(settings: Settings) -> AsyncIterator[TransitKeys | None]:
    role = settings.backup_role
    if role is None:
        yield None
        return
    keys = TransitKeys(
        settings.vault_address,
        role.role_id,
        role.secret_id,
        ca_file=settings.vault_ca_file,
        mount=settings.transit_mount,
    )
    try:
        yield keys
    finally:
        await keys.close()
