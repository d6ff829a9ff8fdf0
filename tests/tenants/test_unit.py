"""The unit is the only door: nothing of a tenant outlives it, nothing moved or altered opens, no key means no write."""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy import select, text

import tests.house
from crypto.cache import KeyringCache
from crypto.errors import CannotOpen, CofferError, KeyUnavailable
from domain import customers
from domain.customers.fields import DOCUMENTS
from domain.customers.rows import Customer
from local.openbao import configure, running_server
from local.postgres import Postgres
from tenants import backups, tenants
from tenants.access import Role
from tenants.database import Database
from tenants.errors import DatabaseUnavailable, TenantSuspended, Unauthenticated
from tenants.owned import TenantOwned, places
from tenants.subjects import Subject
from tenants.unit import Unit
from tenants.units import Units
from tenants.viewers import MemberId, TenantId
from tests.conftest import Vault
from tests.house import House

SOAK = os.environ.get("COFFER_SOAK") == "1"
CANCELS, TENANTS = (5_000, 50) if SOAK else (200, 5)
POOL = 5  # connections, fewer than requests at once
TAMPERINGS = 10_000 if SOAK else 300
PERSON = {
    "given_name": "Ada",
    "family_name": "Lovelace",
    "emails": ["ada@example.org"],
    "government_id": "12-34567",
    "note": "met in London",
}


@pytest.fixture
async def superuser(house: House) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(house.superuser_url)
    yield connection
    await connection.close()


async def a_tenant(house: House) -> TenantId:
    return (await house.provisioning.provision(f"unit-{uuid4().hex[:12]}", "Unit")).id


async def a_customer(units: Units, tenant: TenantId) -> UUID:
    async with units.enter(tenant, None, write=True) as unit:
        return (await customers.create(unit, {**PERSON, "external_id": uuid4().hex})).id


# Nothing is carried over


async def _request(units: Units, tenant: TenantId, *, write: bool) -> None:
    async with units.enter(tenant, None, write=write) as unit:
        for _ in range(3):
            assert await unit.scalars(select(Customer.tenant_id).distinct()) == [tenant]
            await unit.rows(text("SELECT pg_sleep(0.002)"))


async def _cut_off(units: Units, mine: TenantId, chance: random.Random) -> bool:
    """Whether the request was cancelled; one in two by its caller's going away, one in two by its time running out."""
    request = asyncio.create_task(_request(units, mine, write=chance.random() < 0.5))
    patience = chance.uniform(0, 0.06) if chance.random() < 0.8 else 30.0  # some end well, however slow the machine
    if chance.random() < 0.5:
        asyncio.get_running_loop().call_later(patience, request.cancel)
        await asyncio.wait([request])
    else:
        await asyncio.wait([asyncio.create_task(_within(request, patience))])
    if not request.cancelled():
        request.result()
    return request.cancelled()


async def _within(request: "asyncio.Task[None]", seconds: float) -> None:
    try:
        await asyncio.wait_for(request, seconds)
    except (TimeoutError, asyncio.CancelledError):
        return


async def _left_on(database: Database) -> set[str | None]:
    """The tenants that stand on the pool's connections, all held at once."""
    async with AsyncExitStack() as held:
        connections = [await held.enter_async_context(database.connection()) for _ in range(POOL)]
        asked = text("SELECT current_setting('coffer.tenant', true)")
        return {(await connection.execute(asked)).scalar_one() for connection in connections}


@pytest.fixture
async def pool(house: House) -> AsyncIterator[Database]:
    made = Database(house.api.settings.database_url, pool_size=POOL)
    yield made
    await made.close()


async def test_a_cancelled_request_leaves_no_tenant_behind(house: House, pool: Database) -> None:
    chance = random.Random(1)  # noqa: S311  # chance of a test, the same each time
    units = Units(pool, house.api.keys, KeyringCache())
    many = [await a_tenant(house) for _ in range(TENANTS)]
    for tenant in many:
        await a_customer(units, tenant)
    cancelled = 0
    for start in range(0, CANCELS, 20):
        batch = [_cut_off(units, many[n % TENANTS], chance) for n in range(start, start + 20)]
        cancelled += sum(await asyncio.gather(*batch))
        assert await _left_on(pool) <= {None, ""}
    assert CANCELS / 4 < cancelled < CANCELS  # those that ended well must leave nothing either
    for tenant in many:
        await _request(units, tenant, write=False)


