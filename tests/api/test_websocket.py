"""GraphQL over WebSocket on a real server, with a real client: the protocol, its refusals, and that nothing stays."""

import asyncio
import json
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, cast
from uuid import uuid4

import orjson
import pytest
import uvicorn
from graphql import ExecutionResult, GraphQLSchema, build_schema, execute, subscribe
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from structlog.testing import capture_logs
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin, Subprotocol

from api.conversations import SocketLimits
from api.documents import Documents, Prepared
from api.http import GraphQLEndpoint
from api.identity import Identities
from api.limits import Limits
from api.requests import GraphQLRequest
from api.scalars import harden
from api.websocket import PROTOCOL, GraphQLSocket
from crypto.errors import KeyUnavailable
from tenants.access import Role
from tenants.errors import TenantSuspended, Unauthenticated
from tenants.viewers import Credential, MemberId, TenantId
from tests.house import House as Coffer

SOAK = os.environ.get("COFFER_SOAK") == "1"
LIMITS = Limits(body_bytes=200_000, depth=4)
SCHEMA: GraphQLSchema = build_schema(
    """
    type Query { hello(name: String): String  fails: String  huge: String  never: String  again: Query }
    type Mutation { wave: String }
    type Subscription { ticks(to: Int): Int  flood: String  ends: Int }
    """
)
harden(SCHEMA)
HELLO = {"query": "{ hello }"}
TICKS = {"query": "subscription { ticks }"}
CANARY = "canary-4711"


class House:
    """What lies behind the socket; `ran` holds each resolver that was called, `sources` how many streams are open."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.sources = 0
        self.flooded = 0
        self.raises: Exception | None = None
        self.expires = 60.0
        self.credential: Any = "developer"
        self.cleanup = asyncio.Event()
        self.cleanup.set()
        self.mount(SocketLimits())

    def mount(self, limits: SocketLimits, origins: tuple[str, ...] = ()) -> None:
        self.socket = GraphQLSocket(
            Documents(SCHEMA, LIMITS),
            identify=self.identify,
            execute=self.execute,
            subscribe=self.subscribe,
            may_introspect=lambda viewer: viewer == "developer",
            origins=origins,
            limits=limits,
        )

    async def identify(self, authorizations: Sequence[str]) -> tuple[str, float] | None:
        if self.raises:
            raise self.raises
        if not authorizations:
            return None
        if authorizations[0] != "Bearer developer":
            raise Unauthenticated
        return self.credential, time.time() + self.expires

    async def execute(self, prepared: Prepared, request: GraphQLRequest, viewer: object) -> ExecutionResult:
        if self.raises:
            raise self.raises
        result = execute(SCHEMA, prepared.document, self, variable_values=dict(request.variables))
        return await result if isinstance(result, Awaitable) else result

    async def subscribe(
        self, prepared: Prepared, request: GraphQLRequest, viewer: object
    ) -> AsyncIterator[ExecutionResult]:
        results = subscribe(SCHEMA, prepared.document, self, variable_values=dict(request.variables))
        results = await results if isinstance(results, Awaitable) else results
        if isinstance(results, ExecutionResult):
            yield results
            return
        self.sources += 1
        try:
            async for result in results:
                yield result
        finally:
            await self.cleanup.wait()
            self.sources -= 1

    async def ticks(self, _info: object, to: int | None = None) -> AsyncIterator[dict[str, int]]:
        self.ran.append("ticks")
        for number in range(1 if to is None else to):
            yield {"ticks": number}
            await asyncio.sleep(0)
        if to is None:
            await asyncio.Event().wait()

    async def flood(self, _info: object) -> AsyncIterator[dict[str, str]]:
        while True:
            self.flooded += 1
            yield {"flood": "x" * 100_000}
            await asyncio.sleep(0)

    async def ends(self, _info: object) -> AsyncIterator[dict[str, int]]:
        yield {"ends": 1}
        assert self.raises
        raise self.raises

    def hello(self, _info: object, name: str = "you") -> str:
        self.ran.append("hello")
        return f"hello {name}"

    def again(self, _info: object) -> "House":
        self.ran.append("again")
        return self

    def wave(self, _info: object) -> str:
        self.ran.append("wave")
        return "waved"

    async def never(self, _info: object) -> str:
        self.ran.append("never")
        await asyncio.Event().wait()
        return ""

    def fails(self, _info: object) -> str:
        raise ValueError(CANARY)

    def huge(self, _info: object) -> str:
        return "\ud800"


class Stage:
    """One running server for all tests; `app` is what it serves now."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.server = uvicorn.Server(uvicorn.Config(self, lifespan="off", log_config=None, interface="asgi3"))
        self.app: ASGIApp | None = None

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.listener.getsockname()[1]}"

    @property
    def connections(self) -> list[Any]:
        return [*self.server.server_state.connections]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self.app is not None
        await self.app(scope, receive, send)

    @asynccontextmanager
    async def connect(self, **options: Any) -> AsyncIterator["Client"]:
        """A client of which the protocol's handshake is not done."""
        wanted: dict[str, Any] = {
            "subprotocols": [Subprotocol(PROTOCOL)],
            "compression": None,
            "ping_interval": None,
            "close_timeout": 0.5,
        }
        async with connect(f"ws://{self.host}/graphql", proxy=None, **{**wanted, **options}) as connection:
            yield Client(connection)

    @asynccontextmanager
    async def acknowledged(self, payload: object = None, **options: Any) -> AsyncIterator["Client"]:
        async with self.connect(**options) as client:
            await client.initialise(payload)
            yield client


