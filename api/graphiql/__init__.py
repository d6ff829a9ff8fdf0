"""GraphiQL for development, served whole from this folder: no page of ours loads anything from elsewhere."""

from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

_ASSETS = Path(__file__).parent / "assets"
_POLICY = "default-src 'none'; connect-src 'self'; font-src data:; img-src 'self' data:; script-src 'self'"
_STYLES = "; style-src 'self' 'unsafe-inline'"  # the editor sets styles on its elements


def routes() -> list[BaseRoute]:
    return [Route("/", _page), Mount("/graphiql", StaticFiles(directory=_ASSETS))]


async def _page(_request: Request) -> Response:
    return FileResponse(_ASSETS / "index.html", headers={"content-security-policy": _POLICY + _STYLES})
