"""Six folders as stores, a key, a signer, and chunks so small that a backup of some KB has segments."""

import shutil
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from jobs.backups import finding, reading, repairing, verifying, writing
from jobs.backups.codings import Coding
from jobs.backups.finding import Found
from jobs.backups.manifests import About, Expected, Manifest
from jobs.backups.repairing import Repaired
from jobs.backups.shapes import Shape, folder, shard_name
from jobs.backups.stores import Store
from jobs.backups.verifying import Fault

TENANT, OTHER_TENANT = UUID(int=1), UUID(int=2)
BACKUP, SECOND = UUID(int=11), UUID(int=12)
KEY = bytes(range(32))
SIGNER = Ed25519PrivateKey.from_private_bytes(bytes(range(32, 64)))
PUBLIC_KEYS = {3: SIGNER.public_key().public_bytes_raw()}
SMALL = Shape(Coding(4, 2), chunk_bytes=1024, stripes=4)
WIDE = Shape(Coding(4, 2), chunk_bytes=1 << 16, stripes=16)  # a segment is a MiB, as a block of records is
FIRST = About(
    tenant=TENANT,
    backup=BACKUP,
    number=1,
    previous=None,
    created=datetime(2026, 1, 2, 3, 4, 5, 678901, UTC),
    kind="DAILY",
    key_file=1,
)


async def sign(message: bytes) -> tuple[int, bytes]:
    return 3, SIGNER.sign(message)


def some_records(count: int = 64, seed: int = 1) -> list[bytes]:
    """None of which zstd makes smaller, some of them empty."""
    chance = Random(seed)  # noqa: S311  # a test's chance, repeatable
    return [chance.randbytes(chance.choice((0, 1, 300, 600))) for _ in range(count)]


def long_records(count: int = 80) -> list[bytes]:
    """100 KB each, so that there are some blocks and some segments of `WIDE`."""
    chance = Random(2)  # noqa: S311  # likewise
    return [chance.randbytes(100_000) for _ in range(count)]


async def each_of(records: Iterable[bytes]) -> AsyncIterator[bytes]:
    for record in records:
        yield record


@dataclass
class Yard:
    root: Path
    stores: list[Store] = field(init=False)

    def __post_init__(self) -> None:
        self.stores = [self.new_store(str(number)) for number in range(6)]

    def new_store(self, name: str) -> Store:
        (self.root / name).mkdir(parents=True, exist_ok=True)
        return Store(f"file://{self.root / name}")

    async def write(
        self, records: Iterable[bytes], about: About = FIRST, shape: Shape = SMALL, key: bytes = KEY
    ) -> Manifest:
        given = each_of(records)
        return await writing.write(given, about=about, key=key, stores=self.stores, sign=sign, shape=shape)

    async def find(self, about: About = FIRST, stores: Sequence[Store] | None = None) -> Found:
        expected = Expected(tenant=about.tenant, backup=about.backup)
        return await finding.find(self.stores if stores is None else stores, PUBLIC_KEYS, expected)

    async def read(self, manifest: Manifest, key: bytes = KEY) -> list[bytes]:
        return [record async for record in reading.read(manifest, self.stores, key)]

    async def faults(self, manifest: Manifest) -> list[Fault]:
        return [fault async for fault in verifying.verify_shards(manifest, self.stores)]

    async def repair(self, about: About = FIRST, stores: Sequence[Store] | None = None) -> Repaired:
        return await repairing.repair(await self.find(about), self.stores if stores is None else stores, sign)

    def lose(self, *numbers: int) -> None:
        """All that is in these stores."""
        for number in numbers:
            for path in (self.root / str(number)).iterdir():
                shutil.rmtree(path)

    def unmount(self, *numbers: int) -> None:
        for number in numbers:
            (self.root / str(number)).rename(self.root / f"away-{number}")

    def mount(self, *numbers: int) -> None:
        for number in numbers:
            (self.root / f"away-{number}").rename(self.root / str(number))

    def path(self, shard: int, segment: int, about: About = FIRST) -> Path:
        return self.root / str(shard) / shard_name(about.tenant, about.backup, shard, segment)

    def manifests(self, store: int, about: About = FIRST) -> list[Path]:
        return sorted((self.root / str(store) / folder(about.tenant, about.backup)).glob("manifest-*"))

    def files(self) -> dict[str, bytes]:
        """All that lies in the stores, half-written files as well."""
        paths = (path for path in self.root.rglob("*") if path.is_file())
        return {str(path.relative_to(self.root)): path.read_bytes() for path in paths}


def flip(path: Path, place: int, change: int = 1) -> None:
    """Change the byte there by XOR."""
    content = bytearray(path.read_bytes())
    content[place] ^= change
    path.write_bytes(content)


def second(first: Manifest) -> About:
    """The backup after the first one."""
    return replace(first.about, backup=SECOND, number=first.about.number + 1, previous=first.identity)