class Client:
    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def send(self, *messages: object) -> None:
        for message in messages:
            await self.connection.send(message if isinstance(message, str | bytes) else json.dumps(message))

    async def receive(self) -> dict[str, Any]:
        async with asyncio.timeout(5):
            return cast("dict[str, Any]", orjson.loads(await self.connection.recv()))

    async def initialise(self, payload: object = None) -> None:
        await self.send({"type": "connection_init", "payload": payload})
        assert await self.receive() == {"type": "connection_ack"}

    async def subscribe(self, payload: object, name: str = "1") -> None:
        await self.send({"type": "subscribe", "id": name, "payload": payload})

    async def error(self, name: str = "1") -> str:
        """The code of an `error`, having checked its form."""
        message = await self.receive()
        assert (message["type"], message["id"]) == ("error", name)
        assert CANARY not in str(message)
        assert message["payload"][0]["extensions"]["requestId"]
        return cast("str", message["payload"][0]["extensions"]["code"])

    async def closed(self) -> int:
        """The code by which the server closed, having read what it sent before."""
        with pytest.raises(ConnectionClosed) as ended:
            async with asyncio.timeout(10):
                while True:
                    await self.connection.recv()
        frame = ended.value.rcvd
        assert frame is None or CANARY not in frame.reason
        return frame.code if frame else 1006


@asynccontextmanager
async def serving() -> AsyncIterator[Stage]:
    stage = Stage()
    serving = asyncio.create_task(stage.server.serve(sockets=[stage.listener]))
    while not stage.server.started:  # noqa: ASYNC110  # uvicorn has a flag, no event
        await asyncio.sleep(0.01)
    yield stage
    stage.server.should_exit = True
    await serving


async def until(claim: Any) -> None:
    async with asyncio.timeout(5):
        while not claim():  # noqa: ASYNC110  # what is observed has no events
            await asyncio.sleep(0.005)


@pytest.fixture(scope="module")
async def stage() -> AsyncIterator[Stage]:
    async with serving() as made:
        yield made


@pytest.fixture
async def behind(stage: Stage, caplog: pytest.LogCaptureFixture) -> AsyncIterator[House]:
    """Every test also proves that its conversations leave nothing: no task, stream, connection or complaint."""
    await until(lambda: not stage.connections)
    before = asyncio.all_tasks()
    made = House()
    stage.app = Starlette(routes=[WebSocketRoute("/graphql", latest(made))])
    yield made
    made.cleanup.set()
    here = asyncio.current_task()
    await until(lambda: not stage.connections and asyncio.all_tasks() - {here} <= before)
    assert (made.socket.open, made.sources) == (0, 0)
    assert not [each for each in caplog.get_records("call") if each.levelno >= logging.WARNING]


def latest(behind: House) -> Any:
    """The socket that the house has mounted by the time of the connection; an instance, so that it is taken as ASGI."""

    class Latest:
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await behind.socket(scope, receive, send)

    return Latest()


