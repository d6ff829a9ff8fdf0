"""OpenBao dies under load: cached tenants go on for a while, others are told to try again, and nothing is in clear."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

import tests.house
from domain.customers.fields import DOCUMENTS
from local.openbao import OpenBaoServer, configure, running_server
from local.postgres import Postgres
from tenants.access import Role
from tenants.ids import new_id
from tests.conftest import Vault
from tests.house import House

SOAK = os.environ.get("COFFER_SOAK") == "1"
OUTAGES, EACH, WORKERS, REFUSALS = (3, 6, 4, 300) if SOAK else (1, 2, 2, 20)
CACHED = [f"cached-{n}" for n in range(EACH)]
COLD = [f"cold-{n}" for n in range(EACH)]
ROLES = [Role.OWNER, Role.MANAGER]
KEY_TTL = 3  # seconds
BACK_WITHIN = 10  # seconds
SOON = 240 if SOAK else 60  # seconds; only a hang takes so long
MAGIC = b"\xc1\x01"

ANSWERED, REFUSED = "200", "503 KEY_UNAVAILABLE retryable"
CANARY = "Kanarienvogel"
SOURCE = "outage"
CREATE = """mutation($i: CustomerInput!) {
  createCustomer(input: $i) { customer { givenName } userErrors { code } } }"""
READ = f'{{ customers(first: 5, filter: {{ source: "{SOURCE}" }}) {{ nodes {{ givenName note emails }} }} }}'
KINDS = ["create", "read"]


def person(name: str, role: Role) -> dict[str, Any]:
    return {
        **({"governmentId": name[-20:]} if role is Role.OWNER else {}),  # the others may not write it
        "givenName": name,
        "emails": [f"{name}@example.org"],
        "externalId": name,
        "note": f"{name} sings",
        "address": {"city": CANARY},
        "source": SOURCE,
    }


def outcome(response: httpx.Response) -> str:
    told = [error["extensions"] for error in response.json().get("errors", [])]
    codes = [f"{error['code']}{' retryable' * error.get('retryable', False)}" for error in told]
    return " ".join([str(response.status_code), *codes])


@dataclass
class Load:
    """Members who create and read without a pause, and what they were answered."""

    house: House
    phase: str = ""
    seen: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)  # phase when asked, tenant, kind, outcome
    sent: set[str] = field(default_factory=set)
    read: set[str] = field(default_factory=set)
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _is_over: bool = False

    @asynccontextmanager
    async def running(self, slugs: Iterable[str]) -> AsyncIterator[None]:
        self._is_over = False
        async with asyncio.TaskGroup() as group:
            for slug in slugs:
                for n in range(WORKERS):
                    group.create_task(self._work(slug, ROLES[n % len(ROLES)]))
            yield
            self._is_over = True

    async def until(self, outcome: str, times: int, slugs: Iterable[str]) -> None:
        """Each of these tenants was answered so, this often to both kinds of request of this phase."""
        wanted = [(self.phase, slug, kind, outcome) for slug in slugs for kind in KINDS]
        while any(self.seen[each] < times for each in wanted):
            self._news.clear()
            await self._news.wait()

    async def _work(self, slug: str, role: Role) -> None:
        while not self._is_over:
            name = f"{CANARY}{new_id().hex}"
            self.sent.add(name)
            await self._ask(slug, role, "create", CREATE, {"i": person(name, role)})
            answer = await self._ask(slug, role, "read", READ, {})
            self.read |= {each["givenName"] for each in answer["customers"]["nodes"]} if answer else set()

    async def _ask(self, slug: str, role: Role, kind: str, document: str, variables: dict[str, Any]) -> dict[str, Any]:
        phase, headers = self.phase, {"accept": "application/graphql-response+json"}
        response = await self.house.post(document, variables, tenant=slug, role=role, headers=headers)
        told = outcome(response)
        assert told in (ANSWERED, REFUSED), f"{phase}, a {kind}: {told}"
        self.seen[phase, slug, kind, told] += 1
        self._news.set()
        return response.json().get("data") or {}


@pytest.fixture
async def apart(postgres_server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    """A house with an OpenBao of its own, so that killing it disturbs nobody, and keys that are cached for seconds."""
    monkeypatch.setattr(tests.house, "settings_for", partial(tests.house.settings_for, key_ttl_seconds=KEY_TTL))
    with running_server(tmp_path / "openbao") as server:
        bao = await asyncio.to_thread(server.start)
        own = Vault(server, bao, await asyncio.to_thread(configure, bao))
        name = f"coffer_outage_{os.getpid()}"
        async with tests.house.house(postgres_server, own, name, slugs=(*CACHED, *COLD)) as made:
            for slug in (*CACHED, *COLD):
                for role in ROLES:
                    await made.token(made.members[slug][role])  # OpenBao signs them
            yield made


@pytest.fixture
async def superuser(apart: House) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(apart.superuser_url)
    yield connection
    await connection.close()


async def kill(server: OpenBaoServer) -> None:
    os.kill(server.pid, signal.SIGKILL)
    await asyncio.to_thread(server.stop)  # only fetches the dead


async def outage(load: Load, superuser: asyncpg.Connection, name: str) -> None:
    """One death of OpenBao and its return; the cached tenants were asked just before it, the cold ones were not."""
    server = load.house.vault.server
    await superuser.execute("UPDATE tenants SET key_epoch = key_epoch + 1")  # no open keyring is of use any more
    load.phase = f"before {name}"
    async with load.running(CACHED):
        await load.until(ANSWERED, 2, CACHED)
        await kill(server)
        load.phase = f"during {name}"
        async with load.running(COLD):
            await load.until(ANSWERED, 1, CACHED)
            await load.until(REFUSED, REFUSALS, [*CACHED, *COLD])
            await asyncio.to_thread(server.start)
            load.phase = f"after {name}"
            async with asyncio.timeout(BACK_WITHIN):
                await load.until(ANSWERED, 1, [*CACHED, *COLD])


async def tables_with(superuser: asyncpg.Connection, *needles: str) -> set[str]:
    """Where a dump of the whole database would show any of these, in whatever case and column."""
    tables = await superuser.fetch(
        "SELECT oid::regclass::text AS name FROM pg_class WHERE relkind IN ('r', 'm')"
        " AND relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)"
    )
    found = "SELECT EXISTS (SELECT FROM {} AS each, unnest($1::text[]) AS n WHERE position(n IN lower(each::text)) > 0)"
    low = [needle.lower() for needle in needles]
    return {table["name"] for table in tables if await superuser.fetchval(found.format(table["name"]), low)}


async def test_openbao_killed_under_load_costs_time_and_nothing_else(
    apart: House, superuser: asyncpg.Connection
) -> None:
    load = Load(apart)
    for n in range(OUTAGES):
        async with asyncio.timeout(SOON):
            await outage(load, superuser, str(n))
    assert {told for phase, _, _, told in load.seen if phase.startswith("before")} == {ANSWERED}
    assert load.read
    assert load.read <= load.sent
    await nothing_is_in_clear(load, superuser)


async def nothing_is_in_clear(load: Load, superuser: asyncpg.Connection) -> None:
    rows = await superuser.fetch("SELECT * FROM customers WHERE source = $1", SOURCE)
    made = sum(times for (_, _, kind, told), times in load.seen.items() if (kind, told) == ("create", ANSWERED))
    sealed = [row[column] for row in rows for column in DOCUMENTS if row[column] is not None]
    assert len(rows) == made
    assert len(sealed) > 3 * made
    assert {value[:2] for value in sealed} == {MAGIC}
    spelled = [CANARY, *(word.encode().hex() for word in (CANARY, CANARY.lower(), CANARY.upper()))]
    assert await tables_with(superuser, *spelled) == set()
    assert await tables_with(superuser, SOURCE) == {"customers"}  # the scan does see text, and bytes as hex
    assert "customers" in await tables_with(superuser, MAGIC.hex())