async def test_units_at_the_same_time_see_their_own_tenant_alone(house: House) -> None:
    pair = [house.tenants["acme"].id, house.tenants["globex"].id]
    for tenant in pair:
        await a_customer(house.api.units, tenant)
    await asyncio.gather(*(_request(house.api.units, pair[n % 2], write=n % 3 == 0) for n in range(30)))


# Who may come in


async def _enter(house: House, tenant: UUID, principal: UUID | None) -> Unit:
    member = None if principal is None else MemberId(principal)
    async with house.api.units.enter(TenantId(tenant), member, write=False) as unit:
        return unit


async def test_an_unknown_tenant_is_not_entered(house: House) -> None:
    with pytest.raises(Unauthenticated):
        await _enter(house, uuid4(), None)


async def test_an_unknown_member_does_not_enter(house: House) -> None:
    with pytest.raises(Unauthenticated):
        await _enter(house, house.tenants["acme"].id, uuid4())


async def test_another_tenants_member_does_not_enter(house: House) -> None:
    with pytest.raises(Unauthenticated):
        await _enter(house, house.tenants["acme"].id, house.members["globex"][Role.OWNER].principal)


async def test_a_disabled_member_does_not_enter(house: House, superuser: asyncpg.Connection) -> None:
    tenant, member = house.tenants["acme"].id, house.members["acme"][Role.ANALYST].principal
    await _enter(house, tenant, member)
    await superuser.execute("UPDATE members SET status = 'DISABLED' WHERE id = $1", member)
    try:
        with pytest.raises(Unauthenticated):
            await _enter(house, tenant, member)
    finally:
        await superuser.execute("UPDATE members SET status = 'ACTIVE' WHERE id = $1", member)


async def test_suspension_acts_on_the_next_request_and_so_does_its_end(house: House) -> None:
    tenant = await a_tenant(house)
    slug = (await _enter(house, tenant, None)).tenant.slug
    await tenants.suspend(house.api.platform, slug)
    with pytest.raises(TenantSuspended):
        await _enter(house, tenant, None)
    await tenants.resume(house.api.platform, slug)
    assert (await _enter(house, tenant, None)).tenant.id == tenant


async def test_a_new_key_epoch_opens_the_keys_anew(house: House, superuser: asyncpg.Connection) -> None:
    tenant = await a_tenant(house)
    before = (await _enter(house, tenant, None)).keyring
    assert (await _enter(house, tenant, None)).keyring is before
    await superuser.execute("UPDATE tenants SET key_epoch = key_epoch + 1 WHERE id = $1", tenant)
    after = (await _enter(house, tenant, None)).keyring
    assert (after is before, after.epoch) == (False, before.epoch + 1)


# What happens inside


async def test_what_a_savepoint_held_is_undone_alone(house: House, superuser: asyncpg.Connection) -> None:
    tenant = await a_tenant(house)
    kept, undone, later = uuid4(), uuid4(), uuid4()
    async with house.api.units.enter(tenant, None, write=True) as unit:
        unit.new_subject(kept)
        await unit.flush()
        with pytest.raises(ZeroDivisionError):
            async with unit.savepoint():
                unit.new_subject(undone)
                await unit.flush()
                raise ZeroDivisionError
        unit.new_subject(later)
    async with house.api.units.enter(tenant, None, write=False) as unit:
        assert set(await unit.scalars(select(Subject.id))) == {tenant, kept, later}


@pytest.fixture
async def abandoned(house: House) -> AsyncIterator[Unit]:
    """A writing unit that ends without a commit."""
    with suppress(ZeroDivisionError):
        async with house.api.units.enter(house.tenants["acme"].id, None, write=True) as unit:
            yield unit
            raise ZeroDivisionError


async def _cut(superuser: asyncpg.Connection, unit: Unit) -> None:
    """End the unit's connection, as a restart of the database does."""
    (session,) = await unit.scalars(text("SELECT pg_backend_pid()"))
    assert await superuser.fetchval("SELECT pg_terminate_backend($1, 5000)", session)


async def test_a_database_lost_within_a_savepoint_is_unavailable(
    superuser: asyncpg.Connection, abandoned: Unit
) -> None:
    with pytest.raises(DatabaseUnavailable):
        async with abandoned.savepoint():
            await _cut(superuser, abandoned)


