"""`coffer member`: the people who sign in for a tenant."""

import os
import sys
from contextlib import closing
from typing import Annotated

import typer

from cli.commands import Slug
from cli.parts import Parts, with_parts
from tenants import members, tenants
from tenants.access import Role
from tenants.signing_in import second_factors
from tenants.signing_in.passwords import Passwords
from tenants.viewers import MemberId

commands = typer.Typer()


@commands.command()
def add(
    slug: Slug,
    email: Annotated[str, typer.Argument(help="What the member signs in with.")],
    name: Annotated[str, typer.Option(help="The member's name.")],
    role: Annotated[list[Role], typer.Option(help="May be repeated: roles add up.", case_sensitive=False)],
) -> None:
    """Add a member; the password comes from COFFER_MEMBER_PASSWORD, a prompt or standard input."""
    password = _password()

    async def adding(parts: Parts) -> None:
        tenant = await tenants.get(parts.platform, slug)
        with closing(Passwords()) as passwords:
            hashed = await passwords.hash(password)
        async with parts.units.enter(tenant.id, None, write=True) as unit:
            await members.add(unit, email=email, name=name, password_hash=hashed, roles=role)

    with_parts(adding)
    typer.echo(f"The member may sign in to {slug} now.")


@commands.command("reset-second-factor")
def reset_second_factor(
    slug: Slug, email: Annotated[str, typer.Argument(help="Of the member who has lost it, and the recovery codes.")]
) -> None:
    """Let a member sign in by the password alone: for an owner, whose second factor nobody else may reset."""

    async def resetting(parts: Parts) -> bool:
        tenant = await tenants.get(parts.platform, slug)
        async with parts.units.enter(tenant.id, None, write=True) as unit:
            member = await members.find_by_email(unit, email)
            return member is not None and await second_factors.remove(unit, MemberId(member.id))

    removed = with_parts(resetting)
    typer.echo("It is reset." if removed else "There is no member of that e-mail who has a second factor.")


def _password() -> str:
    """Never an argument: those stand in the process list and in the shell's history."""
    given = os.environ.get("COFFER_MEMBER_PASSWORD")  # a command's input, not a setting of the service
    if given is not None:
        return given
    if sys.stdin.isatty():
        return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))
    return sys.stdin.readline().rstrip("\r\n")
