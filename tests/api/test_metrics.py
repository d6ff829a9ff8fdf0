"""Metrics tell counts and times by words of ours, on a port of their own, each Api its own."""

import asyncio
import re
from threading import Event
from uuid import UUID

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from jobs.bells import Bell
from jobs.worker import Worker
from telemetry import metrics
from telemetry.metrics import Metrics
from tenants.access import Role
from tenants.jobs import JobId
from tenants.viewers import TenantId
from tests.house import House
from tests.served import served

IMPORT = {"i": {"csv": "n\nAda\n", "columns": [{"column": "n", "field": "givenName"}]}}
PAGE = "{ customers(first: 2) { nodes { givenName emails } } }"


def read(text: bytes) -> dict[str, float]:
    """By name and labels."""
    return {
        sample.name + "".join(f",{name}={value}" for name, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


async def until(made: Metrics, name: str) -> dict[str, float]:
    """What is shown as soon as `name` is."""
    async with asyncio.timeout(30):
        while name not in (shown := read(await made.scrape())):  # noqa: ASYNC110  # a scrape is all there is to ask
            await asyncio.sleep(0.02)
    return shown


async def grown(house: House, before: dict[str, float]) -> dict[str, float]:
    after = read(await house.api.metrics.scrape())
    return {name: value - before.get(name, 0.0) for name, value in after.items() if value != before.get(name, 0.0)}


async def test_requests_are_counted_by_kind_and_outcome(house: House) -> None:
    before = read(await house.api.metrics.scrape())
    await house.ask(PAGE)
    await house.ask("{ nonsense }")
    await house.ask('mutation { createTag(name: "metric") { tag { id } } }', role=Role.AUDITOR)
    counted = await grown(house, before)
    assert counted["coffer_requests_total,kind=query,outcome=OK"] == 1
    assert counted["coffer_requests_total,kind=none,outcome=VALIDATION_FAILED"] == 1
    assert counted["coffer_requests_total,kind=mutation,outcome=FORBIDDEN"] == 1
    assert counted["coffer_request_seconds_count,kind=query"] == 1


async def test_the_time_of_a_request_is_told_by_its_parts(house: House) -> None:
    before = read(await house.api.metrics.scrape())
    await house.create(givenName="Ada")
    await house.ask(PAGE)
    counted = await grown(house, before)
    parts = {
        name: counted[f"coffer_request_part_seconds_total,part={name}"] for name in ("database", "resolvers", "record")
    }
    whole = sum(value for name, value in counted.items() if name.startswith("coffer_request_seconds_sum"))
    assert all(value > 0 for value in parts.values())
    assert sum(parts.values()) <= whole


async def test_values_that_left_are_counted_by_level_and_recorded_in_groups(house: House) -> None:
    made = await house.create(givenName="Ada", emails=["ada@example.org"])
    before = read(await house.api.metrics.scrape())
    one = "query($i: ID!) { customer(id: $i) { givenName emails } }"
    await house.data(one, {"i": made["id"]}, role=Role.AGENT)
    counted = await grown(house, before)
    assert counted["coffer_disclosed_values_total,level=plain"] == 1
    assert counted["coffer_disclosed_values_total,level=masked"] == 1
    assert counted["coffer_recorder_group_size_count"] == counted["coffer_recorder_seconds_count"] == 1


async def test_the_key_cache_counts_hits_misses_and_loads(house: House) -> None:
    before = read(await house.api.metrics.scrape())
    house.api.keyrings.drop(house.tenants["acme"].id)
    await house.ask(PAGE)
    await house.ask(PAGE)
    counted = await grown(house, before)
    names = [f"coffer_keyring_{name}_total" for name in ("misses", "loads", "hits")]
    assert [counted[name] for name in names] == [1, 1, 1]


async def test_jobs_are_counted_by_kind_and_state(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "KEPT", 0.0)
    before = read(await house.api.metrics.scrape())
    await house.data("mutation($i: ImportInput!) { importCustomers(input: $i) { job { id } } }", IMPORT)
    counted = await grown(house, before)
    assert counted["coffer_jobs,kind=import_customers,state=READY"] == 1


async def test_what_was_asked_of_the_database_is_kept_for_some_seconds() -> None:
    asked, made = [], Metrics()

    async def count() -> dict[tuple[str, str], int]:
        asked.append(1)
        return {("import", "READY"): len(asked)}

    made.watch_jobs(count)
    await asyncio.gather(*(made.scrape() for _ in range(5)))
    assert len(asked) == 1
    assert read(await made.scrape())["coffer_jobs,kind=import,state=READY"] == 1


async def test_when_the_database_is_away_the_rest_is_shown() -> None:
    made = Metrics()

    async def count() -> dict[tuple[str, str], int]:
        raise OSError

    made.watch_jobs(count)
    made.watch("sockets_open", "Sockets.", lambda: 3)
    shown = read(await made.scrape())
    assert (shown["coffer_probes_up"], shown["coffer_sockets_open"]) == (0, 3)


async def test_each_api_counts_for_itself(house: House) -> None:
    other, before = Metrics(), read(await house.api.metrics.scrape())
    other.request("query", [], 0.1, {})
    assert await grown(house, before) == {}


def test_words_beyond_the_first_hundred_are_one() -> None:
    made = Metrics()
    for number in range(500):
        made.request("query", [f"CODE_{number}"], 0.1, {})
        made.job(f"kind_{number}", "DONE", 0.1)
    outcomes = {sample.labels.get("outcome") for family in made.registry.collect() for sample in family.samples}
    assert len(outcomes) <= 105
    assert "OTHER" in outcomes


async def test_no_label_names_a_tenant_or_anything_of_a_client(house: House) -> None:
    await house.ask("query Ada { ada: customers { nodes { givenName } } }", headers={"x-request-id": "ada-ada-ada"})
    text = (await house.api.metrics.scrape()).decode()
    assert not re.search(r"ada|acme|globex|example\.org", text, re.I)
    assert not any(str(tenant.id) in text for tenant in house.tenants.values())


async def test_a_number_that_is_watched_twice_is_added_up() -> None:
    made = Metrics()
    for number in (1, 2):
        made.watch("sockets_open", "Sockets.", lambda number=number: number)  # type: ignore[misc]
    assert read(await made.scrape())["coffer_sockets_open"] == 3


async def test_metrics_have_a_port_of_their_own(house: House) -> None:
    async with served(house) as server, httpx.AsyncClient() as client:
        public = await client.get(f"{server.address}/metrics")
        own = await client.get(f"{server.metrics_address}/metrics")
        elsewhere = await client.get(f"{server.metrics_address}/graphql")
    assert (public.status_code, own.status_code, elsewhere.status_code) == (404, 200, 404)
    assert own.headers["content-type"].startswith("text/plain; version=")
    assert {"coffer_audit_lag_seconds", "coffer_broker_up", "coffer_feed_lag_seconds"} <= set(read(own.content))


async def test_a_worker_counts_jobs_its_lag_and_whether_the_broker_is_there(house: House) -> None:
    worker = Worker(house.api.settings)
    try:
        worker.start()
        await house.data("mutation($i: ImportInput!) { importCustomers(input: $i) { job { id } } }", IMPORT)
        shown = await until(worker.metrics, done := "coffer_job_seconds_count,kind=import_customers,outcome=DONE")
    finally:
        await worker.close(grace=3)
    assert shown[done] >= 1
    assert shown["coffer_broker_up"] == 1
    assert "coffer_audit_lag_seconds" in shown


async def test_a_broker_that_takes_nothing_is_seen() -> None:
    made, tried = Metrics(), Event()

    def send(*_: object) -> None:
        tried.set()
        raise OSError

    with Bell(send, patience=0.2) as bell:
        made.watch_broker(lambda: bell.is_away)
        before = read(await made.scrape())["coffer_broker_up"]
        bell.ring(TenantId(UUID(int=1)), JobId(UUID(int=2)))
        assert await asyncio.to_thread(tried.wait, 5)
    assert (before, read(await made.scrape())["coffer_broker_up"]) == (1, 0)


async def test_copies_that_are_owed_are_shown() -> None:
    made, owed = Metrics(), [1, 2]
    made.watch_copies(lambda: len(owed))
    before = read(await made.scrape())["coffer_audit_copies_owed"]
    owed.clear()
    assert (before, read(await made.scrape())["coffer_audit_copies_owed"]) == (2, 0)


async def test_a_second_process_takes_the_next_port() -> None:
    with metrics._listener("127.0.0.1", 0) as first:  # type: ignore[union-attr]  # 0 is always free
        port = first.getsockname()[1]
        async with metrics.serving(Metrics(), "127.0.0.1", port), httpx.AsyncClient() as client:
            found = [number for number in range(port + 1, port + 16) if await answers(client, number)]
    assert found


async def answers(client: httpx.AsyncClient, port: int) -> bool:
    try:
        return "coffer_" in (await client.get(f"http://127.0.0.1:{port}/metrics")).text
    except httpx.TransportError:
        return False
