"""The subject secrets of one tenant, sealed in 256 buckets by the last byte of the subject's id.

Layout (bytes)::

    opening:   0      1      2         34         66
               | 0xC3 | 0x01 | salt 32 | check 32 |

    bucket b:  | ciphertext | tag 16 |
    holds:     per subject, sorted by id: | id 16 | secret 32 |

The opening lies where the buckets are described, not in them. All 256 are there; an empty one is its tag alone.

``bucket key = derive(key, "coffer.bucket.key.v1", tenant 16, generation u64 BE, opening[:34])`` and
``check = derive(key, "coffer.bucket.check.v1", tenant 16, generation u64 BE, opening[:34])`` with `crypto.keys.derive`;
`key` is 32 bytes, fresh for every generation. The check commits the buckets to one key, as in `crypto.chunks`.

A bucket is one call of AES-256-GCM under the bucket key. The nonce is ``b`` as 12 bytes BE, associated data is
``join("coffer.bucket.v1", tenant 16, generation u64 BE, b u8, opening)`` with `crypto.encoding.join`. A number is safe
as a nonce because a bucket key seals one content per bucket: the key is fresh, the salt random, and a bucket that is
sealed again (first to be measured, then to be written) is refused if it holds anything else. No function takes a nonce.

Suite 0x01 is frozen: `tests/vectors/buckets.json` opens for as long as the product exists.
"""

import hashlib
import hmac
import os
from itertools import pairwise
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from crypto.encoding import join
from crypto.errors import CannotOpen
from crypto.keys import KEY_BYTES, derive
from crypto.values import TAG_BYTES

BUCKETS = 256
OPENING_BYTES = 66
PAIR_BYTES = 16 + KEY_BYTES
_HEADER = bytes((0xC3, 0x01))
_SALT_BYTES = 32
_SALTED_BYTES = len(_HEADER) + _SALT_BYTES


class Sealing:
    """Seals the buckets of one generation, each as often as it is asked for."""

    def __init__(self, key: bytes, tenant: UUID, generation: int) -> None:
        """`key` is 32 bytes and this generation's own."""
        if len(key) != KEY_BYTES:
            raise ValueError("a key is 32 bytes")
        salted = _HEADER + os.urandom(_SALT_BYTES)
        self.opening = salted + _check(key, tenant, generation, salted)
        self._cipher = AESGCM(_bucket_key(key, tenant, generation, salted))
        self._tenant = tenant
        self._generation = generation
        self._sealed: dict[int, bytes] = {}

    def seal(self, bucket: int, content: bytes) -> bytes:
        """`content` is its pairs, sorted by id. Raises `ValueError` for any other, and for a second that differs."""
        digest = hashlib.sha256(content).digest()
        if self._sealed.get(bucket, digest) != digest:
            raise ValueError("a bucket is sealed with one content only")
        if bucket not in self._sealed and not is_content(bucket, content):
            raise ValueError("no such bucket, or not its subjects in their order")
        self._sealed[bucket] = digest
        bound = _bound(self._tenant, self._generation, bucket, self.opening)
        return self._cipher.encrypt(_nonce(bucket), content, bound)


class Opening:
    """Opens the buckets of one generation, in any order."""

    def __init__(self, key: bytes, tenant: UUID, generation: int, opening: bytes) -> None:
        """Raises `CannotOpen` for another key, tenant or generation, and for bytes that are no opening."""
        salted, check = opening[:_SALTED_BYTES], opening[_SALTED_BYTES:]
        if len(opening) != OPENING_BYTES or opening[: len(_HEADER)] != _HEADER or len(key) != KEY_BYTES:
            raise CannotOpen
        if not hmac.compare_digest(_check(key, tenant, generation, salted), check):
            raise CannotOpen
        self._cipher = AESGCM(_bucket_key(key, tenant, generation, salted))
        self._tenant = tenant
        self._generation = generation
        self._opening = opening

    def open(self, bucket: int, sealed: bytes) -> dict[UUID, bytes]:
        """The secrets, 32 bytes each, by subject. Raises `CannotOpen`, always the same, whatever is wrong."""
        if not 0 <= bucket < BUCKETS:
            raise CannotOpen
        try:
            bound = _bound(self._tenant, self._generation, bucket, self._opening)
            content = self._cipher.decrypt(_nonce(bucket), sealed, bound)
        except InvalidTag:
            raise CannotOpen from None
        if not is_content(bucket, content):
            raise CannotOpen
        starts = range(0, len(content), PAIR_BYTES)
        return {UUID(bytes=content[at : at + 16]): content[at + 16 : at + PAIR_BYTES] for at in starts}


def bucket_of(subject: UUID) -> int:
    return subject.bytes[-1]


def is_content(bucket: int, content: bytes) -> bool:
    """Whether these are pairs of that bucket, sorted by id, none twice."""
    ids = [content[start : start + 16] for start in range(0, len(content), PAIR_BYTES)]
    return (
        0 <= bucket < BUCKETS
        and len(content) % PAIR_BYTES == 0
        and all(each[15] == bucket for each in ids)
        and all(before < after for before, after in pairwise(ids))
    )


def sealed_bytes(subjects: int) -> int:
    """Of a bucket with so many."""
    return subjects * PAIR_BYTES + TAG_BYTES


def _bucket_key(key: bytes, tenant: UUID, generation: int, salted: bytes) -> bytes:
    return derive(key, b"coffer.bucket.key.v1", tenant.bytes, generation.to_bytes(8, "big"), salted)


def _check(key: bytes, tenant: UUID, generation: int, salted: bytes) -> bytes:
    return derive(key, b"coffer.bucket.check.v1", tenant.bytes, generation.to_bytes(8, "big"), salted)


def _nonce(bucket: int) -> bytes:
    return bucket.to_bytes(12, "big")


def _bound(tenant: UUID, generation: int, bucket: int, opening: bytes) -> bytes:
    return join(b"coffer.bucket.v1", tenant.bytes, generation.to_bytes(8, "big"), bytes([bucket]), opening)
