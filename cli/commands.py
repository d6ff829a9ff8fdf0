"""What the commands share: how a group of them is made, an API's parts for one act, and how a moment is shown."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, TypeVar

import typer

import settings as environment
from api.app import Api

T = TypeVar("T")


def group(help: str) -> typer.Typer:
    return typer.Typer(help=help, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def with_api(act: Callable[[Api], Coroutine[Any, Any, T]]) -> T:
    settings = environment.read()

    async def run() -> T:
        api = Api(settings)
        try:
            return await act(api)
        finally:
            await api.close()

    return asyncio.run(run())


def minute(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
