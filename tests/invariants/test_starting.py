"""A command starts fast: nothing that only servers and workers need is imported, and help needs no database either.

Yet every table is declared, whatever a command does: a proof or a purge that knows of fewer would miss rows.
"""

import asyncio
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules, walk_packages

import pytest
import typer
from typer.core import TyperGroup
from typer.main import get_command, get_group

import cli
from domain import tables
from tenants.owned import TenantOwned
from tests.cli.test_cli import environment
from tests.house import House

__all__ = ["environment"]  # the fixture
ROOT = Path(__file__).parents[2]
OF_SERVERS = {"strawberry", "graphql", "starlette", "uvicorn", "dramatiq", "pyeclib", "api.app", "jobs.worker"}
OF_DATA = {"sqlalchemy", "asyncpg", "hvac", "cryptography", "phonenumbers"}
PACKAGES = ("api", "cli", "crypto", "domain", "egress", "jobs", "mail", "telemetry", "tenants")
TOLD = "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr)); import cli; cli.main()"


def imported(code: str, *arguments: str, environment: dict[str, str] | None = None) -> set[str]:
    """The modules of a process that did this, which tells them last."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **(environment or {})},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.splitlines()[-1].split())


def test_help_needs_neither_servers_nor_data() -> None:
    assert not imported(TOLD, "--help") & (OF_SERVERS | OF_DATA)


@pytest.mark.database
@pytest.mark.parametrize("command", [["tenant", "list"], ["keys", "status", "acme"], ["backups", "list", "acme"]])
async def test_a_command_needs_no_server_and_knows_every_table(
    house: House, environment: dict[str, str], command: list[str]
) -> None:
    found = await asyncio.to_thread(imported, TOLD, *command, environment=environment)

    assert not found & OF_SERVERS
    assert set(tables.MODULES) <= found


def test_every_module_that_declares_a_table_is_named() -> None:
    for package in PACKAGES:
        for module in walk_packages(import_module(package).__path__, f"{package}."):
            import_module(module.name)
    declaring = {mapper.class_.__module__ for mapper in TenantOwned.registry.mappers}

    assert {name for name in declaring if name.partition(".")[0] in PACKAGES} == set(tables.MODULES)


def test_no_module_of_commands_imports_what_servers_need() -> None:
    code = f"import sys, {', '.join(_modules())}; print(*sys.modules, file=sys.stderr)"
    assert not imported(code) & OF_SERVERS


def test_every_command_of_a_module_is_found_in_a_group() -> None:
    declared: list[str] = []
    for module in map(import_module, _modules()):
        if isinstance(found := getattr(module, "commands", None), typer.Typer):
            declared += get_group(found).commands

    root = get_command(cli.app)
    assert isinstance(root, TyperGroup)
    groups = [each for each in root.commands.values() if isinstance(each, TyperGroup)]
    assert declared
    assert sorted(declared) == sorted(name for each in groups for name in each.list_commands(typer.Context(each)))


def _modules() -> list[str]:
    return [f"cli.{module.name}" for module in iter_modules(cli.__path__)]
