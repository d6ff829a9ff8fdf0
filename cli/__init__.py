"""The command line: composes what the packages offer, and tells every expected failure in one sentence.

It holds no SQL and no rules. `local` and the servers are imported where they are used, so that help comes at once.
"""

import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from sqlalchemy.exc import DBAPIError

import settings as environment
from api.app import Api
from api.schema import build
from cli.audit import audit_app
from cli.backups import backups_app
from cli.commands import group, minute, with_api
from cli.doctor import doctor, provisioner_keys, refusal
from cli.erasures import erasures_app
from cli.jobs import jobs_app, worker
from cli.keys import keys_app
from cli.offboarding import approve_offboarding, shred_tenant
from cli.recover import recover
from cli.restores import drill, restore
from crypto.errors import CofferError
from domain import normalise
from domain.normalise import Invalid
from local.errors import LocalServiceError
from settings import SettingsError
from telemetry import logs, metrics
from tenants import members, provisioning, second_factors, tenants
from tenants.access import Role
from tenants.errors import DatabaseUnavailable
from tenants.provisioning import Provisioning
from tenants.viewers import MemberId

app = group("Coffer keeps the personal data of your customers sealed, and shows it by rule.")
tenant_app = group("Create, list, suspend and resume tenants.")
member_app = group("The people who sign in for a tenant.")
app.add_typer(tenant_app, name="tenant")
app.add_typer(member_app, name="member")
app.add_typer(keys_app, name="keys")
app.add_typer(jobs_app, name="jobs")
app.add_typer(audit_app, name="audit")
app.add_typer(erasures_app, name="erasures")
app.add_typer(backups_app, name="backups")

Slug = Annotated[str, typer.Argument(help="The tenant's slug: a-z, 0-9 and inner hyphens.", metavar="TENANT")]


def main() -> None:
    """The entry point `coffer`: 0 done, 1 failed, 2 settings or usage to be mended."""
    try:
        app()
    except SettingsError as error:
        _end(2, str(error))
    except (CofferError, LocalServiceError) as error:
        _end(1, str(error))
    except DBAPIError as error:
        _end(1, refusal(error))


@app.command()
def demo(
    once: Annotated[bool, typer.Option("--once", help="Print, then end instead of serving.")] = False,
    port: Annotated[int, typer.Option(help="Where to serve on 127.0.0.1.", min=0, max=65535)] = 8000,
    folder: Annotated[Path, typer.Option(help="Where Postgres and OpenBao keep their data.")] = Path(".coffer"),
) -> None:
    """Try Coffer here: its own Postgres and OpenBao, two tenants, real records. Needs no settings."""
    try:
        from local import demo as local_demo
    except ModuleNotFoundError as missing:
        raise LocalServiceError(
            f"{missing.name} is not installed here; run `make install`, then start again."
        ) from None
    with closing(_listener("127.0.0.1", port, "coffer demo --port")) as listener:
        try:
            local_demo.run(folder, listener, Console(), once=once)
        except KeyboardInterrupt:
            _end(130, "Stopped; the next start goes on from here.")


@app.command()
def serve() -> None:
    """Serve the API on COFFER_HOST and COFFER_PORT until SIGTERM or Ctrl-C."""
    import uvloop

    from api.server import Server
    from jobs.worker import beside

    settings = environment.read()
    logs.configure(settings.log_level)

    async def serving(listener: socket.socket) -> None:
        counted, where = metrics.Metrics(), (settings.metrics_host, settings.metrics_port)
        async with beside(settings, counted) as ring, metrics.serving(counted, *where):
            api = Api(settings, ring, counted)
            try:
                await api.check()  # here, so that a refusal is one sentence; the lifespan would print a traceback
                typer.echo(f"Coffer serves on {settings.host}:{settings.port}.", err=True)
                await Server(api).serve(sockets=[listener])
            finally:
                await api.close()

    # Else uvicorn, once it has ended, ends us by the same signal, before jobs are given back and spans are sent.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with closing(_listener(settings.host, settings.port, "COFFER_PORT=")) as listener:
        try:
            uvloop.run(serving(listener))
        except KeyboardInterrupt:
            sys.exit(0)


@app.command()
def migrate() -> None:
    """Bring the database to the newest revision, as COFFER_OWNER_DATABASE_URL; may be repeated."""
    from migrations.apply import upgrade

    url = environment.read_owner_database_url()
    try:
        upgrade(url)
    except OSError as cause:
        raise DatabaseUnavailable from cause
    typer.echo("The database is at the newest revision.")


@app.command()
def schema() -> None:
    """Print the GraphQL schema (SDL), with the rule at every field."""
    typer.echo(build()[1])


