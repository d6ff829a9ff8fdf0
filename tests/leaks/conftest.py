"""The tenants of the leak tests, seeded once a session, in a house of their own: tests of jobs clear theirs."""

import os
from collections.abc import AsyncIterator

import pytest

from local.postgres import Postgres
from tests.conftest import Vault
from tests.house import House
from tests.house import house as built
from tests.leaks.seeds import Seeds, seeded


@pytest.fixture(scope="session")
async def house(postgres_server: Postgres, vault: Vault) -> AsyncIterator[House]:
    async with built(postgres_server, vault, f"coffer_leaks_{os.getpid()}") as made:
        yield made


@pytest.fixture(scope="session")
async def here(house: House) -> Seeds:
    return await seeded(house, "leaky", "2")


@pytest.fixture(scope="session")
async def there(house: House) -> Seeds:
    return await seeded(house, "leaky-too", "3")


@pytest.fixture(scope="session")
async def work(house: House, there: Seeds) -> Seeds:
    """Where things are changed."""
    made = await seeded(house, "leaky-work", "4")
    made.foreign = there.customers["a mate"]
    return made
