"""`python -m bench.restore`: a tenant's data replaced by a backup's, beside `pg_restore` of those tables and tokens.

Coffer's process has one core, and so has pg_restore in its turn; Postgres has the other. Sealed anew is slower than
taken as it is: both are told.
"""

import argparse
import asyncio
import cProfile
import os
import pstats
import resource
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import uvloop
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import select

from api.app import Api
from bench.cores import OTHER_CORE, SERVER_CORE, on_core
from bench.house import DATABASE, House, house
from bench.people import person
from crypto.buckets import bucket_of
from crypto.transit import TransitKeys
from domain import customers
from domain.restored_pages import Source
from jobs.backups import reading, writing
from jobs.backups.manifests import About, Manifest
from jobs.backups.stores import Store
from jobs.handling import Handling
from jobs.restoring.dumps import Dump
from jobs.restoring.replacing import replace_data
from jobs.restoring.secrets import Secrets
from jobs.rotations.dek import rotate_dek_by
from local.postgres import program
from migrations.apply import newest
from telemetry import logs
from tenants.backups import dumping, loading
from tenants.database import Database
from tenants.jobs import JobId
from tenants.jobs.ledger import Ledger
from tenants.keys import rotating
from tenants.keys.rotating import ROTATE
from tenants.keys.rotations import Cause, KeyPurpose
from tenants.provisioning import Provisioning
from tenants.subjects import Subject
from tenants.viewers import TenantId

_SIGNER = Ed25519PrivateKey.generate()
_TABLES = ("members", "subjects", "customers", "customer_tokens", "tags", "customer_tags")
_COPY = "coffer_restored"
_BATCH = 500


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.restore", description=__doc__)
    parser.add_argument("--rows", type=int, default=40_000, help="customers, each with its tokens")
    parser.add_argument("--folder", type=Path, default=Path(".coffer-bench"), help="where loaded data is kept")
    parser.add_argument("--profile", action="store_true", help="print what the restore spends its time on by cProfile")
    asked = parser.parse_args()
    logs.configure("WARNING")
    with tempfile.TemporaryDirectory() as scratch:
        uvloop.run(_bench(asked, Path(scratch)))


async def _bench(asked: argparse.Namespace, scratch: Path) -> None:
    async with AsyncExitStack() as opened:
        with on_core(OTHER_CORE):
            built = await opened.enter_async_context(house(asked.folder.resolve(), 20))
        opened.enter_context(on_core(SERVER_CORE))
        bench = await opened.enter_async_context(_Bench.opened(built, scratch))
        await bench.load(asked.rows)
        theirs = await asyncio.to_thread(bench.theirs)
        print(f"{'pg_restore':22}{asked.rows / theirs:9.0f} rows/s", flush=True)
        profile = cProfile.Profile() if asked.profile else None
        for name, seconds in [("restore", await bench.ours(profile)), ("restore, sealed anew", await bench.resealed())]:
            size = bench.record_bytes / seconds / 1e6
            print(f"{name:22}{asked.rows / seconds:9.0f} rows/s {size:7.1f} MB/s {theirs / seconds:9.2f} of pg_restore")
        print(f"{'most memory':22}{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024:9} MB")
        if profile is not None:
            pstats.Stats(profile).sort_stats("tottime").print_stats(25)


