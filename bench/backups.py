"""`python -m bench.backups`: what sealing, coding and checking cost by themselves, then whole backups in folders."""

import argparse
import asyncio
import os
import resource
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bench import dumps
from crypto.chunks import CHUNK_BYTES, Sealing
from jobs.backups import finding, reading, repairing, verifying, writing
from jobs.backups.checks import check
from jobs.backups.codings import Coding
from jobs.backups.manifests import About, Expected, Manifest
from jobs.backups.records import Counts, packed
from jobs.backups.shapes import Shape
from jobs.backups.stores import Store

_RECORD_BYTES = 2_000  # a customer's row, all of it ciphertext
_CHUNKS = 32
_SIGNER = Ed25519PrivateKey.generate()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.backups", description=__doc__)
    parser.add_argument("--mb", type=int, default=500, help="of records")
    parser.add_argument("--rows", type=int, default=100_000, help="customers of the tenant that is backed up; 0: none")
    parser.add_argument("--coding", default="rs:4+2")
    parser.add_argument("--folder", type=Path, help="where the stores lie; a new one in the system's own by default")
    asked = parser.parse_args()
    _parts(Coding.parse(asked.coding))
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        asyncio.run(_whole(Path(folder), Coding.parse(asked.coding), asked.mb))
    if asked.rows:
        asyncio.run(dumps.compare(asked.folder, asked.rows))
    print(f"most memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024:11} MB")


def _parts(coding: Coding) -> None:
    """MB/s of chunks, one thread."""
    content = os.urandom(CHUNK_BYTES - 16)
    sealing = Sealing(os.urandom(32), uuid4())
    chunk = Sealing(os.urandom(32), uuid4()).seal(content, is_last=True)
    pieces = coding.encode(chunk)
    survivors = dict(list(enumerate(pieces))[-coding.k :])
    _print_rate("seal", lambda: sealing.seal(content, is_last=False))
    _print_rate("code", lambda: coding.encode(chunk))
    _print_rate("decode", lambda: coding.decode(survivors, len(chunk)))
    _print_rate("check", lambda: [check(piece) for piece in pieces])
    asyncio.run(_print_packing())


def _print_rate(name: str, act: Callable[[], object]) -> None:
    act()
    with _told(name, _CHUNKS * CHUNK_BYTES):
        for _ in range(_CHUNKS):
            act()


async def _print_packing() -> None:
    with _told("pack", _CHUNKS * CHUNK_BYTES):
        async for _ in packed(_records(_CHUNKS * CHUNK_BYTES), Counts()):
            pass


async def _whole(root: Path, coding: Coding, mb: int) -> None:
    stores, key, size = [_store(root, shard) for shard in range(coding.shards)], os.urandom(32), mb * 1_000_000
    about = About(
        tenant=uuid4(), backup=uuid4(), number=1, previous=None, created=datetime.now(UTC), kind="BENCH", key_file=1
    )
    with _told("write", size):
        manifest = await writing.write(
            _records(size), about=about, key=key, stores=stores, sign=_sign, shape=Shape(coding)
        )
    with _told("read", size):
        await _read(manifest, stores, key)
    with _told("verify shards", size):
        assert [fault async for fault in verifying.verify_shards(manifest, stores)] == []
    with _told("verify chunks", size):
        assert [fault async for fault in verifying.verify_chunks(manifest, stores, key)] == []
    if coding.m == 0:
        return
    for shard in range(min(coding.m, 2)):
        shutil.rmtree(root / str(shard) / str(about.tenant))
    with _told("read with shards lost", size):
        await _read(manifest, stores, key)
    keys = {1: _SIGNER.public_key().public_bytes_raw()}
    found = await finding.find(stores, keys, Expected(tenant=about.tenant, backup=about.backup))
    with _told("repair", size):
        await repairing.repair(found, stores, _sign)


def _store(root: Path, shard: int) -> Store:
    (root / str(shard)).mkdir()
    return Store(f"file://{root / str(shard)}")


async def _read(manifest: Manifest, stores: list[Store], key: bytes) -> None:
    count = 0
    async for _ in reading.read(manifest, stores, key):
        count += 1
    assert count == manifest.records


async def _records(size: int) -> AsyncIterator[bytes]:
    """Random, and the same only after more than a block: zstd finds nothing, and making them costs nothing."""
    source = os.urandom(CHUNK_BYTES)
    for number in range(size // _RECORD_BYTES):
        start = number * _RECORD_BYTES % (len(source) - _RECORD_BYTES)
        yield source[start : start + _RECORD_BYTES]


async def _sign(message: bytes) -> tuple[int, bytes]:
    return 1, _SIGNER.sign(message)


@contextmanager
def _told(name: str, size: int) -> Iterator[None]:
    begun, used = time.perf_counter(), time.process_time()
    yield
    lasting, busy = time.perf_counter() - begun, time.process_time() - used
    print(f"{name:22}{size / lasting / 1e6:9.0f} MB/s {size / busy / 1e6:9.0f} MB per second of a core", flush=True)


if __name__ == "__main__":
    main()
