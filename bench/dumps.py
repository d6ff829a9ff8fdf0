"""A whole backup of a tenant, from its rows to six folders, beside `pg_dump -Fc` of the same tables and the tokens."""

import asyncio
import os
import resource
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import asyncpg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import domain.customers
import domain.tags  # noqa: F401  # its tables are part of a backup
from bench.cores import OTHER_CORE, SERVER_CORE, on_core
from jobs.backups import reading, verifying, writing
from jobs.backups.manifests import About, Manifest
from jobs.backups.stores import Store
from local.postgres import Postgres, create_roles_and_database, postgres, program
from migrations.apply import newest, upgrade_async
from tenants.backups import dumping
from tenants.database import Database
from tenants.viewers import TenantId

_DATABASE, _TOKENS = "coffer_dumps", 8
_SIGNER = Ed25519PrivateKey.generate()
# As wide as those of a customer with an address, two phones and a note.
_SEALED = {"profile": 23, "guarded": 7, "note": 11, "external_id": 5}
_TENANT = """INSERT INTO tenants
    (id, slug, name, status, key_epoch, access_epoch, default_region, default_language, created_at)
    VALUES ($1, 'acme', 'Acme', 'ACTIVE', 1, 1, 'DE', 'de', now())"""


async def compare(folder: Path | None, rows: int) -> None:
    """Coffer's process has one core, and so has pg_dump in its turn; Postgres has the other."""
    with tempfile.TemporaryDirectory(dir=folder) as made:
        root = Path(made)
        with on_core(SERVER_CORE):
            running = postgres(root / "postgres", durable=False)
            server = running.__enter__()
        try:
            tenant = await _loaded(server, rows)
            with on_core(OTHER_CORE):
                theirs, size = await asyncio.to_thread(_theirs, server, root / "dump")
                print(f"{'pg_dump -Fc':22}{rows / theirs:9.0f} rows/s {size / 1e6:7.0f} MB", flush=True)
                ours = await _ours(server, tenant, root, rows)
        finally:
            running.__exit__(None, None, None)
    print(f"{'of pg_dump':22}{theirs / ours:9.2f}", flush=True)


def _theirs(server: Postgres, target: Path) -> tuple[float, int]:
    tables = [argument for each in [*_tables(), "customer_tokens"] for argument in ("-t", each)]
    url = server.url("postgres", _DATABASE)
    began = time.perf_counter()
    subprocess.run([program("pg_dump"), "-Fc", *tables, "-f", str(target), url], check=True)
    return time.perf_counter() - began, target.stat().st_size


async def _ours(server: Postgres, tenant: TenantId, root: Path, rows: int) -> float:
    database = Database(server.url("coffer_app", _DATABASE, scheme="postgresql+asyncpg"), pool_size=1)
    stores, key = [_store(root, number) for number in range(6)], os.urandom(32)
    try:
        with _told("backup", rows) as seconds:
            async with dumping.snapshot(database, tenant, newest()) as dump:
                manifest = await writing.write(
                    dump.records, about=_about(tenant, dump), key=key, stores=stores, sign=_sign, tables=dump.rows
                )
        assert manifest.tables["customers"] == rows
        with _told("verify", rows):
            assert [fault async for fault in _faults(manifest, stores, key)] == []
        with _told("read back", rows):
            assert len([None async for _ in reading.read(manifest, stores, key)]) == manifest.records
    finally:
        await database.close()
    return seconds[0]


async def _faults(manifest: Manifest, stores: list[Store], key: bytes) -> AsyncIterator[verifying.Fault]:
    async for fault in verifying.verify_shards(manifest, stores):
        yield fault
    async for fault in verifying.verify_chunks(manifest, stores, key):
        yield fault


async def _loaded(server: Postgres, rows: int) -> TenantId:
    create_roles_and_database(server, _DATABASE)
    await upgrade_async(server.url("coffer_owner", _DATABASE, scheme="postgresql+asyncpg"))
    tenant = TenantId(uuid4())
    sealed = ", ".join(f"'\\xc101'::bytea || {_random(count)}" for count in _SEALED.values())
    superuser = await asyncpg.connect(server.url("postgres", _DATABASE))
    try:
        await superuser.execute(_TENANT, tenant)
        await superuser.execute(
            f"""INSERT INTO customers (tenant_id, id, {", ".join(_SEALED)}, stage, created_at, updated_at, version)
            SELECT $1, gen_random_uuid(), {sealed}, 'CUSTOMER', now(), now(), 1
            FROM generate_series(1, {rows}) n""",  # numbers
            tenant,
        )
        await superuser.execute(
            f"""INSERT INTO customer_tokens (tenant_id, index, token, customer_id, bik_version)
            SELECT tenant_id, 'name:' || n, uuid_send(gen_random_uuid()), id, 1
            FROM customers, generate_series(1, {_TOKENS}) n""",
        )
        await superuser.execute("VACUUM ANALYZE")
    finally:
        await superuser.close()
    return tenant


def _random(count: int) -> str:
    """`count` times 16 bytes; they name the row, so that they are made anew for each."""
    return " || ".join("uuid_send(gen_random_uuid())" for _ in range(count))


def _tables() -> list[str]:
    return [each.name for each in dumping.dumped()]


def _store(root: Path, number: int) -> Store:
    (root / str(number)).mkdir()
    return Store(f"file://{root / str(number)}")


def _about(tenant: TenantId, dump: dumping.Dump) -> About:
    return About(
        tenant=tenant,
        backup=uuid4(),
        number=1,
        previous=None,
        created=dump.taken,
        kind="BENCH",
        key_file=1,
    )


async def _sign(message: bytes) -> tuple[int, bytes]:
    return 1, _SIGNER.sign(message)


@contextmanager
def _told(name: str, rows: int) -> Iterator[list[float]]:
    seconds: list[float] = []
    began = time.perf_counter()
    yield seconds
    seconds.append(time.perf_counter() - began)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{name:22}{rows / seconds[0]:9.0f} rows/s, most memory {most} MB", flush=True)
