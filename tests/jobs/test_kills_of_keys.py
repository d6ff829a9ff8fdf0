"""Workers die by SIGKILL while keys turn over, data are backed up and restored, people are erased: nothing is lost."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest

from crypto.transit import TransitKeys
from domain.backups import BACK_UP, CHECK_BACKUPS, RETIRE_BACKUPS
from domain.restores import DRILL
from jobs.backups.stores import Store
from jobs.key_files.files import KeyFiles
from local.postgres import Postgres
from tenants.jobs import NoArguments
from tests.conftest import Vault
from tests.house import House
from tests.house import house as built
from tests.jobs import accounts
from tests.jobs.crews import Crew
from tests.jobs.crowds import Crowd
from tests.jobs.desk import until
from tests.jobs.havoc import Havoc
from tests.jobs.reckonings import Reckoning
from tests.jobs.test_kills import breaks, linked
from tests.soak import soak_only

SOAK = os.environ.get("COFFER_SOAK") == "1"
KILLS = int(os.environ.get("COFFER_TEST_KILLS", "200" if SOAK else "3"))
SEED = int(os.environ.get("COFFER_TEST_SEED", "5"))
PEOPLE = 30 if SOAK else 8
DRAINED = 600.0 if SOAK else 180.0  # seconds; only a hang takes so long
# A job may be given up where the backup that it was to read went meanwhile.
GONE = ("NOT_FOUND",)


@pytest.fixture
async def apart(postgres_server: Postgres, vault: Vault) -> AsyncIterator[House]:
    """A database of its own: here every job and customer is accounted for."""
    async with built(postgres_server, vault, f"coffer_keys_{uuid4().hex[:12]}") as made:
        yield made


@pytest.fixture
async def superuser(apart: House) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(apart.superuser_url)
    await connection.execute("UPDATE tenants SET disclosure_budget = 2000000000")
    yield connection
    await connection.close()


@pytest.fixture
async def key_files(apart: House) -> AsyncIterator[KeyFiles]:
    settings = apart.api.settings
    assert settings.backup_role is not None
    maker = TransitKeys(settings.vault_address, settings.backup_role.role_id, settings.backup_role.secret_id)
    yield KeyFiles(apart.api.units, apart.api.keys, maker, [Store(url) for url in settings.backup_stores])
    await maker.close()


@soak_only
async def test_killed_workers_lose_no_key_no_row_and_no_backup(
    apart: House, superuser: asyncpg.Connection, key_files: KeyFiles, tmp_path: Path
) -> None:
    chance = Random(SEED)  # noqa: S311  # a test's chance, repeatable
    stores = [Path(urlsplit(url).path) for url in apart.api.settings.backup_stores]
    crowds = [Crowd(apart, slug, chance) for slug in sorted(apart.tenants)]
    havocs = [Havoc(crowd, superuser, stores, chance) for crowd in crowds]
    async with Crew.working(apart.api.settings, superuser, tmp_path, 2) as crew:
        for crowd in crowds:
            for _ in range(PEOPLE):
                await crowd.add()
        async with AsyncExitStack() as stack:
            for crowd in crowds:
                await stack.enter_async_context(crowd.living(writers=2, readers=1))
            await crew.all_up()
            for havoc in havocs:
                await havoc.backed_up()
            while crew.kills < KILLS:
                for _ in range(2):
                    await chance.choice(havocs).stir()
                await crew.strike(chance)
                for havoc in havocs:
                    await havoc.watch()
            await crew.all_up()
            await drained(havocs, superuser)
        for kinds in ((BACK_UP,), (CHECK_BACKUPS, RETIRE_BACKUPS, DRILL)):
            for crowd in crowds:
                async with apart.api.units.enter(crowd.tenant, None, write=True) as unit:
                    for kind in kinds:
                        await unit.enqueue(kind, NoArguments())
            await drained(havocs, superuser)
        troubles = list(crew.troubles())
        await linked(superuser)

    print({"kills": crew.kills, "struck": dict(crew.struck)})
    for crowd, havoc in zip(crowds, havocs, strict=True):
        print(crowd.slug, dict(crowd.acts), dict(crowd.refused), dict(havoc.begun), len(crowd.people), crowd.era)
        assert await Reckoning(crowd, superuser, key_files, stores).faults(may_park=GONE) == []
        assert crowd.acts.keys() >= {"updated", "scans", "searches"}
    assert troubles == []
    assert await breaks(apart) == []
    assert crew.kills == KILLS
    assert crew.struck.total() >= KILLS / 2  # workers died in the middle of jobs


async def drained(havocs: list[Havoc], superuser: asyncpg.Connection) -> None:
    """Until every job has ended. Those that saw three of their workers killed are let go on."""

    async def is_drained() -> bool:
        for havoc in havocs:
            await havoc.watch()
        await asyncio.sleep(0.1)
        return await accounts.unended(superuser) == 0 and all(havoc.restore is None for havoc in havocs)

    try:
        await until(is_drained, DRAINED)
    except AssertionError:
        left = "SELECT kind, state, reason, attempt, deaths, due_at - now() FROM jobs WHERE ended_at IS NULL"
        raise AssertionError([tuple(row) for row in await superuser.fetch(left)]) from None
