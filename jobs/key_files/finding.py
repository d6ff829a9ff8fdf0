"""Which key files lie on the stores: listed, proven, copied and taken away."""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from uuid import UUID

from jobs.backups.errors import StoreAway
from jobs.backups.stores import Store
from jobs.backups.threads import in_thread
from jobs.key_files import statements
from jobs.key_files.errors import KeyFileRefused, Refusal
from jobs.key_files.statements import END_BYTES, Statement

_NAME = re.compile(r"[0-9a-f-]{36}/keys/(?P<generation>\d{8,})\.coffer")
_PATIENCE = 10.0  # seconds for a store that nobody writes to any more
_FIRST = 64 << 10  # bytes: the statement of a tenant that has erased few people
_PART = 4 << 20  # bytes of a longer one that are read at once
_MOST = 1 << 30  # bytes of a statement
_SIGNATURE = 512  # bytes of its line, at most


@dataclass(frozen=True, slots=True)
class Proven:
    """A key file whose statement is signed and whose length fits; its buckets are proven as they are read.

    `sha256` is its identity.
    """

    statement: Statement
    sha256: bytes
    lines: bytes
    name: str


@dataclass(frozen=True, slots=True)
class _Outline:
    """What a file claims to be: bytes of its statement, their SHA-256 and last ones, and the line that signs them.

    `first` is what the file begins with.
    """

    length: int
    sha256: bytes
    end: bytes
    signature: bytes
    first: bytes


@dataclass(frozen=True, slots=True)
class Listed:
    """Sizes in bytes by generation, by store; `away` are those that do not answer."""

    files: Mapping[Store, Mapping[int, int]]
    away: Sequence[Store]

    def require_all(self) -> None:
        """Raises `StoreAway`."""
        if self.away or not self.files:
            raise StoreAway


def folder(tenant: UUID) -> str:
    return f"{tenant}/keys"


def name(tenant: UUID, generation: int) -> str:
    return f"{folder(tenant)}/{generation:08}.coffer"


async def listed(stores: Sequence[Store], tenant: UUID) -> Listed:
    files, away = {}, []
    for store in stores:
        try:
            files[store] = await generations(store, tenant)
        except StoreAway:
            away.append(store)
    return Listed(files, away)


async def generations(store: Store, tenant: UUID) -> dict[int, int]:
    """The bytes of each, by generation."""
    found = {_NAME.fullmatch(each): size for each, size in (await store.sizes(folder(tenant))).items()}
    return {int(match["generation"]): size for match, size in found.items() if match is not None}


async def prove(store: Store, tenant: UUID, generation: int, size: int, public_keys: Mapping[int, bytes]) -> Proven:
    """Raises `KeyFileRefused`, which says why, and `StoreAway`."""
    named = name(tenant, generation)
    outline = await _outline(store, named, size)
    statements.require_signed(outline.sha256, outline.end, outline.signature, public_keys, tenant)
    lines = await _lines(store, named, outline)
    statement = await in_thread(statements.read, lines[: outline.length])
    if statement.generation != generation:
        raise KeyFileRefused(Refusal.OLD if statement.generation < generation else Refusal.EDITED)
    if size != len(lines) + statement.bucket_bytes:
        raise KeyFileRefused(Refusal.TRUNCATED)
    return Proven(statement, outline.sha256, lines, named)


async def write(stores: Sequence[Store], named: str, lines: bytes, buckets: AsyncIterator[bytes]) -> None:
    """The same object on all these stores, each whole or not at all. Raises `StoreAway`, `StoreFull`."""
    async with AsyncExitStack() as stack:
        writes = [await stack.enter_async_context(store.writing(named)) for store in stores]
        await asyncio.gather(*(write(lines) for write in writes))
        async for sealed in buckets:
            await asyncio.gather(*(write(sealed) for write in writes))


async def keep_only(stores: Sequence[Store], tenant: UUID, generation: int) -> None:
    """Take away all others, and what was left half-written. Raises `StoreAway` unless each store lists no other.

    Only for who holds the tenant's key files alone.
    """
    for store in stores:
        for each in await generations(store, tenant):
            if each != generation:
                await store.delete(name(tenant, each))
        await store.sweep(folder(tenant))
    for store in stores:
        if set(await generations(store, tenant)) - {generation}:
            raise StoreAway


async def emptied(stores: Sequence[Store], tenant: UUID) -> list[str]:
    """Take away all key files of the tenant there; the URLs of those that list none, without those that are away."""
    tries = [_emptied(store, tenant) for store in stores]
    return [store.url for store, is_empty in zip(stores, await asyncio.gather(*tries), strict=True) if is_empty]


async def discard(stores: Sequence[Store], tenant: UUID) -> None:
    """Take away all key files of a tenant that is gone. Raises `StoreAway`."""
    for store in stores:
        for each in await generations(store, tenant):
            await store.delete(name(tenant, each))
        await store.sweep(folder(tenant))


async def _outline(store: Store, named: str, size: int) -> _Outline:
    """Hashed as it is read, and not kept: what nobody has signed may be of any length."""
    digest, end, first, length = hashlib.sha256(), b"", b"", 0
    while length < min(size, _MOST):
        part = await store.get(named, length, min(_PART if length else _FIRST, size - length))
        if not part:
            break
        first = first or part
        line, newline, rest = part.partition(b"\n")
        await in_thread(digest.update, line)
        length, end = length + len(line), (end + line[-END_BYTES:])[-END_BYTES:]
        if newline:
            signature = await _signature(store, named, length + 1, size, rest)
            return _Outline(length, digest.digest(), end, signature, first)
    raise KeyFileRefused(Refusal.TRUNCATED)


async def _signature(store: Store, named: str, start: int, size: int, begun: bytes) -> bytes:
    """The line that starts there, of which this much is known."""
    wanted = min(_SIGNATURE, size - start)
    content = begun if len(begun) >= wanted else await store.get(named, start, wanted)
    line, newline, _ = (content or b"")[:_SIGNATURE].partition(b"\n")
    if not newline:
        raise KeyFileRefused(Refusal.TRUNCATED)
    return line


async def _emptied(store: Store, tenant: UUID) -> bool:
    try:
        async with asyncio.timeout(_PATIENCE):
            await discard([store], tenant)
            return not await generations(store, tenant)
    except (StoreAway, TimeoutError):
        return False


async def _lines(store: Store, named: str, outline: _Outline) -> bytes:
    """Both, as they were when they were outlined."""
    length = outline.length + 1 + len(outline.signature) + 1
    lines = outline.first[:length] if len(outline.first) >= length else await store.get(named, 0, length) or b""
    is_same = await in_thread(lambda: hashlib.sha256(lines[: outline.length]).digest()) == outline.sha256
    if not is_same or lines[outline.length :] != b"\n" + outline.signature + b"\n":
        raise KeyFileRefused(Refusal.EDITED)
    return lines
