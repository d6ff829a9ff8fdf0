"""`coffer tenant approve-offboarding` and `shred`: the operator's part in the end of a tenant."""

import os
from typing import Annotated

import orjson
import typer

from cli.commands import minute
from cli.parts import Parts, with_parts
from domain import offboardings
from settings import SettingsError
from tenants import tenants
from tenants.erasures.certificates import Signed, canonical
from tenants.erasures.offboardings import Offboarding

commands = typer.Typer()
TOKEN = "COFFER_SHREDDER_TOKEN"  # noqa: S105  # the variable's name
Slug = Annotated[str, typer.Argument(help="The tenant's slug.", metavar="TENANT")]


@commands.command()
def approve_offboarding(slug: Slug) -> None:
    """Approve the end of a tenant that has no other owner who could."""

    async def approve(parts: Parts) -> Offboarding:
        tenant = await tenants.get(parts.platform, slug)
        async with parts.units.enter(tenant.id, None, write=True) as unit:
            return await offboardings.approve(unit)

    approved = with_parts(approve)
    assert approved.shred_after is not None  # noqa: S101  # whoever approves sets it
    typer.echo(f"{slug} is frozen; its end can be called off until {minute(approved.shred_after)}.")


@commands.command("shred")
def shred_tenant(slug: Slug) -> None:
    """Destroy the key of a tenant whose cooling is over, then all that is left of it; may be repeated.

    The token comes from COFFER_SHREDDER_TOKEN; prints the certificate.
    """
    from crypto.shredding import Shredder
    from jobs.backups.stores import Store
    from jobs.shredding import shred

    token = os.environ.get(TOKEN)  # a command's input, not a setting of the service
    if not token:
        raise SettingsError(f"{TOKEN} is missing: a short token of the policy coffer-shredder; see docs/govern.md.")

    async def shredding(parts: Parts) -> Signed:
        settings, tenant = parts.settings, await tenants.get(parts.platform, slug)
        shredder = Shredder(settings.vault_address, token, ca_file=settings.vault_ca_file, mount=settings.transit_mount)
        stores = [Store(url) for url in settings.backup_stores]
        try:
            return await shred(
                tenant, app=parts.database, platform=parts.platform, keys=parts.keys, shredder=shredder, stores=stores
            )
        finally:
            await shredder.close()

    typer.echo(printed(with_parts(shredding)))


def printed(signed: Signed) -> str:
    """`json` is the text that was signed, to the byte; `certificate` is the same for the eye."""
    text = {"json": canonical(signed.said), "signature": signed.signature}
    shown = {"certificate": signed.said, "keyVersion": signed.key_version, **text}
    return orjson.dumps(shown, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2).decode()
