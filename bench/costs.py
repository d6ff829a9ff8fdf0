"""Where the time of a request goes: the server's own calls, wrapped from outside, timed without what they call.

Right for one request at a time only, which is how the profiled run asks. Each wrapped call counts for its own part,
and takes the time away from the part that called it, so that the parts add up to the whole.
"""

import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any

import orjson
from starlette.types import ASGIApp, Receive, Scope, Send

from crypto.keyring import Keyring
from tenants.recorder import Recorder
from tenants.unit import Unit
from tenants.units import Units

DATABASE, CRYPTO, JSON, RECORD, REST = "database", "crypto", "JSON", "record", "GraphQL"
PATH = "/bench/costs"


class Costs:
    """An ASGI application around `app`; PATH tells the seconds of each part since it was last asked."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._spent: defaultdict[str, float] = defaultdict(float)
        self._requests = 0
        self._now: list[str] = []
        self._since = 0.0
        self._wrap_all()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["path"] == PATH:
            await self._tell(send)
        else:
            self._requests += 1
            with self._part(REST):
                await self._app(scope, receive, send)

    async def _tell(self, send: Send) -> None:
        body = _dumps({"requests": self._requests, **self._spent})
        self._spent.clear()
        self._requests = 0
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    @contextmanager
    def _part(self, name: str) -> Iterator[None]:
        self._charge()
        self._now.append(name)
        try:
            yield
        finally:
            self._charge()
            self._now.pop()

    def _charge(self) -> None:
        now = time.perf_counter()
        if self._now:
            self._spent[self._now[-1]] += now - self._since
        self._since = now

    def _wrap_all(self) -> None:
        for name in ("rows", "scalars", "run", "flush"):
            setattr(Unit, name, self._coroutine(DATABASE, getattr(Unit, name)))
        for owner, name in ((Unit, "savepoint"), (Units, "enter")):
            setattr(owner, name, self._context(DATABASE, getattr(owner, name)))
        for name in ("record",):
            setattr(Recorder, name, self._coroutine(RECORD, getattr(Recorder, name)))
        for name in ("open_many", "seal", "token", "authenticate"):
            setattr(Keyring, name, self._function(CRYPTO, getattr(Keyring, name)))
        for name in ("dumps", "loads"):
            setattr(orjson, name, self._function(JSON, getattr(orjson, name)))

    def _function(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            with self._part(part):
                return call(*arguments, **named)

        return timed

    def _coroutine(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        async def timed(*arguments: Any, **named: Any) -> Any:
            with self._part(part):
                return await call(*arguments, **named)

        return timed

    def _context(self, part: str, call: Callable[..., AbstractAsyncContextManager[Any]]) -> Callable[..., Any]:
        """Entering and leaving count, not what happens inside."""

        @asynccontextmanager
        async def timed(*arguments: Any, **named: Any) -> AsyncIterator[Any]:
            context, depth = call(*arguments, **named), len(self._now)
            self._enter(part)
            async with context as value:
                self._leave(depth)
                try:
                    yield value
                finally:
                    self._enter(part)
            self._leave(depth)

        return timed

    def _enter(self, part: str) -> None:
        self._charge()
        self._now.append(part)

    def _leave(self, depth: int) -> None:
        self._charge()
        del self._now[depth:]


_dumps = orjson.dumps  # as it was before any wrapping
