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

from api import graphiql, labels, openid, showing
from api.bearers import Bearers
from api.code_flow import CodeFlow
from api.conversations import SocketLimits
from api.documents import Documents
from api.errands import Errands
from api.http import GraphQLEndpoint
from api.identity import Identities
from api.limits import Limits
from api.openid import Providers
from api.operation import APART, PASSWORDS, Operations
from api.rates import Rates
from api.schema import build
from api.services import Services
from api.shared_buckets import SharedBuckets
from api.sign_up_tokens import SignUpTokens
from api.signing_up import SigningUp
from api.streams import Streams
from api.tokens import AccessTokens
from api.visits import Visited, Visits
from api.websocket import GraphQLSocket
from crypto.cache import KeyringCache
from crypto.errors import CofferError
from crypto.transit import TransitKeys
from domain import tables
from egress import Egress
from mail import Post
from settings import Mode, Settings
from telemetry.metrics import Metrics
from telemetry.traces import Tracing
from tenants import catalogue
from tenants.audit.store import CheckpointStore
from tenants.audit.verify import ChainVerifier
from tenants.budgets import Budgets
from tenants.database import Database
from tenants.feeds import Feed
from tenants.jobs import JobId, job_inspections
from tenants.recorder import Recorder
from tenants.signing_in.issuers import Claims
from tenants.signing_in.live_keys import LiveKeys
from tenants.signing_in.new_passwords import NewPasswords
from tenants.signing_in.passwords import Passwords
from tenants.signing_in.refresh_tokens import Refreshing
from tenants.signing_in.sign_in import SignIns
from tenants.signing_in.sign_up import SignUps
from tenants.units import Units
from tenants.usage import Tally
from tenants.viewers import Credential, TenantId

_PATIENCE = 5.0  # seconds for what goes on after its answer
_HEADERS = [
    *("authorization", "coffer-purpose", "content-type", "idempotency-key", "traceparent", "x-request-id"),
    # Apollo's clients send these of themselves.
    *("apollographql-client-name", "apollographql-client-version", "apollo-require-preflight"),
    *("x-apollo-operation-name", "x-apollo-operation-id"),
]


