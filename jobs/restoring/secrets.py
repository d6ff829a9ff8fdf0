"""The secrets of a tenant's subjects, as a key file has them: 48 bytes each, however many there are."""

from bisect import bisect_left
from uuid import UUID

from crypto.buckets import BUCKETS, PAIR_BYTES, bucket_of
from jobs.key_files.reading import KeyFile

_ID_BYTES = 16


class Secrets:
    """In memory, by bucket, each bucket's pairs of id and secret sorted by id."""

    def __init__(self) -> None:
        self._buckets = [b""] * BUCKETS

    @classmethod
    async def of(cls, key_file: KeyFile) -> "Secrets":
        """Raises `KeyFileRefused`, `StoreAway`, `KeyUnavailable`."""
        made = cls()
        async for bucket in key_file.buckets():
            made.take(bucket)
        return made

    def take(self, bucket: dict[UUID, bytes]) -> None:
        """One whole bucket."""
        if bucket:
            pairs = sorted((subject.bytes, secret) for subject, secret in bucket.items())
            self._buckets[pairs[0][0][-1]] = b"".join(part for pair in pairs for part in pair)

    def find(self, subject: UUID) -> bytes | None:
        """32 bytes."""
        wanted, pairs = subject.bytes, self._buckets[bucket_of(subject)]
        count = len(pairs) // PAIR_BYTES
        at = PAIR_BYTES * bisect_left(
            range(count), wanted, key=lambda n: pairs[n * PAIR_BYTES : n * PAIR_BYTES + _ID_BYTES]
        )
        return pairs[at + _ID_BYTES : at + PAIR_BYTES] if pairs[at : at + _ID_BYTES] == wanted else None
