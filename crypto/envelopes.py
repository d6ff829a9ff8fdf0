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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple, Self
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
_NO_ID = bytes(16)
_BEFORE_HEADER = join(bytes(HEADER_BYTES))[:-HEADER_BYTES]  # as `join` has it


@dataclass(frozen=True, slots=True)
class Cell:
    """Where a value lies: whose key seals it, under which frozen place label, in which row."""

    tenant: UUID
    subject: UUID
    label: str
    row: UUID


class Column(NamedTuple):
    """What one place holds in many rows, in their order. None where a row has no value, or its subject no secret."""

    label: str
    values: Sequence[bytes | None]
    secrets: Sequence[bytes | None]
    subjects: Sequence[UUID]
    rows: Sequence[UUID]

    def of(self, n: int) -> Self:
        """Of the row of that number alone."""
        here = slice(n, n + 1)
        return self._replace(
            values=self.values[here], secrets=self.secrets[here], subjects=self.subjects[here], rows=self.rows[here]
        )


Ciphers = Mapping[bytes, AESGCM]  # by the secret of the subject, under one version of the data key


def seal(key: AESGCM, dek_version: int, document: bytes, cell: Cell) -> Sealed:
    return _sealed(key, dek_version, _COMMITMENT + _pad(document), _place(cell))


def open_sealed(key: AESGCM, sealed: bytes, cell: Cell) -> bytes:
    """The document's bytes. Raises `CannotOpen`, always the same, whatever is wrong with key, cell or bytes."""
    return _unpad(_opened(key, sealed, _place(cell) + _BEFORE_HEADER + sealed[:HEADER_BYTES]))


def reseal(tenant: UUID, column: Column, ciphers_of: Callable[[int], Ciphers], dek_version: int) -> list[bytes | None]:
    """The same documents in the same cells under another version of the data key; None stays None.

    `ciphers_of` is asked by version. Values come by the thousand: what they share is made once. Raises `CannotOpen`
    if any one does not open.
    """
    header = _HEADER.pack(MAGIC, SUITE, dek_version)
    end = _BEFORE_HEADER + header
    before_subject, before_row = _before_id(tenant.bytes), _before_id(column.label.encode())
    nonces, new = os.urandom(NONCE_BYTES * len(column.values)), ciphers_of(dek_version)
    old: dict[bytes, tuple[Ciphers, bytes]] = {}
    resealed: list[bytes | None] = []
    for n, (value, secret, subject, row) in enumerate(zip(*column[1:], strict=True)):
        if value is None:
            resealed.append(None)
            continue
        if secret is None:
            raise CannotOpen
        place = before_subject + subject.bytes + before_row + row.bytes
        old_header = value[:HEADER_BYTES]
        if old_header not in old:
            old[old_header] = ciphers_of(Sealed(value).dek_version), _BEFORE_HEADER + old_header
        ciphers, old_end = old[old_header]
        plaintext = _opened(ciphers[secret], value, place + old_end)
        nonce = nonces[n * NONCE_BYTES : (n + 1) * NONCE_BYTES]
        resealed.append(header + nonce + new[secret].encrypt(nonce, plaintext, place + end))
    return resealed


def _sealed(key: AESGCM, dek_version: int, plaintext: bytes, place: bytes) -> Sealed:
    header = _HEADER.pack(MAGIC, SUITE, dek_version)
    nonce = os.urandom(NONCE_BYTES)
    return Sealed(header + nonce + key.encrypt(nonce, plaintext, place + _BEFORE_HEADER + header))


def _opened(key: AESGCM, sealed: bytes, bound: bytes) -> bytes:
    """Commitment, document and padding."""
    padded = len(sealed) - OVERHEAD_BYTES
    if padded < BUCKET_BYTES or padded % BUCKET_BYTES or sealed[0] != MAGIC or sealed[1] != SUITE:
        raise CannotOpen
    try:
        opened = key.decrypt(sealed[HEADER_BYTES:_CIPHERTEXT], sealed[_CIPHERTEXT:], bound)
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


def _before_id(part: bytes) -> bytes:
    """What `join` has up to the id behind that part."""
    return join(part, _NO_ID)[: -len(_NO_ID)]


def _pad(document: bytes) -> bytes:
    """ISO/IEC 7816-4 to 32-byte buckets, so that lengths tell little."""
    return document + b"\x80" + bytes(-(len(document) + 1) % BUCKET_BYTES)


def _unpad(opened: bytes) -> bytes:
    end = opened.rfind(b"\x80")
    if end < COMMITMENT_BYTES or len(opened) - end > BUCKET_BYTES or any(opened[end + 1 :]):
        raise CannotOpen
    return opened[COMMITMENT_BYTES:end]