async def test_a_unit_that_raises_leaves_nothing(house: House, superuser: asyncpg.Connection) -> None:
    tenant = await a_tenant(house)
    with pytest.raises(ZeroDivisionError):
        async with house.api.units.enter(tenant, None, write=True) as unit:
            await customers.create(unit, PERSON)
            raise ZeroDivisionError
    assert await superuser.fetchval("SELECT count(*) FROM customers WHERE tenant_id = $1", tenant) == 0


async def test_a_reading_unit_cannot_write(house: House, superuser: asyncpg.Connection) -> None:
    tenant = await a_tenant(house)
    with pytest.raises(Exception, match="read-only transaction"):
        async with house.api.units.enter(tenant, None, write=False) as unit:
            await customers.create(unit, PERSON)
    assert await superuser.fetchval("SELECT count(*) FROM customers WHERE tenant_id = $1", tenant) == 0


@pytest.mark.parametrize(
    ("how", "limit"),
    [
        ({"write": True}, "1min"),
        ({"write": True, "fences": True}, "0"),
        ({"write": False}, "0"),
    ],
    ids=["a writer", "one that fences", "a reader"],
)
async def test_a_writer_that_asks_nothing_is_cut_off_after_a_minute(house: House, how: Any, limit: str) -> None:
    owner = house.members["acme"][Role.OWNER]
    for _ in range(2):  # nothing of it outlives the unit
        async with house.api.units.enter(owner.tenant, None, **how) as unit:
            assert await unit.scalars(text("SELECT current_setting('idle_in_transaction_session_timeout')")) == [limit]
        async with house.api.units.enter(owner.tenant, None, write=True) as unit:
            assert await unit.scalars(text("SELECT current_setting('idle_in_transaction_session_timeout')")) == ["1min"]


async def test_whoever_holds_a_backup_while_it_is_read_is_not_cut_off(house: House) -> None:
    owner = house.members["acme"][Role.OWNER]
    async with house.api.units.enter(owner.tenant, None, write=True) as unit:
        await backups.lock_for_long(unit, uuid4())
        assert await unit.scalars(text("SELECT current_setting('idle_in_transaction_session_timeout')")) == ["0"]


async def test_equal_values_of_two_tenants_have_different_tokens(house: House, superuser: asyncpg.Connection) -> None:
    made = [await a_customer(house.api.units, house.tenants[slug].id) for slug in ("acme", "globex")]
    rows = "SELECT index, token FROM customer_tokens WHERE customer_id = $1 AND index <> 'external_id'"
    first, second = [{tuple(row) for row in await superuser.fetch(rows, each)} for each in made]
    assert len(first) == len(second) > 4
    assert {index for index, _ in first} == {index for index, _ in second}
    assert not {token for _, token in first} & {token for _, token in second}


# What was moved or altered does not open


@dataclass(frozen=True, slots=True)
class Sealed:
    tenant: TenantId
    row: UUID
    column: str
    raw: bytes


async def _opens(house: House, cell: Sealed) -> None:
    async with house.api.units.enter(cell.tenant, None, write=False) as unit:
        (view,) = await customers.get_many(unit, [cell.row], {cell.column})
        assert view is not None
        assert view.document(cell.column, "a test") is not None


async def _put(superuser: asyncpg.Connection, cell: Sealed, raw: bytes) -> None:
    await superuser.execute(f"UPDATE customers SET {cell.column} = $1 WHERE id = $2", raw, cell.row)


@pytest.fixture
async def cells(house: House, superuser: asyncpg.Connection) -> Sequence[Sealed]:
    """All sealed values of three customers of each of two tenants."""
    pair = [await a_tenant(house), await a_tenant(house)]
    made = {await a_customer(house.api.units, tenant): tenant for tenant in pair * 3}
    rows = await superuser.fetch("SELECT * FROM customers WHERE id = ANY($1)", list(made))
    return [Sealed(made[row["id"]], row["id"], column, row[column]) for row in rows for column in DOCUMENTS]


async def test_a_value_moved_to_another_row_column_or_tenant_does_not_open(
    house: House, superuser: asyncpg.Connection, cells: Sequence[Sealed]
) -> None:
    chance = random.Random(2)  # noqa: S311  # chance of a test, the same each time
    for _ in range(TAMPERINGS):
        here, there = chance.sample(cells, 2)
        await _put(superuser, here, there.raw)
        with pytest.raises(CannotOpen):
            await _opens(house, here)
        await _put(superuser, here, here.raw)
    for cell in cells:
        await _opens(house, cell)


