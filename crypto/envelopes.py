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
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Cell:
    """Where a value lies: whose key seals it, under which frozen place label, in which row."""

    tenant: UUID
    subject: UUID
    label: str
    row: UUID


def seal(key: AESGCM, dek_version: int, document: bytes, cell: Cell) -> Sealed:
    header = _HEADER.pack(MAGIC, SUITE, dek_version)
    nonce = os.urandom(NONCE_BYTES)
    return Sealed(header + nonce + key.encrypt(nonce, _COMMITMENT + _pad(document), _associated_data(cell, header)))


def open_sealed(key: AESGCM, sealed: bytes, cell: Cell) -> bytes:
    """The document's bytes. Raises `CannotOpen`, always the same, whatever is wrong with key, cell or bytes."""
    header = sealed[:HEADER_BYTES]
    if len(sealed) < OVERHEAD_BYTES + BUCKET_BYTES or header[0] != MAGIC or header[1] != SUITE:
        raise CannotOpen
    try:
        opened = key.decrypt(sealed[HEADER_BYTES:_CIPHERTEXT], sealed[_CIPHERTEXT:], _associated_data(cell, header))
    except InvalidTag:
        raise CannotOpen from None
    if opened[:COMMITMENT_BYTES] != _COMMITMENT:
        raise CannotOpen
    return _unpad(opened)


def _associated_data(cell: Cell, header: bytes) -> bytes:
    return join(cell.tenant.bytes, cell.subject.bytes, cell.label.encode(), cell.row.bytes, header)


def _pad(document: bytes) -> bytes:
    """ISO/IEC 7816-4 to 32-byte buckets, so that lengths tell little."""
    return document + b"\x80" + bytes(-(len(document) + 1) % BUCKET_BYTES)


def _unpad(opened: bytes) -> bytes:
    end = opened.rfind(b"\x80")
    if end < COMMITMENT_BYTES or len(opened) - end > BUCKET_BYTES or any(opened[end + 1 :]):
        raise CannotOpen
    return opened[COMMITMENT_BYTES:end]