async def test_a_query_is_answered_and_complete(stage: Stage, behind: House) -> None:
    async with stage.acknowledged() as client:
        assert client.connection.subprotocol == PROTOCOL
        await client.subscribe({"query": "query($n: String) { hello(name: $n) }", "variables": {"n": "Ada"}})
        assert await client.receive() == {"id": "1", "type": "next", "payload": {"data": {"hello": "hello Ada"}}}
        assert await client.receive() == {"id": "1", "type": "complete"}
        await client.subscribe({"query": "mutation { wave }"})
        assert (await client.receive())["payload"] == {"data": {"wave": "waved"}}


async def test_a_subscription_is_answered_until_its_source_ends(stage: Stage, behind: House) -> None:
    async with stage.acknowledged() as client:
        await client.subscribe({"query": "subscription { ticks(to: 3) }"}, "a")
        messages = [await client.receive() for _ in range(4)]
    assert [each["payload"]["data"]["ticks"] for each in messages[:3]] == [0, 1, 2]
    assert messages[3] == {"id": "a", "type": "complete"}


async def test_operations_run_side_by_side(stage: Stage, behind: House) -> None:
    async with stage.acknowledged() as client:
        await client.subscribe({"query": "{ never }"}, "slow")
        await client.subscribe(HELLO, "fast")
        assert (await client.receive())["id"] == "fast"


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ({"query": f"{{ {CANARY}"}, "SYNTAX_ERROR"),
        ({"query": "{ helo }"}, "VALIDATION_FAILED"),
        ({"query": "{ hello }", "operationName": CANARY}, "OPERATION_NOT_FOUND"),
        ({"query": "query($n: String!) { hello(name: $n) }"}, "BAD_USER_INPUT"),
        ({"query": "query($n: String) { hello(name: $n) }", "variables": {"n": CANARY + "\0"}}, "BAD_USER_INPUT"),
        ({"query": "{ __schema { description } }"}, "INTROSPECTION_DISABLED"),
        ({"query": "{ again { again { again { again { hello } } } } }"}, "QUERY_TOO_DEEP"),
        ({"query": "{ again {" + " ".join(f"a{n}: hello" for n in range(31)) + "} }"}, "TOO_MANY_ALIASES"),
        ({"query": "subscription {" + " ".join(f"a{n}: ticks" for n in range(5_000)) + "}"}, "QUERY_TOO_LONG"),
        ({"query": "subscription { ticks ends }"}, "VALIDATION_FAILED"),
        ({"query": "subscription($n: Int!) { ticks(to: $n) }", "variables": {"n": CANARY}}, "BAD_USER_INPUT"),
        ({"extensions": {"persistedQuery": {"version": 1, "sha256Hash": "00"}}}, "PERSISTED_QUERY_NOT_FOUND"),
    ],
)
async def test_a_refused_document_is_an_error_and_runs_nothing(
    stage: Stage, behind: House, payload: object, expected: str
) -> None:
    async with stage.acknowledged() as client:
        await client.subscribe(payload)
        assert await client.error() == expected
        await client.send({"type": "ping"})
        assert await client.receive() == {"type": "pong"}
    assert not behind.ran


async def test_suggestions_are_for_those_who_may_introspect(stage: Stage, behind: House) -> None:
    for payload, expected in ((None, False), ({"authorization": "Bearer developer"}, True)):
        async with stage.acknowledged(payload) as client:
            await client.subscribe({"query": "{ helo }"})
            assert ("hello" in (await client.receive())["payload"][0]["message"]) is expected


async def test_an_error_in_a_field_is_part_of_the_result(stage: Stage, behind: House) -> None:
    async with stage.acknowledged() as client:
        await client.subscribe({"query": "{ fails }"})
        message = await client.receive()
    assert (message["type"], message["payload"]["data"]) == ("next", {"fails": None})
    assert message["payload"]["errors"][0]["message"] == "Internal error"