async def test_a_value_with_any_bit_turned_does_not_open(
    house: House, superuser: asyncpg.Connection, cells: Sequence[Sealed]
) -> None:
    chance = random.Random(3)  # noqa: S311  # chance of a test, the same each time
    for _ in range(TAMPERINGS):
        cell = chance.choice(cells)
        altered = bytearray(cell.raw)
        bit = chance.randrange(16, len(altered) * 8)  # the first two bytes are the CHECK's affair
        altered[bit // 8] ^= 1 << bit % 8
        await _put(superuser, cell, bytes(altered))
        with pytest.raises(CannotOpen):
            await _opens(house, cell)
        await _put(superuser, cell, cell.raw)
    for cell in cells:
        await _opens(house, cell)


@pytest.mark.parametrize("bit", range(16))
async def test_a_bit_turned_in_magic_or_suite_is_refused_by_the_database(
    superuser: asyncpg.Connection, cells: Sequence[Sealed], bit: int
) -> None:
    altered = bytearray(cells[0].raw)
    altered[bit // 8] ^= 1 << bit % 8
    with pytest.raises(asyncpg.CheckViolationError):
        await _put(superuser, cells[0], bytes(altered))


# OpenBao away

BACK_WITHIN = 10  # seconds


@pytest.fixture
async def apart(postgres_server: Postgres, tmp_path: Path) -> AsyncIterator[House]:
    """A house with an OpenBao of its own, so that stopping it disturbs nobody."""
    with running_server(tmp_path / "openbao") as server:
        bao = await asyncio.to_thread(server.start)
        own = Vault(server, bao, await asyncio.to_thread(configure, bao))
        async with tests.house.house(postgres_server, own, f"coffer_apart_{os.getpid()}", slugs=("acme",)) as made:
            yield made


async def _load(house: House, cold: TenantId, stop: asyncio.Event) -> list[CofferError]:
    """Writes of a cached and a cold tenant until told to stop: the errors that they met."""
    met: list[CofferError] = []
    while not stop.is_set():
        for tenant in (house.tenants["acme"].id, cold):
            try:
                await a_customer(house.api.units, tenant)
            except CofferError as error:
                met.append(error)
    return met


async def _in_clear(house: House) -> int:
    connection = await asyncpg.connect(house.superuser_url)
    owners: list[Any] = [mapper.class_ for mapper in TenantOwned.registry.mappers]
    counts = [
        await connection.fetchval(
            f"SELECT count(*) FROM {owner.__tablename__} WHERE substring({column} FROM 1 FOR 2) <> '\\xc101'::bytea"
        )
        for owner in owners
        for column in places(owner)
    ]
    await connection.close()
    return sum(counts)


async def _until_entered(house: House, tenant: TenantId) -> None:
    while True:
        try:
            await a_customer(house.api.units, tenant)
        except KeyUnavailable:
            continue
        return


async def test_a_statement_that_nobody_waits_for_ends_before_its_unit_and_none_begins_after(house: House) -> None:
    async with house.api.units.enter(house.tenants["acme"].id, None, write=False) as unit:
        left = asyncio.create_task(unit.rows(text("SELECT pg_sleep(0.1)")))
        await asyncio.sleep(0)
    assert left.done()
    with pytest.raises(asyncio.CancelledError):
        await unit.rows(text("SELECT 1"))


async def test_without_openbao_open_tenants_go_on_cold_ones_wait_and_nothing_is_in_clear(apart: House) -> None:
    warm, cold = apart.tenants["acme"].id, await a_tenant(apart)
    stop = asyncio.Event()
    await a_customer(apart.api.units, warm)
    await asyncio.to_thread(apart.vault.server.stop)
    load = asyncio.create_task(_load(apart, cold, stop))
    with pytest.raises(KeyUnavailable) as refused:
        await a_customer(apart.api.units, cold)
    assert refused.value.retryable
    await a_customer(apart.api.units, warm)
    stop.set()
    met = await load
    assert met
    assert {type(error) for error in met} == {KeyUnavailable}
    await asyncio.to_thread(apart.vault.server.start)
    await asyncio.wait_for(_until_entered(apart, cold), BACK_WITHIN)
    assert await _in_clear(apart) == 0
