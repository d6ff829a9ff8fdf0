"""A trace goes through the whole house and holds no value; where nobody collects, nothing is made."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span

import settings as environment
from crypto.values import OVERHEAD_BYTES, Sealed, Secret
from telemetry import traces
from tenants.access import Role
from tenants.errors import Conflict
from tests.house import House
from tests.served import Collector, Served, collecting, served

CANARY = "kanari-4711"
TRACE = f"00-{'ab' * 16}-{'cd' * 8}-01"
IMPORT = """mutation { importCustomers(input: {csv: "name\\nAda\\n", columns: [{column: "name", field: givenName}]}) {
    job { id } } }"""


@dataclass
class Travelled:
    """A server that answered one page and one import, both with the traceparent `TRACE`, and has ended."""

    collector: Collector
    jobs_trace: str

    def named(self, name: str) -> list[Span]:
        return [span for span in self.collector.spans() if span.name == name]


@pytest.fixture(scope="module")
async def travelled(house: House) -> AsyncIterator[Travelled]:
    await house.create(givenName="Ada")
    with collecting() as collector:
        async with served(house, COFFER_OTLP_ENDPOINT=collector.address) as server:
            await ask(house, server, "{ customers { nodes { givenName } } }")
            await ask(house, server, IMPORT)
            trace = await ended_job(house)
    yield Travelled(collector, trace)


async def ask(house: House, server: Served, document: str) -> dict[str, Any]:
    token = await house.token(house.members["acme"][Role.OWNER])
    headers = {"authorization": f"Bearer {token}", "traceparent": TRACE}
    async with httpx.AsyncClient(base_url=server.address, headers=headers, timeout=30) as client:
        answer: dict[str, Any] = (await client.post("/graphql", json={"query": document})).json()
    assert "errors" not in answer, answer
    return answer


async def ended_job(house: House) -> str:
    """The trace of the newest job, once it is done."""
    connection = await asyncpg.connect(house.superuser_url)
    newest = "SELECT trace FROM jobs WHERE state = 'DONE' AND trace LIKE $1 ORDER BY created_at DESC"
    try:
        async with asyncio.timeout(30):
            while (trace := await connection.fetchval(newest, f"00-{'ab' * 16}-%")) is None:  # noqa: ASYNC110  # theirs
                await asyncio.sleep(0.05)
    finally:
        await connection.close()
    return str(trace)


def test_a_request_continues_the_callers_trace(travelled: Travelled) -> None:
    asked = [span for span in travelled.named("request") if span.trace_id.hex() == "ab" * 16]
    assert [span.parent_span_id.hex() for span in asked] == ["cd" * 8] * 2


def test_each_stop_of_a_request_has_its_span(travelled: Travelled) -> None:
    names = {span.name for span in travelled.collector.spans() if span.trace_id.hex() == "ab" * 16}
    assert names >= {"request", "identify", "prepare", "keys", "enter", "execute", "open", "commit", "record"}


def test_a_job_keeps_the_span_it_came_from_and_its_own_is_linked_to_it(travelled: Travelled) -> None:
    requests = {span.span_id.hex() for span in travelled.collector.spans() if span.trace_id.hex() == "ab" * 16}
    _, trace, parent, _ = travelled.jobs_trace.split("-")
    assert trace == "ab" * 16
    assert parent in requests - {"cd" * 8}
    (job,) = [span for span in travelled.named("job") if span.links]
    assert (job.links[0].trace_id.hex(), job.links[0].span_id.hex()) == (trace, parent)
    assert job.trace_id.hex() != trace


def test_the_steps_and_the_end_of_a_job_are_in_its_trace(travelled: Travelled) -> None:
    (job,) = [span for span in travelled.named("job") if span.links]
    names = [span.name for span in travelled.collector.spans() if span.trace_id == job.trace_id]
    assert {"job", "step", "commit"} <= set(names)


def test_attributes_are_ids_counts_and_codes(travelled: Travelled) -> None:
    named = {(span.name, each.key) for span in travelled.collector.spans() for each in span.attributes}
    assert named >= {("request", "tenant"), ("request", "status"), ("open", "count"), ("job", "kind")}
    assert b"Ada" not in b"".join(travelled.collector.bodies)


@pytest.fixture
def tracing() -> Iterator[traces.Tracing]:
    with collecting() as collector:
        made = traces.Tracing(collector.address)
        made.collector = collector  # type: ignore[attr-defined]  # the tests' own
        yield made
        made.close()


def test_without_a_collector_nothing_is_made_and_times_are_kept() -> None:
    with traces.Tracing().journey("request", continues=TRACE) as journey, traces.span("stop"):
        assert traces.traceparent() is None
    assert (journey.root, journey.seconds["stop"] > 0) == (None, True)


def test_outside_of_a_journey_every_call_does_nothing() -> None:
    with traces.span("stop", secret=Secret(CANARY)):
        assert (traces.traceparent(), traces.note(a=1)) == (None, False)


def test_the_time_of_a_stop_is_without_that_of_the_stops_inside() -> None:
    with traces.Tracing().journey("request") as journey, traces.span("outer"), traces.span("inner"):
        sum(range(300_000))
    assert journey.seconds["outer"] < journey.seconds["inner"]


def test_the_present_span_is_what_follows_is_linked_to(tracing: traces.Tracing) -> None:
    with tracing.journey("request", continues=TRACE):
        outer = traces.traceparent()
        with traces.span("stop"):
            assert traces.traceparent() != outer
        assert traces.traceparent() == outer
    assert outer is not None
    assert outer.startswith(f"00-{'ab' * 16}-")


@pytest.mark.parametrize("wrong", ["", "x", f"00-{'0' * 32}-{'cd' * 8}-01", f"01-{'ab' * 16}-{'cd' * 8}-01", TRACE * 2])
def test_a_trace_that_is_none_begins_a_new_one(tracing: traces.Tracing, wrong: str) -> None:
    with tracing.journey("request", continues=wrong) as journey:
        assert journey.trace_id not in (None, "ab" * 16, "0" * 32)


def test_an_error_is_told_by_its_code(tracing: traces.Tracing) -> None:
    with pytest.raises(ValueError, match=CANARY), tracing.journey("request"):
        with pytest.raises(Conflict), traces.span("stop"):
            raise Conflict(CANARY)
        raise ValueError(CANARY)
    tracing.close()
    collector: Collector = tracing.collector  # type: ignore[attr-defined]  # the tests' own
    told = {span.name: [each.value.string_value for each in span.attributes] for span in collector.spans()}
    assert told == {"stop": ["CONFLICT"], "request": ["ValueError"]}
    assert CANARY.encode() not in b"".join(collector.bodies)


VALUES = st.sampled_from(
    [
        Secret(CANARY),
        Sealed(bytes([0xC1, 1]) + CANARY.encode().ljust(OVERHEAD_BYTES + 30, b"-")),
        CANARY.encode(),
        ValueError(CANARY),
        f"{CANARY}@example.org",
        f"{CANARY} and more",
        {"a": CANARY},
    ]
)


@given(st.dictionaries(st.sampled_from("abc"), VALUES | st.lists(VALUES) | st.tuples(VALUES)))
def test_attributes_of_another_type_are_dropped(attributes: dict[str, Any]) -> None:
    assert traces.harmless(attributes) == {}


def test_ids_counts_and_codes_stay() -> None:
    told = {"tenant": UUID(int=1), "count": 3, "code": Role.OWNER, "is_cold": True, "codes": ["NOT_FOUND"]}
    assert traces.harmless(told) == {**told, "tenant": str(UUID(int=1)), "code": "OWNER"}


@pytest.mark.parametrize("address", ["http://collector.example.org:4318", "collector:4318", "http://127.0.0.1/path"])
def test_spans_leave_in_clear_for_loopback_only(address: str) -> None:
    with pytest.raises(environment.SettingsError, match="COFFER_OTLP_ENDPOINT must be"):
        environment.read({"COFFER_ENV": "development", "COFFER_OTLP_ENDPOINT": address})
