"""A long stream sealed in chunks of one size: none can be cut off, moved, doubled, or taken to another backup.

Layout (bytes)::

    opening:   0      1      2             6         38         70
               | 0xC2 | 0x01 | size u32 BE | salt 32 | check 32 |

    chunk i:   | ciphertext | tag 16 |

The opening lies where the stream is described, not in it. Every chunk but the last is exactly `size` bytes sealed, so
``size - 16`` of the stream; the last holds the rest, at least one byte, and only an empty stream has an empty chunk.

``chunk key = derive(key, "coffer.chunk.key.v1", backup 16, opening[:38])`` and
``check = derive(key, "coffer.chunk.check.v1", backup 16, opening[:38])`` with `crypto.keys.derive`; `key` is 32 bytes.
The check commits the stream to one key: two keys of one check would be a collision of HMAC-SHA256 (Bellare and Hoang,
"Efficient Schemes for Committing Authenticated Encryption", EUROCRYPT 2022).

A chunk is one call of AES-256-GCM under the chunk key. The nonce is ``i`` as 11 bytes BE and one byte that is 1 in the
last chunk, else 0 (STREAM: Hoang, Reyhanitabar, Rogaway and Vizár, "Online Authenticated-Encryption and its
Nonce-Reuse Misuse-Resistance", CRYPTO 2015). Associated data is ``join("coffer.chunk.v1", backup 16, i u64 BE, last u8,
opening)`` with `crypto.encoding.join`. A counter is safe here because a chunk key seals one stream only: a backup has a
key of its own, and the salt of 32 random bytes gives even a second try of the same backup another one. No function
takes a nonce.

Suite 0x01 is frozen: `tests/vectors/chunks.json` opens for as long as the product exists.
"""

import hmac
import os
import struct
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from crypto.encoding import join
from crypto.errors import CannotOpen
from crypto.keys import KEY_BYTES, derive
from crypto.values import TAG_BYTES

CHUNK_BYTES = 4 << 20  # sealed
OPENING_BYTES = 70
_MAGIC, _SUITE = 0xC2, 0x01
_HEADER = struct.Struct(">BBI")
_SALT_BYTES = 32
_SALTED_BYTES = _HEADER.size + _SALT_BYTES
_MOST = 1 << 32  # chunks; far below what AES-GCM bears under one key


class Sealing:
    """Seals one stream of one backup, chunk after chunk; never two at once."""

    def __init__(self, key: bytes, backup: UUID, size: int = CHUNK_BYTES) -> None:
        """`key` is 32 bytes and this backup's own; `size` is of a sealed chunk, more than its tag."""
        _require(key, size)
        salted = _HEADER.pack(_MAGIC, _SUITE, size) + os.urandom(_SALT_BYTES)
        self.opening = salted + _check(key, backup, salted)
        self._cipher = AESGCM(_chunk_key(key, backup, salted))
        self._backup = backup
        self._size = size
        self._next = 0
        self._is_over = False

    def seal(self, content: bytes, *, is_last: bool) -> bytes:
        """The next chunk. Raises `ValueError` for a content of the wrong length, and after the last one."""
        fits = _fits(len(content), self._size - TAG_BYTES, self._next, is_last)
        if self._is_over or self._next >= _MOST or not fits:
            raise ValueError("no such chunk comes next in a stream")
        index, self._next, self._is_over = self._next, self._next + 1, is_last
        return self._cipher.encrypt(_nonce(index, is_last), content, _bound(self._backup, index, is_last, self.opening))


class Opening:
    """Opens the chunks of one stream, in any order."""

    def __init__(self, key: bytes, backup: UUID, opening: bytes) -> None:
        """Raises `CannotOpen` for another key, another backup's opening, or bytes that are none."""
        salted, check = opening[:_SALTED_BYTES], opening[_SALTED_BYTES:]
        if len(opening) != OPENING_BYTES or opening[0] != _MAGIC or opening[1] != _SUITE or len(key) != KEY_BYTES:
            raise CannotOpen
        if not hmac.compare_digest(_check(key, backup, salted), check):
            raise CannotOpen
        self._cipher = AESGCM(_chunk_key(key, backup, salted))
        self._backup = backup
        self._opening = opening
        self._size = size_of(opening)

    def open(self, index: int, sealed: bytes, *, is_last: bool) -> bytes:
        """What chunk `index` holds. Raises `CannotOpen`, always the same, whatever is wrong."""
        if not 0 <= index < _MOST or not _fits(len(sealed) - TAG_BYTES, self._size - TAG_BYTES, index, is_last):
            raise CannotOpen
        try:
            bound = _bound(self._backup, index, is_last, self._opening)
            return self._cipher.decrypt(_nonce(index, is_last), sealed, bound)
        except InvalidTag:
            raise CannotOpen from None


def size_of(opening: bytes) -> int:
    """Of a sealed chunk, as the opening says; raises `CannotOpen` for what is no opening."""
    if len(opening) != OPENING_BYTES:
        raise CannotOpen
    return int.from_bytes(opening[2:6], "big")


def _require(key: bytes, size: int) -> None:
    if len(key) != KEY_BYTES or not TAG_BYTES < size <= CHUNK_BYTES:
        raise ValueError("a key is 32 bytes, a chunk more than its tag and at most 4 MiB")


def _fits(length: int, full: int, index: int, is_last: bool) -> bool:
    if not is_last:
        return length == full
    return 0 < length <= full or length == index == 0


def _chunk_key(key: bytes, backup: UUID, salted: bytes) -> bytes:
    return derive(key, b"coffer.chunk.key.v1", backup.bytes, salted)


def _check(key: bytes, backup: UUID, salted: bytes) -> bytes:
    return derive(key, b"coffer.chunk.check.v1", backup.bytes, salted)


def _nonce(index: int, is_last: bool) -> bytes:
    return index.to_bytes(11, "big") + bytes([is_last])


def _bound(backup: UUID, index: int, is_last: bool, opening: bytes) -> bytes:
    return join(b"coffer.chunk.v1", backup.bytes, index.to_bytes(8, "big"), bytes([is_last]), opening)
