"""What the commands share: how a group of them is made, how a moment is shown, and what a driver's error is told as.

Whatever takes its time to be imported is imported where it is used, here and in all that `cli` itself imports, so that
help comes at once.
"""

from datetime import UTC, datetime
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_group

if TYPE_CHECKING:
    from sqlalchemy.exc import DBAPIError

Slug = Annotated[str, typer.Argument(help="The tenant's slug: a-z, 0-9 and inner hyphens.", metavar="TENANT")]


def group(help: str, *modules: str) -> typer.Typer:
    """Of the `commands` of these modules, which are imported once one of them is asked for."""
    return typer.Typer(
        help=help, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, cls=_lazy(modules)
    )


def _lazy(modules: tuple[str, ...]) -> type[TyperGroup]:
    class Lazy(TyperGroup):
        def list_commands(self, ctx: Any) -> list[str]:
            self._import()
            return super().list_commands(ctx)

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            self._import()
            return super().get_command(ctx, cmd_name)

        def _import(self) -> None:
            if not self.commands:
                for module in modules:
                    self.commands.update(get_group(import_module(module).commands).commands)

    return Lazy


def minute(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def refusal(error: "DBAPIError") -> str:
    """The class of the driver's error tells what is wrong; its message might hold a value."""
    cause = getattr(error.orig, "__cause__", None) or error.orig
    return f"Postgres refused ({type(cause).__name__}); check role, password and database name, run `coffer migrate`."