INIT = {"type": "connection_init"}
SUBSCRIBE = {"type": "subscribe", "id": "1", "payload": TICKS}
DEEP = '{"type":"subscribe","id":"1","payload":{"query":"{ hello }","variables":{"x":' + "[" * 40 + "]" * 40 + "}}}"
BOMB = '{"type":"subscribe","id":"1","payload":' + "[" * 90_000 + "]" * 90_000 + "}"
CLOSING: dict[str, tuple[int, list[object]]] = {
    "subscribe before init": (4401, [SUBSCRIBE]),
    "second init": (4429, [INIT, INIT]),
    "same id": (4409, [INIT, SUBSCRIBE, SUBSCRIBE]),
    "same id, other kind": (4409, [INIT, SUBSCRIBE, {**SUBSCRIBE, "payload": HELLO}]),
    "too long": (1009, [INIT, '{"type":"ping"' + " " * LIMITS.body_bytes + "}"]),
    "too long in bytes": (1009, [INIT, '{"type":"ping","payload":{"x":"' + "é" * 100_000 + '"}}']),
    "binary": (4400, [orjson.dumps(INIT)]),
    "not JSON": (4400, [CANARY]),
    "empty": (4400, [""]),
    "NaN": (4400, ['{"type":"ping","payload":{"x":NaN}}']),
    "lone surrogate": (4400, ['{"type":"ping","payload":{"x":"\\ud800"}}']),
    "nested 40 deep": (4400, [INIT, DEEP]),
    "nested bomb": (4400, [INIT, BOMB]),
    "a list": (4400, [[INIT]]),
    "a string": (4400, [f'"{CANARY}"']),
    "no type": (4400, [{"id": "1"}]),
    "unknown type": (4400, [{"type": CANARY}]),
    "a purpose in words": (
        4400,
        [INIT, {"type": "subscribe", "id": "1", "payload": {**HELLO, "extensions": {"purpose": f"for {CANARY}"}}}],
    ),
    "type is a list": (4400, [{"type": [CANARY]}]),
    "legacy protocol": (4400, [INIT, {"type": "start", "id": "1", "payload": HELLO}]),
    "the server's message": (4400, [INIT, {"type": "next", "id": "1", "payload": {}}]),
    "init payload is a list": (4400, [{**INIT, "payload": [CANARY]}]),
    "ping payload is a string": (4400, [{"type": "ping", "payload": CANARY}]),
    "authorization is a number": (4400, [{**INIT, "payload": {"authorization": 1}}]),
    "authorization twice": (4400, [{**INIT, "payload": {"authorization": "a", "Authorization": "b"}}]),
    "no id": (4400, [INIT, {"type": "subscribe", "payload": HELLO}]),
    "empty id": (4400, [INIT, {**SUBSCRIBE, "id": ""}]),
    "long id": (4400, [INIT, {**SUBSCRIBE, "id": CANARY * 100}]),
    "id is a number": (4400, [INIT, {**SUBSCRIBE, "id": 1}]),
    "complete without id": (4400, [INIT, {"type": "complete"}]),
    "no payload": (4400, [INIT, {"type": "subscribe", "id": "1"}]),
    "no query": (4400, [INIT, {**SUBSCRIBE, "payload": {}}]),
    "query is a number": (4400, [INIT, {**SUBSCRIBE, "payload": {"query": 1}}]),
    "variables are a list": (4400, [INIT, {**SUBSCRIBE, "payload": {**HELLO, "variables": [CANARY]}}]),
    "operationName is a list": (4400, [INIT, {**SUBSCRIBE, "payload": {**HELLO, "operationName": [CANARY]}}]),
}


@pytest.mark.parametrize(("code", "messages"), CLOSING.values(), ids=CLOSING.keys())
async def test_what_the_protocol_does_not_have_closes_the_socket(
    stage: Stage, behind: House, code: int, messages: list[object]
) -> None:
    async with stage.connect() as client:
        await client.send(*messages)
        assert await client.closed() == code
    assert "hello" not in behind.ran


async def test_a_bomb_of_compressed_spaces_is_1009(stage: Stage, behind: House) -> None:
    async with stage.acknowledged(compression="deflate") as client:
        await client.send(" " * 10_000_000)
        assert await client.closed() == 1009


async def test_what_the_server_closes_by_itself_is_no_error_of_ours(stage: Stage, behind: House) -> None:
    with capture_logs() as logs:
        async with stage.acknowledged() as client:
            await client.subscribe({"query": "subscription { ticks(to: 1000000) }"})
            too_long = " " * (stage.server.config.ws_max_size + 1)
            # Read meanwhile, so that the server is sending when it closes.
            _, code = await asyncio.gather(client.send(too_long), client.closed(), return_exceptions=True)
            assert code == 1009
        await until(lambda: behind.socket.open == 0)
    assert not logs


async def test_an_unknown_sub_protocol_is_4406(stage: Stage, behind: House) -> None:
    for offered in (None, [Subprotocol("graphql-ws")]):
        async with stage.connect(subprotocols=offered) as client:
            assert await client.closed() == 4406


