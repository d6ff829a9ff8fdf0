"""A keyring is opened once however many ask, stays for its time, and no failure stays at all."""

import asyncio
from dataclasses import dataclass, field
from uuid import UUID

import pytest

from crypto.cache import KeyringCache
from crypto.errors import KeyUnavailable
from crypto.keyring import Keyring

ACME, GLOBEX, INITECH = (UUID(int=number) for number in (1, 2, 3))


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Store:
    """A key store that answers once `gate` is open, and fails while `error` is set."""

    tenant: UUID = ACME
    error: Exception | None = None
    calls: int = 0
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self) -> Keyring:
        self.calls += 1
        epoch = self.calls
        self.asked.set()
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return Keyring(self.tenant, epoch, [])


def open_store(tenant: UUID = ACME) -> Store:
    store = Store(tenant)
    store.gate.set()
    return store


async def waiting(cache: KeyringCache, store: Store, count: int) -> list["asyncio.Task[Keyring]"]:
    """Tasks that all wait for the store, which has been asked."""
    tasks = [asyncio.create_task(cache.load(store.tenant, store)) for _ in range(count)]
    await store.asked.wait()
    return tasks


async def test_32_who_ask_at_once_share_one_flight() -> None:
    cache, store = KeyringCache(size=1), Store()
    tasks = await waiting(cache, store, 32)

    store.gate.set()
    rings = await asyncio.gather(*tasks)

    assert store.calls == 1
    assert {id(ring) for ring in rings} == {id(cache.peek(ACME))}


async def test_32_tenants_in_a_cache_of_one_each_get_their_own_ring() -> None:
    cache, stores = KeyringCache(size=1), [open_store(UUID(int=number % 8)) for number in range(32)]

    rings = await asyncio.gather(*(cache.load(store.tenant, store) for store in stores))

    assert [ring.tenant for ring in rings] == [store.tenant for store in stores]
    assert sum(store.calls for store in stores) == 8
    assert sum(cache.peek(UUID(int=number)) is not None for number in range(8)) == 1


@pytest.mark.parametrize("impatient", [0, 1])
async def test_one_who_gives_up_does_not_end_the_flight(impatient: int) -> None:
    cache, store = KeyringCache(), Store()
    tasks = await waiting(cache, store, 2)

    tasks[impatient].cancel()
    await asyncio.wait([tasks[impatient]])
    store.gate.set()

    assert (await tasks[1 - impatient]).tenant == ACME
    assert tasks[impatient].cancelled()
    assert store.calls == 1


async def test_a_flight_goes_on_for_a_latecomer_although_all_gave_up() -> None:
    cache, store = KeyringCache(), Store()
    (impatient,) = await waiting(cache, store, 1)

    impatient.cancel()
    await asyncio.wait([impatient])
    (latecomer,) = await waiting(cache, store, 1)
    store.gate.set()

    assert cache.peek(ACME) is None
    assert await latecomer is cache.peek(ACME)
    assert store.calls == 1


async def test_an_error_reaches_all_who_wait_and_is_not_kept() -> None:
    cache, store = KeyringCache(), Store(error=KeyUnavailable())
    tasks = await waiting(cache, store, 3)

    store.gate.set()
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    store.error = None
    ring = await cache.load(ACME, store)

    assert [type(error) for error in errors] == [KeyUnavailable] * 3
    assert ring.epoch == store.calls == 2
    assert cache.peek(ACME) is ring


async def test_a_ring_expires_after_its_time_and_use_does_not_prolong_it() -> None:
    clock = Clock()
    cache = KeyringCache(ttl=300, clock=clock)
    ring = await cache.load(ACME, open_store())

    clock.now += 299.9
    assert cache.peek(ACME) is ring
    clock.now += 0.1
    assert cache.peek(ACME) is None


async def test_the_time_counts_from_the_answer_of_the_store() -> None:
    clock, store = Clock(), Store()
    cache = KeyringCache(ttl=300, clock=clock)
    (task,) = await waiting(cache, store, 1)

    clock.now += 200
    store.gate.set()
    ring = await task
    clock.now += 299

    assert cache.peek(ACME) is ring


async def test_a_new_load_replaces_the_ring() -> None:
    cache, store = KeyringCache(), open_store()

    old, new = await cache.load(ACME, store), await cache.load(ACME, store)

    assert (old.epoch, new.epoch) == (1, 2)
    assert cache.peek(ACME) is new


async def test_the_least_recently_used_ring_leaves_first() -> None:
    cache = KeyringCache(size=2)
    acme = await cache.load(ACME, open_store(ACME))
    await cache.load(GLOBEX, open_store(GLOBEX))

    cache.peek(ACME)
    initech = await cache.load(INITECH, open_store(INITECH))

    assert [cache.peek(tenant) for tenant in (ACME, GLOBEX, INITECH)] == [acme, None, initech]


async def test_a_dropped_ring_is_gone_and_its_neighbour_stays() -> None:
    cache = KeyringCache()
    await cache.load(ACME, open_store(ACME))
    globex = await cache.load(GLOBEX, open_store(GLOBEX))

    cache.drop(ACME)
    cache.drop(INITECH)

    assert cache.peek(ACME) is None
    assert cache.peek(GLOBEX) is globex


async def test_a_tenant_nobody_loaded_is_not_open() -> None:
    assert KeyringCache().peek(ACME) is None
