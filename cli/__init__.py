"""The command line: composes what the packages offer, and tells every expected failure in one sentence.

It holds no SQL and no rules. Groups, `local` and the servers are imported where they are used, so that help comes at
once.
"""

import asyncio
import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated, NoReturn

import typer

import settings as environment
from cli.commands import group, refusal
from cli.processes import listening, serve, worker
from cli.recover import recover
from crypto.errors import CofferError
from local.errors import LocalServiceError
from settings import SettingsError

app = group("Coffer keeps the personal data of your customers sealed, and shows it by rule.")


def main() -> None:
    """The entry point `coffer`: 0 done, 1 failed, 2 settings or usage to be mended."""
    try:
        app()
    except SettingsError as error:
        _end(2, str(error))
    except (CofferError, LocalServiceError) as error:
        _end(1, str(error))
    except Exception as error:
        from sqlalchemy.exc import DBAPIError  # whoever met one has imported it

        if not isinstance(error, DBAPIError):
            raise
        _end(1, refusal(error))


@app.command()
def demo(
    once: Annotated[bool, typer.Option("--once", help="Print, then end instead of serving.")] = False,
    port: Annotated[int, typer.Option(help="Where to serve on 127.0.0.1.", min=0, max=65535)] = 8000,
    folder: Annotated[Path, typer.Option(help="Where Postgres and OpenBao keep their data.")] = Path(".coffer"),
) -> None:
    """Try Coffer here: its own Postgres and OpenBao, two tenants, real records. Needs no settings."""
    from rich.console import Console

    try:
        from local import demo as local_demo
    except ModuleNotFoundError as missing:
        raise LocalServiceError(
            f"{missing.name} is not installed here; run `make install`, then start again."
        ) from None
    with closing(listening("127.0.0.1", port, "coffer demo --port")) as listener:
        try:
            local_demo.run(folder, listener, Console(), once=once)
        except KeyboardInterrupt:
            _end(130, "Stopped; the next start goes on from here.")


app.command()(serve)


@app.command()
def migrate() -> None:
    """Bring the database to the newest revision, as COFFER_OWNER_DATABASE_URL; may be repeated."""
    url = environment.read_owner_database_url()

    from migrations.apply import upgrade
    from tenants.errors import DatabaseUnavailable

    try:
        upgrade(url)
    except OSError as cause:
        raise DatabaseUnavailable from cause
    typer.echo("The database is at the newest revision.")


@app.command()
def schema() -> None:
    """Print the GraphQL schema (SDL), with the rule at every field."""
    from api.schema import build

    typer.echo(build()[1])


@app.command("doctor")
def examine() -> None:
    """Check settings, TLS, database, migrations, Vault, policies, audit store, clocks: a line each, and what to do."""
    settings = environment.read()
    typer.echo("ok   settings")

    from cli import doctor

    found = asyncio.run(doctor.examine(settings))
    for name, problems in found:
        for problem in problems:
            typer.echo(f"FIX  {name}: {problem}")
        if not problems:
            typer.echo(f"ok   {name}")
    if settings.owner_database_url is None:
        typer.echo("skip migrations: only the owner can read them; set COFFER_OWNER_DATABASE_URL to check them too")
    if any(problems for _, problems in found):
        sys.exit(1)


app.command()(recover)
app.command()(worker)


def _add(name: str, help: str, *modules: str) -> None:
    app.add_typer(group(help, *modules), name=name)


_add("tenant", "Create, list, suspend and resume tenants.", "cli.tenants", "cli.offboarding")
_add("member", "The people who sign in for a tenant.", "cli.members")
_add("keys", "A tenant's keys, without their secrets: look at them, turn them over, verify.", "cli.keys")
_add("jobs", "Background work: what waits, runs and has ended.", "cli.jobs")
_add("audit", "A tenant's audit log: verify its chain, export it.", "cli.audit")
_add("erasures", "A tenant's erasures: verify their ledger and certificates.", "cli.erasures")
_add("backups", "A tenant's backups: list, make, verify and repair them.", "cli.backups", "cli.restores")


def _end(status: int, message: str) -> NoReturn:
    typer.echo(message, err=True)
    sys.exit(status)