async def test_silence_instead_of_init_is_4408(stage: Stage, behind: House) -> None:
    behind.mount(SocketLimits(init_seconds=0.05))
    async with stage.connect() as client:
        await client.send({"type": "ping"})
        assert await client.closed() == 4408


GOOD, BAD = {"Authorization": "Bearer developer"}, {"Authorization": f"Bearer {CANARY}"}


@pytest.mark.parametrize(
    ("headers", "payload"),
    [(GOOD, None), ({}, GOOD), ({}, {"AUTHORIZATION": "Bearer developer"}), (GOOD, {"authorization": None})],
)
async def test_a_token_comes_from_the_upgrade_or_from_init(
    stage: Stage, behind: House, headers: dict[str, str], payload: object
) -> None:
    async with stage.acknowledged(payload, additional_headers=headers) as client:
        await client.subscribe({"query": "{ __typename __schema { description } }"})
        assert (await client.receive())["type"] == "next"


@pytest.mark.parametrize(
    ("headers", "payload", "code"), [(BAD, {}, 4403), ({}, BAD, 4403), (GOOD, GOOD, 4400), (BAD, GOOD, 4400)]
)
async def test_a_bad_token_or_two_of_them_close_the_socket(
    stage: Stage, behind: House, headers: dict[str, str], payload: object, code: int
) -> None:
    async with stage.connect(additional_headers=headers) as client:
        await client.send({"type": "connection_init", "payload": payload}, SUBSCRIBE)
        assert await client.closed() == code
    assert not behind.ran


@pytest.mark.parametrize(("raises", "code"), [(KeyUnavailable(), 1013), (RuntimeError(CANARY), 1011)])
async def test_a_failing_check_of_the_token_closes_the_socket(
    stage: Stage, behind: House, raises: Exception, code: int
) -> None:
    behind.raises = raises
    with capture_logs() as logs:
        async with stage.connect() as client:
            await client.send(INIT)
            assert await client.closed() == code
    assert CANARY not in str(logs)


async def test_the_tokens_end_closes_the_socket(stage: Stage, behind: House) -> None:
    behind.expires = 0.1
    async with stage.acknowledged(GOOD) as client:
        await client.subscribe(TICKS)
        assert await client.closed() == 4403


@pytest.mark.parametrize(
    ("origin", "is_let_in"),
    [
        (None, True),
        ("http://{host}", True),
        ("https://crm.example.org", True),
        ("https://{host}", False),
        ("https://evil.example.org", False),
        ("https://crm.example.org.evil.example", False),
        ("http://crm.example.org", False),
        ("null", False),
        ("", False),
        ("*", False),
    ],
)
async def test_a_foreign_origin_is_refused_before_the_upgrade(
    stage: Stage, behind: House, origin: str | None, is_let_in: bool
) -> None:
    behind.mount(SocketLimits(), origins=("https://crm.example.org",))
    headers = {} if origin is None else {"Origin": origin.format(host=stage.host)}
    if is_let_in:
        async with stage.acknowledged(additional_headers={**headers, "Cookie": "a=b"}):
            return
    with pytest.raises(InvalidStatus) as refused:
        async with stage.connect(additional_headers=headers):
            pass
    assert refused.value.response.status_code == 403


async def test_two_origins_are_refused(stage: Stage, behind: House) -> None:
    own = f"http://{stage.host}"
    with pytest.raises(InvalidStatus) as refused:
        async with stage.connect(origin=Origin(own), additional_headers=[("Origin", own)]):
            pass
    assert refused.value.response.status_code == 400  # the server's implementation, before us


async def test_a_full_process_refuses_the_upgrade(stage: Stage, behind: House) -> None:
    behind.mount(SocketLimits(sockets=2))
    async with stage.connect(), stage.connect():
        with pytest.raises(InvalidStatus) as refused:
            async with stage.connect():
                pass
    assert refused.value.response.status_code == 503
    assert orjson.loads(refused.value.response.body or b"")["code"] == "TOO_MANY_SOCKETS"
    await until(lambda: behind.socket.open == 0)
    async with stage.acknowledged():
        pass


async def test_sockets_that_say_nothing_take_a_share_only(stage: Stage, behind: House) -> None:
    behind.mount(SocketLimits(uninitialised=1))
    async with stage.acknowledged(), stage.connect():
        with pytest.raises(InvalidStatus):
            async with stage.connect():
                pass


