"""Bring a database to the newest revision, or tell what of the code's tables it lacks."""

import asyncio
import io
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError


def upgrade(url: str) -> None:
    """`url` belongs to `coffer_owner`. Blocks; several at once wait for each other."""
    command.upgrade(_config(url), "head")


def drift(url: str) -> str | None:
    """In what revision or tables the database and the code differ, or None; `url` is as for `upgrade`. Blocks."""
    try:
        command.check(_config(url))
    except CommandError as found:
        return str(found)
    return None


def newest() -> str:
    """The revision that this release brings a database to."""
    return str(ScriptDirectory(str(Path(__file__).parent)).get_current_head())


async def upgrade_async(url: str) -> None:
    await asyncio.to_thread(upgrade, url)


def _config(url: str) -> Config:
    config = Config(stdout=io.StringIO())  # alembic prints what it finds; ours is returned
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["url"] = url
    return config
