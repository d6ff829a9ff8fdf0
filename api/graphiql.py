"""GraphiQL for development."""

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route


def routes() -> list[BaseRoute]:
    return [Route("/", _page)]


async def _page(_request: Request) -> Response:
    return HTMLResponse("<h1>GraphiQL</h1>")
