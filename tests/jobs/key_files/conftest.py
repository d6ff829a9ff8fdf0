from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.house import House
from tests.jobs.key_files.cabinets import Cabinet


@pytest.fixture
async def cabinet(jobs_house: House, tmp_path: Path) -> AsyncIterator[Cabinet]:
    made = await Cabinet.made(jobs_house, tmp_path / "stores")
    yield made
    await made.close()
