"""The wire format of a sealed value: one AES-256-GCM call under a subject key, bound to the cell it lies in.

Layout (bytes)::

    0      1      2            6          18                          n-16    n
    | 0xC1 | 0x01 | dek u32 BE | nonce 12 | ciphertext (16 + 32 k)    | tag 16 |

The first 6 bytes are the header; dek is the version of the data key; k is at least 1. The key is the subject key of
`crypto.keyring.Keyring` under that version.

The plaintext inside is ``16 zero bytes | document | 0x80 | zeros`` where the last part fills the document to a
multiple of 32 bytes (ISO/IEC 7816-4), at least one byte. The zeros are checked after opening and commit the ciphertext
to one key (padding fix: Albertini et al., "How to Abuse and Fix Authenticated Encryption Without Key Commitment",
USENIX Security 2022, section 5.3).

Associated data is ``join(tenant 16, subject 16, label UTF-8, row 16, header 6)`` with `crypto.encoding.join`.
The nonce is 96 random bits (NIST SP 800-38D, 8.2.2); nothing outside this file chooses one.

Suite 0x01 is frozen: `tests/vectors/envelopes.json` opens for as long as the product exists.
"""

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from crypto.encoding import join
from crypto.errors import CannotOpen
from crypto.values import (
    BUCKET_BYTES,
    COMMITMENT_BYTES,
    HEADER_BYTES,
    MAGIC,
    NONCE_BYTES,
    OVERHEAD_BYTES,
    SUITE,
    Sealed,
)

_HEADER = struct.Struct(">BBI")
_COMMITMENT = bytes(COMMITMENT_BYTES)
_CIPHERTEXT = HEADER_BYTES + NONCE_BYTES
_BEFORE_HEADER = join(bytes(HEADER_BYTES))[:-HEADER_BYTES]  # as `join` has it


@dataclass(frozen=True, slots=True)
class Cell:
    """Where a value lies: whose key seals it, under which frozen place label, in which row."""

    tenant: UUID
    subject: UUID
    label: str
    row: UUID


def seal(key: AESGCM, dek_version: int, document: bytes, cell: Cell) -> Sealed:
    return _sealed(key, dek_version, _COMMITMENT + _pad(document), _place(cell))


def open_sealed(key: AESGCM, sealed: bytes, cell: Cell) -> bytes:
    """The document's bytes. Raises `CannotOpen`, always the same, whatever is wrong with key, cell or bytes."""
    return _unpad(_opened(key, sealed, _place(cell)))


def reseal(old: AESGCM, new: AESGCM, dek_version: int, sealed: bytes, cell: Cell) -> Sealed:
    """The same document in the same cell under another version of the data key. Raises `CannotOpen`."""
    place = _place(cell)
    return _sealed(new, dek_version, _opened(old, sealed, place), place)


def _sealed(key: AESGCM, dek_version: int, plaintext: bytes, place: bytes) -> Sealed:
    header = _HEADER.pack(MAGIC, SUITE, dek_version)
    nonce = os.urandom(NONCE_BYTES)
    return Sealed(header + nonce + key.encrypt(nonce, plaintext, place + _BEFORE_HEADER + header))


def _opened(key: AESGCM, sealed: bytes, place: bytes) -> bytes:
    """Commitment, document and padding."""
    header = sealed[:HEADER_BYTES]
    if len(sealed) < OVERHEAD_BYTES + BUCKET_BYTES or header[0] != MAGIC or header[1] != SUITE:
        raise CannotOpen
    try:
        opened = key.decrypt(sealed[HEADER_BYTES:_CIPHERTEXT], sealed[_CIPHERTEXT:], place + _BEFORE_HEADER + header)
    except InvalidTag:
        raise CannotOpen from None
    if opened[:COMMITMENT_BYTES] != _COMMITMENT:
        raise CannotOpen
    return opened


def _place(cell: Cell) -> bytes:
    """All of the associated data but the header, which is last."""
    label = cell.label.encode()
    ids = cell.tenant.bytes, cell.subject.bytes, cell.row.bytes
    return _joined(len(label))(16, ids[0], 16, ids[1], len(label), label, 16, ids[2])


@cache
def _joined(length: int) -> Callable[..., bytes]:
    """`join` of three ids and a label of that many bytes, third; a page seals and opens by the thousand."""
    return struct.Struct(f">I16sI16sI{length}sI16s").pack


def _pad(document: bytes) -> bytes:
    """ISO/IEC 7816-4 to 32-byte buckets, so that lengths tell little."""
    return document + b"\x80" + bytes(-(len(document) + 1) % BUCKET_BYTES)


def _unpad(opened: bytes) -> bytes:
    end = opened.rfind(b"\x80")
    if end < COMMITMENT_BYTES or len(opened) - end > BUCKET_BYTES or any(opened[end + 1 :]):
        raise CannotOpen
    return opened[COMMITMENT_BYTES:end]