class _Bench:
    def __init__(self, built: House, api: Api, maker: TransitKeys, scratch: Path) -> None:
        self._built = built
        self._api = api
        self._maker = maker
        self._scratch = scratch
        self._key = os.urandom(32)
        self._stores = [_store(scratch, number) for number in range(6)]
        self.tenant = TenantId(UUID(int=0))
        self.record_bytes = 0

    @classmethod
    @asynccontextmanager
    async def opened(cls, built: House, scratch: Path) -> AsyncIterator["_Bench"]:
        api, role = Api(built.settings), built.settings.provisioner_role
        assert role is not None
        maker = TransitKeys(built.settings.vault_address, role.role_id, role.secret_id)
        try:
            yield cls(built, api, maker, scratch)
        finally:
            await maker.close()
            await api.close()

    async def load(self, rows: int) -> None:
        provisioning = Provisioning(self._api.platform, self._api.database, self._maker, self._api.keys)
        self.tenant = (await provisioning.provision(f"restore-{uuid4().hex[:8]}", "Restored")).id
        for start in range(0, rows, _BATCH):
            people = [
                person(number) | {"note": "Called, will call back."}
                for number in range(start, min(start + _BATCH, rows))
            ]
            async with self._api.units.enter(self.tenant, None, write=True) as unit:
                await customers.create_many(unit, people)
        self._manifest, self._source = await self._backed_up(), await self._sources()

    def theirs(self) -> float:
        """Seconds of pg_restore, of this tenant's share of the rows: the others' are few."""
        url, dump = self._url("postgres"), self._scratch / "dump"
        tables = [argument for each in _TABLES for argument in ("-t", each)]
        subprocess.run([program("pg_dump"), "-Fc", *tables, "-f", str(dump), url], check=True)
        asyncio.run(_recreate(url))
        restoring = [
            program("pg_restore"),
            "--no-owner",
            "--no-privileges",
            "-d",
            self._url("postgres", _COPY),
            str(dump),
        ]
        began = time.perf_counter()
        done = subprocess.run(restoring, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - began
        assert "COPY failed" not in done.stderr, done.stderr
        return seconds

    async def ours(self, profile: cProfile.Profile | None = None) -> float:
        began = time.perf_counter()
        async with (
            self._api.units.enter(self.tenant, None, write=True, fences=True) as unit,
            loading.standing(self._api.database, self.tenant) as stood,
        ):
            dump = Dump(reading.read(self._manifest, self._stores, self._key))
            await dump.begin()
            if profile is not None:
                profile.enable()
            counts = await replace_data(unit, dump, self._source, stood, _silent)
            if profile is not None:
                profile.disable()
        seconds = time.perf_counter() - began
        assert counts.said["customers.written"] == self._manifest.tables["customers"]
        return seconds

    async def resealed(self) -> float:
        """After the data key has turned over."""
        async with self._api.units.enter(self.tenant, None, write=True) as unit:
            rotation = await rotating.begin(unit, KeyPurpose.DEK, Cause.ASKED)
            job = (await rotating.find(unit, rotation)).job_id
        assert job is not None
        ledger = Ledger(self._api.database, self._api.platform, "bench")
        handlers = {ROTATE[KeyPurpose.DEK]: rotate_dek_by(self._api.keys, self._maker)}
        await Handling(self._api.units, ledger, handlers).handle(self.tenant, JobId(job))
        return await self.ours()

    async def _backed_up(self) -> Manifest:
        database = Database(self._built.settings.database_url, pool_size=1)
        try:
            async with dumping.snapshot(database, self.tenant, newest()) as dump:
                about = About(
                    tenant=self.tenant,
                    backup=uuid4(),
                    number=1,
                    previous=None,
                    created=dump.taken,
                    kind="BENCH",
                    key_file=1,
                )
                manifest = await writing.write(
                    dump.records, about=about, key=self._key, stores=self._stores, sign=_sign, tables=dump.rows
                )
        finally:
            await database.close()
        self.record_bytes = manifest.record_bytes
        return manifest

    async def _sources(self) -> Source:
        secrets = Secrets()
        async with self._api.units.enter(self.tenant, None, write=False) as unit:
            rows = await unit.rows(select(Subject.id, Subject.secret).where(Subject.tenant_id == self.tenant))
            ring = unit.keyring
        buckets: dict[int, dict[UUID, bytes]] = {}
        for row in rows:
            buckets.setdefault(bucket_of(row.id), {})[UUID(str(row.id))] = row.secret
        for bucket in buckets.values():
            secrets.take(bucket)
        return Source(self.tenant, ring, secrets.find, frozenset())

    def _url(self, role: str, database: str = DATABASE) -> str:
        """libpq's, of the same server."""
        return (
            self._built.settings.database_url.replace("postgresql+asyncpg", "postgresql")
            .replace("coffer_app", role)
            .replace(f"/{DATABASE}", f"/{database}")
        )


async def _recreate(url: str) -> None:
    superuser = await asyncpg.connect(url)
    try:
        await superuser.execute(f"DROP DATABASE IF EXISTS {_COPY}")
        await superuser.execute(f"CREATE DATABASE {_COPY}")
    finally:
        await superuser.close()


def _store(root: Path, number: int) -> Store:
    (root / str(number)).mkdir()
    return Store(f"file://{root / str(number)}")


async def _sign(message: bytes) -> tuple[int, bytes]:
    return 1, _SIGNER.sign(message)


async def _silent(_rows: int) -> None:
    """Nobody looks."""


if __name__ == "__main__":
    main()
