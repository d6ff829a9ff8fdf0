"""Composition root of the API: everything is wired here, checked at start-up, and closed at the end."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeGuard

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute

from api import graphiql, guard
from api.conversations import SocketLimits
from api.documents import Documents
from api.http import GraphQLEndpoint
from api.identity import Identities
from api.limits import Limits
from api.operation import Operations
from api.schema import build
from api.services import Services
from api.streams import Streams
from api.tokens import AccessTokens
from api.visits import Visited, Visits
from api.websocket import GraphQLSocket
from crypto.cache import KeyringCache
from crypto.errors import CofferError
from crypto.transit import TransitKeys
from domain import imports  # noqa: F401  # its table is part of what the catalogue check expects
from settings import Mode, Settings
from telemetry.metrics import Metrics
from telemetry.traces import Tracing
from tenants import catalogue, job_inspections
from tenants.audit.store import CheckpointStore
from tenants.audit.verify import ChainVerifier
from tenants.database import Database
from tenants.feeds import Feed
from tenants.jobs import JobId
from tenants.passwords import Passwords
from tenants.recorder import Recorder
from tenants.sign_in import SignIns
from tenants.unit import Units
from tenants.viewers import Credential, TenantId

_HEADERS = ["authorization", "coffer-purpose", "content-type", "idempotency-key", "traceparent", "x-request-id"]


class Api:
    """The parts of one API process. `units` and `app` are what others (benches, tests) may hold on to."""

    def __init__(
        self,
        settings: Settings,
        ring: Callable[[TenantId, JobId], None] = lambda _tenant, _job: None,
        metrics: Metrics | None = None,
    ) -> None:
        """`ring` is told of each job that a change wants done, once it has committed."""
        self.settings = settings
        self.database = Database(settings.database_url, pool_size=settings.pool_size)
        self.platform = Database(settings.platform_database_url, pool_size=3)  # the feed holds one
        self.feed = Feed(self.platform, self.database)
        self.recording = Database(settings.recorder_database_url, pool_size=1)
        self.metrics = metrics or Metrics()
        self.tracing = Tracing(settings.otlp_endpoint, ca_file=settings.otlp_ca_file)
        self.visits = Visits(self.tracing, self.metrics)
        self.recorder = Recorder(self.recording, told=self.metrics.recorded)
        role = settings.api_role
        self.keys = TransitKeys(
            settings.vault_address,
            role.role_id,
            role.secret_id,
            ca_file=settings.vault_ca_file,
            mount=settings.transit_mount,
        )
        self.keyrings = KeyringCache(ttl=settings.key_ttl_seconds)
        self.units = Units(self.database, self.keys, self.keyrings, ring=ring)
        self.audit_chain = ChainVerifier(self.keys, CheckpointStore(settings.audit_store))
        self.passwords = Passwords()
        self.tokens = AccessTokens(self.keys, settings.signing_key, settings.issuer)
        routes = self._routes(settings)
        visited = Middleware(Visited, visits=self.visits, paths=[route.path for route in routes if _is_plain(route)])
        self.app = Starlette(routes=routes, middleware=[visited, *_cors(settings)], lifespan=self._lifespan)
        self._measure()

    def _routes(self, settings: Settings) -> list[BaseRoute]:
        schema, _ = build()
        services = Services(
            SignIns(self.units, self.platform, self.passwords, self.recorder),
            self.tokens,
            columns=partial(guard.columns, schema),
            disclosure=partial(guard.disclosure, schema),
            wholes=guard.wholes(schema),
            recorder=self.recorder,
            feed=self.feed,
            audit_chain=self.audit_chain,
        )
        is_open = settings.mode is Mode.DEVELOPMENT
        documents, operations = Documents(schema, Limits()), Operations(schema, self.units, services)
        identities = Identities(self.tokens)

        def may_introspect(credential: Credential | None) -> bool:
            return is_open or credential is not None

        self.socket = GraphQLSocket(
            documents,
            identify=identities.prove,
            execute=operations.execute,
            subscribe=Streams(schema, operations, units=max(1, settings.pool_size // 3)).subscribe,
            may_introspect=may_introspect,
            origins=settings.cors_origins,
            limits=SocketLimits(),
            visits=self.visits,
        )
        routes: list[BaseRoute] = [
            Route("/graphql", GraphQLEndpoint(documents, operations.execute, identities.identify, may_introspect)),
            WebSocketRoute("/graphql", self.socket),
            Route("/.well-known/jwks.json", self._jwks),
            Route("/livez", _alive),
            Route("/readyz", self._ready),
        ]
        return [*routes, *graphiql.routes()] if is_open else routes

    def _measure(self) -> None:
        metrics = self.metrics
        metrics.watch("sockets_open", "WebSockets that are open.", lambda: self.socket.open)
        metrics.watch("subscriptions_open", "Streams that somebody follows.", lambda: self.feed.followers)
        metrics.watch("feed_lag_seconds", "How long ago followers were last told all there was.", self.feed.lag)
        metrics.watch_keys(self.keyrings)
        metrics.watch_jobs(partial(job_inspections.counts, self.platform))

    @asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        await self.check()
        try:
            yield
        finally:
            await self.close()

    async def check(self) -> None:
        """Refuse to serve from a database that does not keep tenants apart. Raises `UnsafeDatabase`."""
        for database, role in self.roles.items():
            await catalogue.refuse_unsafe(database, role)

    @property
    def roles(self) -> dict[Database, str]:
        """Which database role each pool must be connected as."""
        return {
            self.database: catalogue.APP,
            self.platform: catalogue.PLATFORM,
            self.recording: catalogue.RECORDER,
        }

    async def close(self) -> None:
        await self.socket.close()
        await self.feed.close()
        self.passwords.close()
        await self.keys.close()
        await self.database.close()
        await self.platform.close()
        await self.recorder.close()
        await self.recording.close()
        await asyncio.to_thread(self.tracing.close)

    async def _jwks(self, _request: Request) -> Response:
        try:
            jwks = await self.tokens.jwks()
        except CofferError as error:
            return _problem(503, error)
        return JSONResponse(jwks, headers={"cache-control": "public, max-age=300"})

    async def _ready(self, _request: Request) -> Response:
        try:
            for database in self.roles:
                async with database.connection():
                    pass
            await self.keys.health()
        except CofferError as error:
            return _problem(503, error)
        return JSONResponse({"status": "ready"})


def _is_plain(route: BaseRoute) -> TypeGuard[Route]:
    return isinstance(route, Route) and "{" not in route.path


async def _alive(_request: Request) -> Response:
    return JSONResponse({"status": "alive"})


def _problem(status: int, error: CofferError) -> Response:
    """RFC 9457."""
    body: dict[str, Any] = {"type": "about:blank", "title": error.message, "status": status, "code": error.code}
    return JSONResponse(body, status, {"retry-after": "1"}, media_type="application/problem+json")


def _cors(settings: Settings) -> list[Middleware]:
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST", "OPTIONS"],
            allow_headers=_HEADERS,
            expose_headers=["x-request-id", "retry-after"],
            max_age=600,
        )
    ]
