"""Nothing that a client gives comes out where it must not: logs at DEBUG, errors, metrics, spans, the database."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import asyncpg
import orjson
import pytest

from tenants import members
from tenants.access import Role
from tests.canaries import Canaries, Swept, canaries, in_database, sweep
from tests.house import House
from tests.inbox import Inbox, receiving
from tests.jobs.desk import until
from tests.served import Collector, Served, collecting, served


@dataclass
class Aftermath:
    canaries: Canaries
    swept: Swept
    server: Served
    metrics: str
    collector: Collector
    in_database: list[str]


@pytest.fixture(scope="module")
async def aftermath(house: House) -> AsyncIterator[Aftermath]:
    """A server that was swept and has ended."""
    await house.add_tenant("aviary")
    made = canaries()
    hashed = await house.api.passwords.hash(made["member-password"])
    async with house.api.units.enter(house.tenants["aviary"].id, None, write=True) as unit:
        email, name = made["member-email"], made["member-name"]
        await members.add(unit, email=email, name=name, password_hash=hashed, roles=[Role.OWNER])
    with collecting() as collector:
        async with receiving() as inbox:
            more = {
                "COFFER_LOG_LEVEL": "DEBUG",
                "COFFER_OTLP_ENDPOINT": collector.address,
                "COFFER_MAIL_URL": inbox.url,
            }
            async with served(house, **more) as server:
                swept = await sweep(server.address, made, "aviary")
                await until(lambda: _arrived(inbox, made["member-email"], made["invite-email"]))
                metrics = await server.scrape()
                found = await in_database(house.superuser_url, made)
    yield Aftermath(made, swept, server, metrics, collector, found)


async def _arrived(inbox: Inbox, *addresses: str) -> bool:
    return all(inbox.to(address) for address in addresses)


def test_the_canaries_are_many_and_all_were_sent(aftermath: Aftermath) -> None:
    assert len(aftermath.canaries.values) >= 50
    assert aftermath.swept.answers > 50


def test_the_search_finds_a_canary_as_text_hex_and_base64() -> None:
    made = canaries()
    email = made["email"].encode()
    forms = [email.upper(), email.hex().encode(), b"eyJ4" + orjson.dumps({"x": made["email"]})]
    assert all(made.found("here", form) for form in forms)
    assert made.found("here", b"a2FuYXJpLWVtYWlsQGJpcmRzLmV4YW1wbGUub3Jn")


async def test_the_search_of_the_database_finds_what_is_planted(house: House) -> None:
    made = canaries()
    connection = await asyncpg.connect(house.superuser_url)
    try:
        await connection.execute("CREATE TABLE planted (a text, b bytea, c json, d text[])")
        note = made["note"]
        await connection.execute(
            "INSERT INTO planted VALUES ($1, NULL, NULL, NULL), (NULL, $2, NULL, NULL), (NULL, NULL, $3, $4)",
            *(note, made["email"].encode(), orjson.dumps({"x": made["phone"]}).decode(), [made["birth"]]),
        )
        found = await in_database(house.superuser_url, made)
    finally:
        await connection.execute("DROP TABLE IF EXISTS planted")
        await connection.close()
    planted = {f"{name} in table planted" for name in ("note", "email", "phone", "birth")}
    assert planted <= set(found)


def test_no_canary_is_in_the_logs(aftermath: Aftermath) -> None:
    lines = [line for line in aftermath.server.logs.splitlines() if line.startswith(b"{")]
    assert sum(orjson.loads(line)["event"] == "request" for line in lines) >= 50
    assert aftermath.canaries.found("logs", aftermath.server.logs) == []


def test_no_canary_is_in_an_error(aftermath: Aftermath) -> None:
    assert aftermath.canaries.found("errors", "\n".join(aftermath.swept.errors).encode()) == []


def test_no_canary_is_in_the_metrics(aftermath: Aftermath) -> None:
    assert "coffer_requests_total" in aftermath.metrics
    assert aftermath.canaries.found("metrics", aftermath.metrics.encode()) == []


def test_no_canary_is_in_a_span(aftermath: Aftermath) -> None:
    assert {"request", "operation", "job", "execute", "open"} <= {span.name for span in aftermath.collector.spans()}
    assert aftermath.canaries.found("spans", b"\n".join(aftermath.collector.bodies)) == []


def test_no_canary_is_in_the_database(aftermath: Aftermath) -> None:
    assert aftermath.in_database == []
