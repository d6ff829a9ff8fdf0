"""A house for jobs alone, whose table of jobs is empty when a test begins."""

import os
from collections.abc import AsyncIterator

import pytest

from local.postgres import Postgres
from tests.conftest import Vault
from tests.house import House
from tests.house import house as built
from tests.jobs.desk import Desk


@pytest.fixture(scope="session")
async def jobs_house(postgres_server: Postgres, vault: Vault) -> AsyncIterator[House]:
    async with built(postgres_server, vault, f"coffer_test_jobs_{os.getpid()}") as made:
        yield made


@pytest.fixture
async def desk(jobs_house: House) -> AsyncIterator[Desk]:
    async with Desk.opened(jobs_house) as made:
        yield made
