"""The open data keys of one tenant and the four things they do: seal, open, index, authenticate."""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple
from uuid import UUID

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from crypto import envelopes
from crypto.envelopes import Cell, Ciphers, Column
from crypto.errors import CannotOpen, KeyUnavailable
from crypto.keys import KEY_BYTES, DataKey, KeyState, Purpose, derive, mac
from crypto.values import Sealed

TOKEN_BYTES = 16
MAC_BYTES = 32


class SealedCell(NamedTuple):
    """A ciphertext, the 32-byte secret of its subject, and where both belong."""

    sealed: Sealed
    subject_secret: bytes
    subject: UUID
    row: UUID


class Keyring:
    """Keys of one tenant as of one `key_epoch`.

    HKDF(key, label, ...) is `crypto.keys.derive`; tenant is its 16 bytes, text is UTF-8, v is the key's version.
    Subject key: the 32-byte subject secret, its first and its second 16 bytes each enciphered as one AES-256 block
    under HKDF(DEK v, "coffer.subject.v1", tenant), in order. A permutation of uniform input; a whole page is one call.
    Token: the first 16 bytes of HMAC-SHA256 of the value under
    HKDF(BIK v, "coffer.index.v1", tenant, place, index, normaliser u32 BE).
    Mac: HMAC-SHA256 of the message under HKDF(BIK v, "coffer.mac.v1", tenant, label).
    """

    def __init__(self, tenant: UUID, epoch: int, keys: Sequence[DataKey]) -> None:
        self.tenant = tenant
        self.epoch = epoch
        self._keys = {(key.purpose, key.version): key.secret for key in keys}
        self._active = {key.purpose: key.version for key in keys if key.state is KeyState.ACTIVE}
        self._next = {key.purpose: key.version for key in keys if key.state is KeyState.NEXT}
        former = [key for key in keys if key.purpose is Purpose.BIK and key.state is KeyState.DECRYPT_ONLY]
        self._former = tuple(sorted((key.version for key in former), reverse=True))
        self._subject_ciphers: dict[int, Cipher[modes.ECB]] = {}
        self._index_keys: dict[tuple[int, str, str, int], bytes] = {}
        self._mac_keys: dict[tuple[int, str], bytes] = {}

    def __repr__(self) -> str:
        return f"Keyring({self.tenant}, epoch {self.epoch})"

    def active_version(self, purpose: Purpose) -> int:
        """Raises `KeyUnavailable` where the tenant has no active key: nothing is ever written without one."""
        try:
            return self._active[purpose]
        except KeyError:
            raise KeyUnavailable from None

    def index_versions(self) -> tuple[int, ...]:
        """The index keys whose tokens a writer writes: the active one, and one that is being filled. The active first.

        Raises `KeyUnavailable` where none is active.
        """
        active = self.active_version(Purpose.BIK)
        return (active,) if Purpose.BIK not in self._next else (active, self._next[Purpose.BIK])

    def index_key_versions(self) -> tuple[int, ...]:
        """The index keys that authenticate, or once did: the active one, then those it came after, newest first.

        Raises `KeyUnavailable` where none is active.
        """
        return (self.active_version(Purpose.BIK), *self._former)

    def seal(self, document: bytes, subject_secret: bytes, cell: Cell) -> Sealed:
        version = self.active_version(Purpose.DEK)
        (key,) = self._subject_keys(version, [subject_secret])
        return envelopes.seal(key, version, document, cell)

    def open_many(self, label: str, cells: Sequence[SealedCell]) -> list[bytes]:
        """The documents of cells that share a place, in order. Raises `CannotOpen` if any one does not open."""
        keys = self._keys_by_cell(cells)
        return [
            envelopes.open_sealed(key, cell.sealed, Cell(self.tenant, cell.subject, label, cell.row))
            for key, cell in zip(keys, cells, strict=True)
        ]

    def reseal_many(self, columns: Sequence[Column]) -> list[list[bytes | None]]:
        """The same documents under the active key, by column as they came. Raises `CannotOpen` if any does not open.

        The subjects' keys are derived once for all columns.
        """
        secrets = list(dict.fromkeys([secret for column in columns for secret in column.secrets if secret is not None]))

        @cache
        def ciphers(version: int) -> Ciphers:
            return dict(zip(secrets, self._subject_keys(version, secrets), strict=True))

        version = self.active_version(Purpose.DEK)
        return [envelopes.reseal(self.tenant, column, ciphers, version) for column in columns]

    def token(self, place: str, index: str, normaliser: int, value: str, bik_version: int) -> bytes:
        """16 bytes: equal for equal values of this tenant, place and index, random to all without the key."""
        name = (bik_version, place, index, normaliser)
        key = self._index_keys.get(name)
        if key is None:
            key = self._index_keys[name] = self._derive(
                Purpose.BIK,
                bik_version,
                b"coffer.index.v1",
                place.encode(),
                index.encode(),
                normaliser.to_bytes(4, "big"),
            )
        return mac(key, value.encode())[:TOKEN_BYTES]

    def authenticate(self, label: str, message: bytes, version: int | None = None) -> bytes:
        """32 bytes of HMAC-SHA256 under a key of its own for `label`, derived from that index key (None: the active).

        Raises `KeyUnavailable` where none is active, `CannotOpen` for a version that is not in the keyring.
        """
        name = (self.active_version(Purpose.BIK) if version is None else version, label)
        key = self._mac_keys.get(name)
        if key is None:
            key = self._mac_keys[name] = self._derive(Purpose.BIK, name[0], b"coffer.mac.v1", label.encode())
        return mac(key, message)

    def _keys_by_cell(self, cells: Sequence[SealedCell]) -> list[AESGCM]:
        versions = {cell.sealed.dek_version for cell in cells}
        if len(versions) == 1:
            return self._subject_keys(versions.pop(), [cell.subject_secret for cell in cells])
        return [self._subject_keys(cell.sealed.dek_version, [cell.subject_secret])[0] for cell in cells]

    def _subject_keys(self, version: int, secrets: Sequence[bytes]) -> list[AESGCM]:
        if any(len(secret) != KEY_BYTES for secret in secrets):
            raise CannotOpen
        cipher = self._subject_ciphers.get(version)
        if cipher is None:
            key = self._derive(Purpose.DEK, version, b"coffer.subject.v1")
            cipher = self._subject_ciphers[version] = Cipher(algorithms.AES256(key), modes.ECB())  # noqa: S305
            # ECB as the raw block permutation over single-use random blocks, not as a mode of encryption.
        blocks = cipher.encryptor().update(b"".join(secrets))
        return [AESGCM(blocks[start : start + KEY_BYTES]) for start in range(0, len(blocks), KEY_BYTES)]

    def _derive(self, purpose: Purpose, version: int, label: bytes, *info: bytes) -> bytes:
        try:
            secret = self._keys[purpose, version]
        except KeyError:
            raise CannotOpen from None
        return derive(secret, label, self.tenant.bytes, *info)