async def test_without_a_token_a_socket_is_for_a_short_visit(stage: Stage, behind: House) -> None:
    behind.mount(SocketLimits(anonymous_seconds=0.1))
    async with stage.acknowledged(GOOD) as member, stage.acknowledged() as nobody:
        await nobody.subscribe(TICKS)
        assert await nobody.closed() == 4401
        await member.send({"type": "ping"})
        assert await member.receive() == {"type": "pong"}


async def refused(stage: Stage, payload: object = None) -> int:
    async with stage.connect() as client:
        await client.send({**INIT, "payload": payload})
        return await client.closed()


async def test_sockets_without_a_token_take_a_share_only(stage: Stage, behind: House) -> None:
    behind.mount(SocketLimits(anonymous=1))
    async with stage.acknowledged():
        assert await refused(stage) == 1013
        async with stage.acknowledged(GOOD):
            pass
    await until(lambda: behind.socket.open == 0)
    async with stage.acknowledged():
        pass


@pytest.mark.parametrize("limits", [SocketLimits(of_member=2), SocketLimits(of_tenant=2)])
async def test_a_member_and_a_tenant_take_a_share_of_the_sockets_only(
    stage: Stage, behind: House, limits: SocketLimits
) -> None:
    behind.mount(limits)
    ours, theirs = TenantId(uuid4()), TenantId(uuid4())
    behind.credential = Credential(ours, MemberId(uuid4()))
    async with stage.acknowledged(GOOD), stage.acknowledged(GOOD), stage.acknowledged():
        assert await refused(stage, GOOD) == 1013
        behind.credential = Credential(ours, MemberId(uuid4()))
        if limits.of_tenant == 2:
            assert await refused(stage, GOOD) == 1013
        else:
            async with stage.acknowledged(GOOD):
                pass
        behind.credential = Credential(theirs, MemberId(uuid4()))
        async with stage.acknowledged(GOOD):
            pass


def test_no_share_is_all() -> None:
    limits = SocketLimits()
    shares = (limits.of_member, limits.of_tenant, limits.anonymous, limits.uninitialised)
    assert max(shares) <= limits.sockets // 2


async def test_operations_beyond_the_limit_are_refused_until_one_ends(stage: Stage, behind: House) -> None:
    behind.mount(SocketLimits(operations=2))
    async with stage.acknowledged() as client:
        for name in "ab":
            await client.subscribe(TICKS, name)
            assert (await client.receive())["id"] == name
        await client.subscribe(HELLO, "c")
        assert await client.error("c") == "RATE_LIMITED"
        await client.send({"type": "complete", "id": "a"})
        await until(lambda: behind.sources == 1)
        await client.subscribe(HELLO, "c")
        assert (await client.receive())["payload"]["data"] == {"hello": "hello you"}


async def test_operations_that_are_cleaning_up_still_count(stage: Stage, behind: House) -> None:
    behind.mount(SocketLimits(operations=1))
    behind.cleanup.clear()
    async with stage.acknowledged() as client:
        await client.subscribe(TICKS)
        await client.receive()
        await client.send({"type": "complete", "id": "1"})
        await client.subscribe(HELLO)
        assert await client.error() == "RATE_LIMITED"
        behind.cleanup.set()


async def test_complete_stops_the_source_and_frees_the_id(stage: Stage, behind: House) -> None:
    async with stage.acknowledged() as client:
        await client.subscribe(TICKS)
        await client.receive()
        assert behind.sources == 1
        await client.send({"type": "complete", "id": "1"}, {"type": "complete", "id": "unknown"})
        await client.subscribe(HELLO)
        assert (await client.receive())["payload"] == {"data": {"hello": "hello you"}}
        await until(lambda: behind.sources == 0)


async def test_complete_stops_a_query(stage: Stage, behind: House) -> None:
    async with stage.acknowledged() as client:
        await client.subscribe({"query": "{ never }"})
        await until(lambda: behind.ran == ["never"])
        await client.send({"type": "complete", "id": "1"}, {"type": "ping"})
        assert await client.receive() == {"type": "pong"}