class Api:
    """The parts of one API process. `units` and `app` are what others (benches, tests) may hold on to."""

    def __init__(
        self,
        settings: Settings,
        ring: Callable[[TenantId, JobId], None] = lambda _tenant, _job: None,
        metrics: Metrics | None = None,
    ) -> None:
        """`ring` is told of each job that a change wants done, once it has committed."""
        tables.load()
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
        self.units = Units(self.database, self.keys, self.keyrings, ring=ring, budgets=Budgets())
        self.audit_chain = ChainVerifier(self.keys, CheckpointStore(settings.audit_store))
        self.passwords = Passwords()
        self.sign_ins = SignIns(self.units, self.platform, self.passwords, self.recorder)
        self.errands = Errands()
        self.live_keys = LiveKeys(self.database)
        self.tokens = AccessTokens(self.keys, settings.signing_key, settings.issuer)
        self.counting = Database(settings.database_url, pool_size=1)
        self.tally = Tally(self.counting)
        self.shared_limits = _shared_limits(settings)
        self.rates = Rates(settings.rate_percent, self.shared_limits, self.tally.count)
        self.egress = Egress(allowed=settings.egress_allow, total_seconds=openid.PATIENCE, most_bytes=openid.LARGEST)
        self.providers = Providers(self.egress, settings.egress_allow)
        self.bearers = Bearers(
            self.units, Claims(self.platform), self.providers, self.recorder, own_issuer=settings.issuer
        )
        self.code_flow = CodeFlow(
            self.units,
            self.platform,
            self.egress,
            self.providers,
            self.recorder,
            origins=_returns(settings),
            hashed=self.rates.address,
        )
        self.signing_up = self._signing_up(settings)
        routes = self._routes(settings)
        visited = Middleware(Visited, visits=self.visits, paths=[route.path for route in routes if _is_plain(route)])
        self.app = Starlette(routes=routes, middleware=[visited, *_cors(settings)], lifespan=self._lifespan)
        self._measure()

    def _routes(self, settings: Settings) -> list[BaseRoute]:
        schema, _ = build()
        wholes = labels.wholes(schema)
        services = Services(
            self.sign_ins,
            self.tokens,
            Refreshing(self.units),
            NewPasswords(self.units, self.platform, self.passwords, self.sign_ins),
            self.errands,
            self.signing_up,
            self.code_flow,
            self._is_issuer,
            columns=partial(showing.columns, schema),
            disclosure=partial(showing.disclosure, schema),
            rule_at=partial(labels.rule_at, schema),
            wholes=wholes,
            shown=partial(showing.shown, schema, wholes),
            recorder=self.recorder,
            live_keys=self.live_keys,
            feed=self.feed,
            audit_chain=self.audit_chain,
            check_address=self.egress.check,
            keeps_backups=bool(settings.backup_stores),
        )
        is_open = settings.mode is Mode.DEVELOPMENT
        documents = Documents(schema, Limits(passwords=PASSWORDS), apart=APART)
        operations = Operations(schema, self.units, services)
        identities = Identities(self.tokens, self.live_keys, self.bearers)

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
            rates=self.rates,
        )
        routes: list[BaseRoute] = [
            Route(
                "/graphql",
                GraphQLEndpoint(documents, operations.execute, identities.identify, may_introspect, self.rates),
            ),
            WebSocketRoute("/graphql", self.socket),
            Route("/.well-known/jwks.json", self._jwks),
            Route("/livez", _alive),
            Route("/readyz", self._ready),
        ]
        return [*routes, *graphiql.routes()] if is_open else routes

    def _signing_up(self, settings: Settings) -> SigningUp:
        return SigningUp(
            SignUps(self.units, self.platform, self.passwords),
            SignUpTokens(self.keys, settings.signing_key, settings.issuer),
            Post(settings.mail_url, settings.mail_from, ca_file=settings.mail_ca_file).send,
            settings.portal_url or settings.issuer,
            self.rates.address,
            settings.sign_up,
            settings.rate_percent,
        )

    def _measure(self) -> None:
        metrics = self.metrics
        metrics.watch("sockets_open", "WebSockets that are open.", lambda: self.socket.open)
        metrics.watch("subscriptions_open", "Streams that somebody follows.", lambda: self.feed.followers)
        metrics.watch("feed_lag_seconds", "How long ago followers were last told all there was.", self.feed.lag)
        if (shared := self.shared_limits) is not None:
            metrics.watch("limits_shared", "0: Redis is away, and each process has limits of its own.", shared.told)
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
        await self.tally.close()
        await self.counting.close()
        if self.shared_limits is not None:
            await self.shared_limits.close()
        await self.errands.finish(_PATIENCE)
        self.passwords.close()
        await self.keys.close()
        await self.live_keys.close()
        await self.database.close()
        await self.platform.close()
        await self.recorder.close()
        await self.recording.close()
        await asyncio.to_thread(self.tracing.close)

    def _is_issuer(self, address: str) -> bool:
        """Our own tokens are never another house's word."""
        is_ours = address.rstrip("/") == self.settings.issuer
        return not is_ours and openid.is_issuer(address, self.settings.egress_allow)

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


def _shared_limits(settings: Settings) -> SharedBuckets | None:
    return SharedBuckets(settings.limits_url, ca_file=settings.limits_ca_file) if settings.limits_url else None


def _returns(settings: Settings) -> frozenset[str]:
    """The origins that a browser may come back to from a sign-on provider."""
    portal = {settings.portal_url} if settings.portal_url else set()
    return frozenset({settings.issuer, *settings.cors_origins} | portal)


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
            expose_headers=["x-request-id", "retry-after", "ratelimit", "ratelimit-policy"],
            max_age=600,
        )
    ]
