"""A proven key file: what it says, and what it holds, opened with the key store's help as it is asked for."""

import hashlib
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime
from uuid import UUID

from crypto.buckets import BUCKETS, Opening, bucket_of
from crypto.errors import CannotOpen
from crypto.keys import DataKey, Purpose, WrappedKey, unlock, wrapping_context
from crypto.transit import TransitKeys
from jobs.backups.errors import StoreAway
from jobs.backups.stores import Store
from jobs.backups.threads import in_thread
from jobs.key_files.contexts import backup_key_context, file_key_context
from jobs.key_files.errors import BackupKeyUnknown, KeyFileRefused, Refusal
from jobs.key_files.finding import Proven
from jobs.key_files.statements import Bucket, Statement
from tenants.backups import LiveBackup
from tenants.erasures import Erased

_SPAN = 4 << 20  # bytes of buckets that are fetched at once, so that small ones cost few requests


class KeyFile:
    """Every act raises `KeyUnavailable` while the key store is away, and `KeyRefused` where it refuses a key."""

    def __init__(self, proven: Proven, sources: Sequence[Store], keys: TransitKeys) -> None:
        """`sources` have the same file; `keys` may decrypt."""
        self.lines = proven.lines
        self.name = proven.name
        self.sources = sources
        self.sha256 = proven.sha256
        self._said: Statement = proven.statement
        self._keys = keys
        self._opening: Opening | None = None

    def __repr__(self) -> str:
        return f"KeyFile({self.tenant}, generation {self.generation})"

    @property
    def tenant(self) -> UUID:
        return self._said.tenant

    @property
    def generation(self) -> int:
        return self._said.generation

    @property
    def created(self) -> datetime:
        return self._said.created

    @property
    def statement(self) -> Statement:
        return self._said

    @property
    def ledger(self) -> Sequence[Erased]:
        """Whom the tenant had erased when this was written, all from the first."""
        return self._said.ledger

    @property
    def backups(self) -> Sequence[LiveBackup]:
        return self._said.backups

    @property
    def data_keys(self) -> Sequence[WrappedKey]:
        """Of all purposes, wrapped."""
        return self._said.data_keys

    async def backup_key(self, backup: UUID) -> bytes:
        """32 bytes. Raises `BackupKeyUnknown`."""
        wrapped = next((each.wrapped_key for each in self.backups if each.id == backup), None)
        if wrapped is None:
            raise BackupKeyUnknown
        (key,) = await self._keys.unwrap(self.tenant, [(wrapped, backup_key_context(self.tenant, backup))])
        return key

    async def open_data_keys(self) -> list[DataKey]:
        """What seals values: the data keys alone, of every version in the file."""
        wrapped = [key for key in self.data_keys if key.purpose is Purpose.DEK]
        pairs = [(key.wrapped, wrapping_context(self.tenant, key.id, key.purpose)) for key in wrapped]
        secrets = await self._keys.unwrap(self.tenant, pairs)
        return [unlock(key, secret) for key, secret in zip(wrapped, secrets, strict=True)]

    async def secrets(self, subjects: Iterable[UUID]) -> dict[UUID, bytes]:
        """32 bytes of each of these subjects that is in it. Reads their buckets whole; for many, see `buckets`."""
        wanted = set(subjects)
        found: dict[UUID, bytes] = {}
        for bucket in sorted({bucket_of(subject) for subject in wanted}):
            found |= {subject: secret for subject, secret in (await self.bucket(bucket)).items() if subject in wanted}
        return found

    async def bucket(self, number: int) -> dict[UUID, bytes]:
        """The secrets of all subjects whose id's last byte is `number`. Raises `KeyFileRefused`, `StoreAway`."""
        (sealed,) = await self._span(range(number, number + 1))
        return await self._opened(number, sealed)

    async def buckets(self) -> AsyncIterator[dict[UUID, bytes]]:
        """All secrets, each bucket once; of a tenant's subjects no more is held than some 4 MiB, or one bucket."""
        async for number, sealed in self.sealed_buckets():
            yield await self._opened(number, sealed)

    async def sealed_buckets(self, source: Store | None = None) -> AsyncIterator[tuple[int, bytes]]:
        """All buckets in order, proven; from that store alone, or from whichever has each whole."""
        for span in _spans(self._said.buckets):
            for number, sealed in zip(span, await self._span(span, source), strict=True):
                yield number, sealed

    async def _opened(self, number: int, sealed: bytes) -> dict[UUID, bytes]:
        if self._opening is None:
            key = self._said.file_key
            (secret,) = await self._keys.unwrap(self.tenant, [(key.wrapped, file_key_context(self.tenant, key.id))])
            self._opening = _opening(secret, self._said)
        try:
            return await in_thread(self._opening.open, number, sealed)
        except CannotOpen:
            raise KeyFileRefused(Refusal.EDITED) from None

    async def _span(self, span: range, source: Store | None = None) -> list[bytes]:
        buckets = self._said.buckets[span.start : span.stop]
        start, length = len(self.lines) + buckets[0].offset, sum(bucket.length for bucket in buckets)
        away = False
        for store in self.sources if source is None else [source]:
            try:
                content = await store.get(self.name, start, length)
            except StoreAway:
                away = True
                continue
            cut = _cut(content or b"", buckets)
            if cut is not None:
                return cut
        if away:
            raise StoreAway
        raise KeyFileRefused(Refusal.EDITED)


def _opening(secret: bytes, statement: Statement) -> Opening:
    try:
        return Opening(secret, statement.tenant, statement.generation, statement.file_key.opening)
    except CannotOpen:
        raise KeyFileRefused(Refusal.EDITED) from None


def _cut(content: bytes, buckets: Sequence[Bucket]) -> list[bytes] | None:
    """Each bucket, or None where any is not what was signed."""
    first = buckets[0].offset
    cut = [content[each.offset - first : each.offset - first + each.length] for each in buckets]
    is_whole = all(hashlib.sha256(each).digest() == bucket.sha256 for each, bucket in zip(cut, buckets, strict=True))
    return cut if is_whole else None


def _spans(buckets: Sequence[Bucket]) -> list[range]:
    """Runs of buckets that are fetched together."""
    spans, first = [], 0
    for number in range(BUCKETS):
        if number > first and buckets[number].offset + buckets[number].length - buckets[first].offset > _SPAN:
            spans.append(range(first, number))
            first = number
    return [*spans, range(first, BUCKETS)]