async def test_a_disconnect_does_not_cut_off_cleanup(stage: Stage, behind: House) -> None:
    behind.cleanup.clear()
    async with stage.acknowledged() as client:
        for name in "ab":
            await client.subscribe(TICKS, name)
            await client.receive()
        await client.send({"type": "complete", "id": "a"}, {"type": "ping"})
        await client.receive()
    assert (behind.socket.open, behind.sources) == (1, 2)
    behind.cleanup.set()
    await until(lambda: (behind.socket.open, behind.sources) == (0, 0))


@pytest.mark.parametrize(
    ("raises", "code", "closes"),
    [
        (KeyUnavailable(), "KEY_UNAVAILABLE", False),
        (Unauthenticated(), "UNAUTHENTICATED", True),
        (TenantSuspended(), "TENANT_SUSPENDED", True),
        (ValueError(CANARY), "INTERNAL", False),
    ],
)
@pytest.mark.parametrize("query", ["{ hello }", "subscription { ends }"])
async def test_what_an_operation_raises_is_an_error(
    stage: Stage, behind: House, query: str, raises: Exception, code: str, closes: bool
) -> None:
    async with stage.acknowledged() as client:
        behind.raises = raises
        with capture_logs() as logs:
            await client.subscribe({"query": query})
            if "ends" in query:
                assert (await client.receive())["type"] == "next"
            assert await client.error() == code
        if closes:
            assert await client.closed() == 4403
        else:
            await client.send({"type": "ping"})
            assert await client.receive() == {"type": "pong"}
    assert len(logs) == (code == "INTERNAL")
    assert CANARY not in str(logs)


async def test_a_result_that_is_not_text_is_an_error(stage: Stage, behind: House) -> None:
    async with stage.acknowledged() as client:
        with capture_logs():
            await client.subscribe({"query": "{ huge }"})
            message = await client.receive()
        assert "Internal error" in str(message)


async def test_a_client_that_answers_pings_stays(stage: Stage, behind: House) -> None:
    behind.mount(SocketLimits(ping_seconds=0.1))
    async with stage.acknowledged() as client:
        for _ in range(4):
            assert await client.receive() == {"type": "ping"}
            await client.send({"type": "pong", "payload": {}})


async def test_a_client_that_answers_no_ping_is_closed(stage: Stage, behind: House) -> None:
    behind.mount(SocketLimits(ping_seconds=0.1))
    async with stage.acknowledged() as client:
        assert await client.closed() == 1001


async def test_a_client_that_stops_reading_is_dropped_and_nothing_piles_up(stage: Stage, behind: House) -> None:
    behind.mount(SocketLimits(send_seconds=0.3))
    async with stage.acknowledged() as client:
        client.connection.transport.pause_reading()
        for name in "abc":
            await client.subscribe({"query": "subscription { flood }"}, name)
        await until(lambda: behind.flooded > 3)
        seen = -1
        while seen != behind.flooded:  # until the kernel's buffers are full
            seen = behind.flooded
            await asyncio.sleep(0.1)
        [server] = stage.connections
        assert server.transport.get_write_buffer_size() < 64 * 1024 + 2 * 100_100
        await until(lambda: behind.socket.open == 0 and behind.sources == 0 and not stage.connections)
        assert behind.flooded <= seen + 3


async def test_a_stuck_peer_does_not_outlive_its_end(stage: Stage, behind: House) -> None:
    """It is told of a mistake, but the server's own close would wait for what it never reads."""
    behind.mount(SocketLimits(send_seconds=0.5))
    async with stage.acknowledged() as client:
        client.connection.transport.pause_reading()
        await client.subscribe({"query": "subscription { flood }"})
        await until(lambda: behind.flooded > 3)
        await client.send("nonsense")
        await until(lambda: not stage.connections)


async def test_closing_ends_every_conversation_with_1001(stage: Stage, behind: House) -> None:
    async with stage.acknowledged() as one, stage.acknowledged() as two, stage.connect() as three:
        await one.subscribe(TICKS)
        await one.receive()
        await behind.socket.close()
        assert (behind.socket.open, behind.sources) == (0, 0)
        assert [await each.closed() for each in (one, two, three)] == [1001] * 3
        with pytest.raises(InvalidStatus):
            async with stage.connect():
                pass


async def test_a_server_that_stops_ends_every_conversation() -> None:
    behind = House()
    async with serving() as stage:
        stage.app = behind.socket
        async with stage.acknowledged() as client, stage.acknowledged() as stuck:
            await client.subscribe(TICKS)
            await client.receive()
            stage.server.should_exit = True
            assert await client.closed() == 1012
            assert await stuck.closed() == 1012
    assert (behind.socket.open, behind.sources) == (0, 0)


