"""No space in a store, in the folder of temporary files, in the database: it passes.

Nothing that was acknowledged is lost, and what was begun goes on by itself once there is space again.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest

from crypto.transit import TransitKeys
from domain.backups import BACK_UP
from domain.erasures import FINISH_ERASURE
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
from tests.soak import soak_only

REFUSED = 6  # changes, so that it was noticed
PEOPLE = 8
PATIENCE = 120.0  # seconds; only a hang takes so long


@contextmanager
def small_disk(size: str) -> Iterator[Path]:
    """Skips where nobody may mount one."""
    folder = Path(tempfile.mkdtemp(prefix="coffer-space-"))
    folder.chmod(0o755)
    mount, umount = shutil.which("mount") or "mount", shutil.which("umount") or "umount"
    options = ["-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run([mount, *options], check=False, capture_output=True).returncode:
        folder.rmdir()
        pytest.skip("only root may mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run([umount, "-l", str(folder)], check=True)
        folder.rmdir()


@contextmanager
def filled(folder: Path) -> Iterator[None]:
    """No byte more goes there while the block runs."""
    filling = folder / "filling"
    with filling.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue
    try:
        yield
    finally:
        filling.unlink()


class Shortage:
    """A tenant of its own, whose data live on while something is short, and one worker."""

    def __init__(self, house: House, superuser: asyncpg.Connection, crowd: Crowd, crew: Crew, stores: list[Path]):
        self.house, self.superuser, self.crowd, self.crew = house, superuser, crowd, crew
        self.stores = stores
        self.havoc = Havoc(crowd, superuser, stores, crowd.chance)

    @classmethod
    @asynccontextmanager
    async def of(
        cls, house: House, folder: Path, *, stores: list[Path] | None = None, temporary: Path | None = None
    ) -> AsyncIterator["Shortage"]:
        slug = f"short-{uuid4().hex[:12]}"
        await house.add_tenant(slug)
        settings = house.api.settings
        if stores is not None:
            settings = replace(settings, backup_stores=tuple(f"file://{each}" for each in stores))
        placed = [Path(urlsplit(url).path) for url in settings.backup_stores]
        variables = None if temporary is None else {**os.environ, "TMPDIR": str(temporary)}
        superuser = await asyncpg.connect(house.superuser_url)
        try:
            async with Crew.working(settings, superuser, folder, 1, variables) as crew:
                await crew.all_up()
                crowd = Crowd(house, slug, Random(5))  # noqa: S311  # a test's chance
                for _ in range(PEOPLE):
                    await crowd.add()
                yield cls(house, superuser, crowd, crew, placed)
        finally:
            await superuser.close()

    async def begin(self) -> None:
        """A bit of everything that writes."""
        for name in ("DEK", "BIK", "KEK", "back_up"):
            await self.havoc.start(name)
        await self.crowd.erase_one()

    async def told(self, reason: str) -> None:
        """Until a job was put off for that."""

        async def is_told() -> bool:
            query = "SELECT count(*) FROM jobs WHERE tenant_id = $1 AND reason = $2"
            return bool(await self.superuser.fetchval(query, self.crowd.tenant, reason))

        await until(is_told, PATIENCE)

    async def refused(self) -> None:
        """Until some changes were."""
        before = self.crowd.refused.total()

        async def are_refused() -> bool:
            return self.crowd.refused.total() >= before + REFUSED

        await until(are_refused, PATIENCE)

    async def over(self) -> None:
        """All that was begun ends, and nothing is as it must not be."""
        await self._ended()
        async with self.house.api.units.enter(self.crowd.tenant, None, write=True) as unit:
            await unit.enqueue(BACK_UP, NoArguments())
        await self._ended()
        async with self.house.api.units.enter(self.crowd.tenant, None, write=True) as unit:
            await unit.enqueue(DRILL, NoArguments())
        await self._ended()
        role = self.house.api.settings.backup_role
        assert role is not None
        maker = TransitKeys(self.house.api.settings.vault_address, role.role_id, role.secret_id)
        stores = [Store(f"file://{each}") for each in self.stores]
        files = KeyFiles(self.house.api.units, self.house.api.keys, maker, stores)
        try:
            assert await Reckoning(self.crowd, self.superuser, files, self.stores).faults() == []
        finally:
            await maker.close()
        assert [line for line in self.crew.troubles() if "job failed" in line] == []
        rotated = await self.superuser.fetchval(
            "SELECT count(*) FROM rotations WHERE tenant_id = $1 AND ended_at IS NOT NULL", self.crowd.tenant
        )
        assert rotated == 3
        assert await self.superuser.fetchval(
            "SELECT count(*) FROM jobs WHERE tenant_id = $1 AND kind = $2", self.crowd.tenant, FINISH_ERASURE.name
        )

    async def _ended(self) -> None:
        async def have_ended() -> bool:
            await self.havoc.watch()
            return await accounts.unended(self.superuser) == 0

        await until(have_ended, PATIENCE)


@pytest.fixture(scope="module")
async def house(postgres_server: Postgres, vault: Vault) -> AsyncIterator[House]:
    async with built(postgres_server, vault, f"coffer_short_{uuid4().hex[:12]}") as made:
        yield made


def place_for(data: str, disk: Path) -> Path:
    """A folder that belongs to whom the server runs as."""
    if not Path(data).exists():
        pytest.skip("the database's disk is not ours")
    place = disk / "tables"
    place.mkdir(mode=0o700)
    os.chown(place, Path(data).stat().st_uid, Path(data).stat().st_gid)
    return place


@pytest.fixture
async def cramped(postgres_server: Postgres, vault: Vault) -> AsyncIterator[tuple[House, Path]]:
    """A house whose tables lie on a small disk, and that disk."""
    name = f"coffer_space_{uuid4().hex[:12]}"
    superuser = await asyncpg.connect(postgres_server.superuser_url)
    try:
        data = await superuser.fetchval("SHOW data_directory")
        with small_disk("80m") as disk:
            place = place_for(data, disk)
            await superuser.execute(f"CREATE TABLESPACE {name} LOCATION '{place}'")
            await superuser.execute(f"CREATE DATABASE {name} TABLESPACE {name} TEMPLATE template0 ENCODING 'UTF8'")
            try:
                await superuser.execute(f"ALTER DATABASE {name} OWNER TO coffer_owner")
                async with built(postgres_server, vault, name, slugs=()) as made:
                    yield made, disk
            finally:
                await superuser.execute(f"DROP DATABASE {name} WITH (FORCE)")
                await superuser.execute(f"DROP TABLESPACE {name}")
                await superuser.execute("CHECKPOINT")
    finally:
        await superuser.close()


async def test_a_database_without_space_loses_nothing(cramped: tuple[House, Path], tmp_path: Path) -> None:
    house, disk = cramped
    async with Shortage.of(house, tmp_path) as short:
        async with short.crowd.living(writers=2, readers=1):
            await short.begin()
            with filled(disk):
                await short.refused()
            await more_changes(short.crowd)
        await short.over()


async def test_a_full_store_delays_what_needs_it_and_nothing_else(house: House, tmp_path: Path) -> None:
    with small_disk("2m") as disk:
        stores = [tmp_path / str(number) for number in range(5)]
        for store in stores:
            store.mkdir()
        async with Shortage.of(house, tmp_path, stores=[*stores, disk]) as short:
            async with short.crowd.living(writers=2, readers=1):
                with filled(disk):
                    await short.begin()
                    await short.told("STORE_FULL")
                    await more_changes(short.crowd)
                    assert objects_on(disk) == []
            await short.over()


def objects_on(disk: Path) -> list[str]:
    return sorted(path.name for path in disk.rglob("*") if path.is_file() and path.name != "filling")


@soak_only
async def test_without_space_for_temporary_files_a_worker_does_all_its_work(house: House, tmp_path: Path) -> None:
    with small_disk("16k") as disk, filled(disk):
        async with Shortage.of(house, tmp_path, temporary=disk) as short:
            async with short.crowd.living(writers=2, readers=1):
                await short.begin()
                await more_changes(short.crowd)
            await short.over()


async def more_changes(crowd: Crowd, count: int = 10) -> None:
    wanted = crowd.acts["updated"] + count

    async def are_there() -> bool:
        return crowd.acts["updated"] >= wanted

    await until(are_there, PATIENCE)
