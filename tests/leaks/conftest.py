"""The two tenants of the leak tests, seeded once a session."""

import pytest

from tests.house import House
from tests.leaks.seeds import Seeds, seeded


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