async def test_connecting_and_leaving_leaves_nothing(stage: Stage, behind: House) -> None:
    before = len(asyncio.all_tasks())

    async def visit(number: int) -> None:
        async with stage.acknowledged() as client:
            await client.subscribe(TICKS)
            await client.receive()
            if number % 2:
                client.connection.transport.abort()

    for number in range(1000 if SOAK else 60):
        await visit(number)
    await until(lambda: behind.socket.open == 0 and behind.sources == 0)
    await until(lambda: not stage.connections and len(asyncio.all_tasks()) == before)


WORDS = ["connection_init", "subscribe", "complete", "ping", "pong", "next", "error", "start"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)
PAYLOADS = st.fixed_dictionaries({"query": JSON | st.just("{ hello }")}, optional={"variables": JSON}) | JSON
MESSAGES = st.lists(
    st.fixed_dictionaries({}, optional={"type": st.sampled_from(WORDS) | JSON, "id": JSON, "payload": PAYLOADS}),
    max_size=5,
)


@settings(max_examples=2000 if SOAK else 60, deadline=None)
@given(messages=MESSAGES, starts=st.booleans())
async def test_random_messages_are_never_our_fault(stage: Stage, messages: list[object], starts: bool) -> None:
    stage.app = House().socket
    async with stage.connect() as client:
        with suppress(ConnectionClosed):
            await client.send(*([INIT] if starts else []), *messages)
        await client.connection.close()
        assert client.connection.close_code in (1000, 4400, 4401, 4403, 4409, 4429)


@asynccontextmanager
async def opened(stage: Stage, house: Coffer) -> AsyncIterator[None]:
    """The stage serves the real schema, wired as HTTP is."""
    [endpoint] = [
        route.endpoint
        for route in house.api.app.routes
        if isinstance(route, Route) and isinstance(route.endpoint, GraphQLEndpoint)
    ]
    stage.app = made = GraphQLSocket(
        endpoint._documents,
        identify=Identities(house.api.tokens).prove,
        execute=endpoint._execute,
        subscribe=House().subscribe,
        may_introspect=endpoint._may_introspect,
        limits=SocketLimits(),
    )
    yield
    await made.close()


FULL_CUSTOMER = "query($i: ID!) { customer(id: $i) { givenName } }"


async def test_a_members_query_is_answered_by_the_rules(stage: Stage, house: Coffer) -> None:
    made = await house.create(givenName="Ada")
    asked = {"query": FULL_CUSTOMER, "variables": {"i": made["id"]}}
    seen = {}
    async with opened(stage, house):
        for tenant, role in (("acme", Role.OWNER), ("acme", Role.ANALYST), ("globex", Role.OWNER)):
            token = await house.token(house.members[tenant][role])
            async with stage.acknowledged({"authorization": f"Bearer {token}"}) as client:
                await client.subscribe(asked)
                seen[tenant, role] = (await client.receive())["payload"]["data"]["customer"]
    assert seen == {
        ("acme", Role.OWNER): {"givenName": "Ada"},
        ("acme", Role.ANALYST): {"givenName": None},
        ("globex", Role.OWNER): None,
    }


async def test_without_a_token_only_what_is_public_is_answered(stage: Stage, house: Coffer) -> None:
    made = await house.create(givenName="Ada")
    async with opened(stage, house), stage.acknowledged() as client:
        await client.subscribe({"query": FULL_CUSTOMER, "variables": {"i": made["id"]}})
        message = await client.receive()
    assert message["payload"]["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"
    assert "Ada" not in str(message)


async def test_a_tampered_token_is_4403_and_a_good_one_tells_its_end(stage: Stage, house: Coffer) -> None:
    token = await house.token(house.members["acme"][Role.OWNER])
    proof = await Identities(house.api.tokens).prove([f"Bearer {token}"])
    assert proof is not None
    assert proof[0] == house.members["acme"][Role.OWNER]
    assert 0 < proof[1] - time.time() <= house.api.tokens.lifetime
    async with opened(stage, house), stage.connect(additional_headers={"Authorization": f"Bearer {token}x"}) as client:
        await client.send(INIT)
        assert await client.closed() == 4403