@tenant_app.command("create")
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

    async def create(api: Api) -> tenants.Tenant:
        if no_wait or api.settings.provisioner_role is None:
            return await provisioning.create(api.platform, slug, name, region=country, language=tag)
        async with provisioner_keys(api.settings) as maker:
            made = await provisioning.create(api.platform, slug, name, region=country, language=tag)
            doing = Provisioning(api.platform, api.database, maker, api.keys)
            return await provision_here(doing, made, api.units, api.database, api.platform)

    made = with_api(create)
    waits = " A worker makes its keys." if made.status == "PENDING" else ""
    typer.echo(f"{made.slug} is {made.status}.{waits}")


@tenant_app.command("list")
def list_tenants() -> None:
    """List all tenants by slug."""

    async def read(api: Api) -> list[tenants.Tenant]:
        found: list[tenants.Tenant] = []
        while page := await tenants.page(api.platform, after=found[-1].slug if found else ""):
            found += page
        return found

    table = Table("slug", "name", "status", "created")
    for tenant in with_api(read):
        table.add_row(tenant.slug, Text(tenant.name), tenant.status, minute(tenant.created_at))
    Console().print(table)


@tenant_app.command()
def suspend(slug: Slug) -> None:
    """Stop serving a tenant, from the next request on; its keys leave every process."""
    tenant = with_api(lambda api: tenants.suspend(api.platform, slug))
    typer.echo(f"{tenant.slug} is {tenant.status}.")


@tenant_app.command()
def resume(slug: Slug) -> None:
    """Serve a suspended tenant again."""
    tenant = with_api(lambda api: tenants.resume(api.platform, slug))
    typer.echo(f"{tenant.slug} is {tenant.status}.")


@member_app.command()
def add(
    slug: Slug,
    email: Annotated[str, typer.Argument(help="What the member signs in with.")],
    name: Annotated[str, typer.Option(help="The member's name.")],
    role: Annotated[list[Role], typer.Option(help="May be repeated: roles add up.", case_sensitive=False)],
) -> None:
    """Add a member; the password comes from COFFER_MEMBER_PASSWORD, a prompt or standard input."""
    password = _password()

    async def adding(api: Api) -> None:
        tenant = await tenants.get(api.platform, slug)
        hashed = await api.passwords.hash(password)
        async with api.units.enter(tenant.id, None, write=True) as unit:
            await members.add(unit, email=email, name=name, password_hash=hashed, roles=role)

    with_api(adding)
    typer.echo(f"The member may sign in to {slug} now.")


@member_app.command("reset-second-factor")
def reset_second_factor(
    slug: Slug, email: Annotated[str, typer.Argument(help="Of the member who has lost it, and the recovery codes.")]
) -> None:
    """Let a member sign in by the password alone: for an owner, whose second factor nobody else may reset."""

    async def resetting(api: Api) -> bool:
        tenant = await tenants.get(api.platform, slug)
        async with api.units.enter(tenant.id, None, write=True) as unit:
            member = await members.find_by_email(unit, email)
            return member is not None and await second_factors.remove(unit, MemberId(member.id))

    removed = with_api(resetting)
    typer.echo("It is reset." if removed else "There is no member of that e-mail who has a second factor.")


tenant_app.command("approve-offboarding")(approve_offboarding)
tenant_app.command("shred")(shred_tenant)
backups_app.command()(restore)
backups_app.command()(drill)
app.command()(doctor)
app.command()(recover)
app.command()(worker)


def _listener(host: str, port: int, remedy: str) -> socket.socket:
    """Bound before anything is started, so that nobody waits for a start that can't succeed."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
        # Accepted sockets inherit it. asyncio sets it only where the protocol is named, and without it the body of an
        # answer waits 40 ms for the client's delayed acknowledgement of the head.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError:
        other = port + 1 if port < 65535 else 8000
        glue = "" if remedy.endswith("=") else " "
        sentence = f"Port {port} of {host} can't be used, most likely something listens there already; "
        raise LocalServiceError(f"{sentence}stop it, or use `{remedy}{glue}{other}`.") from None


def _password() -> str:
    """Never an argument: those stand in the process list and in the shell's history."""
    given = os.environ.get("COFFER_MEMBER_PASSWORD")  # a command's input, not a setting of the service
    if given is not None:
        return given
    if sys.stdin.isatty():
        return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))
    return sys.stdin.readline().rstrip("\r\n")


def _parsed(option: str, parse: Callable[[str], str], value: str) -> str:
    try:
        return parse(value)
    except Invalid as invalid:
        raise typer.BadParameter(f"{option} {invalid.reason}.") from None


def _end(status: int, message: str) -> NoReturn:
    typer.echo(message, err=True)
    sys.exit(status)
