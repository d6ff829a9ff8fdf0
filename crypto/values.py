"""What a personal value is while it travels: `Secret` on its way in, `Sealed` at rest; neither prints what it holds."""

from typing import Generic, NoReturn, Self, TypeVar

from crypto.errors import CannotOpen

T = TypeVar("T")

MAGIC = 0xC1
SUITE = 0x01
HEADER_BYTES = 6
NONCE_BYTES = 12
TAG_BYTES = 16
COMMITMENT_BYTES = 16
BUCKET_BYTES = 32
OVERHEAD_BYTES = HEADER_BYTES + NONCE_BYTES + COMMITMENT_BYTES + TAG_BYTES


class Secret(Generic[T]):
    """A plaintext that only sealing may read. It has no equality, no text form and cannot be pickled or copied."""

    __slots__ = ("__value",)

    def __init__(self, value: T) -> None:
        self.__value = value

    def reveal(self) -> T:
        return self.__value

    def __repr__(self) -> str:
        return "Secret(…)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is never serialised; seal it")

    __eq__ = None  # type: ignore[assignment]  # comparing secrets is a decision of the domain, never of a container
    __hash__ = None  # type: ignore[assignment]


class Sealed(bytes):
    """Ciphertext in the wire format of `crypto.envelopes`; bytes that cannot be one are `CannotOpen` at once."""

    __slots__ = ()

    def __new__(cls, raw: bytes) -> Self:
        if not _has_envelope_shape(raw):
            raise CannotOpen
        return super().__new__(cls, raw)

    @property
    def dek_version(self) -> int:
        return int.from_bytes(self[2:HEADER_BYTES], "big")

    def __repr__(self) -> str:
        return f"Sealed({len(self)} bytes)"

    __str__ = __repr__


def _has_envelope_shape(raw: bytes) -> bool:
    padded = len(raw) - OVERHEAD_BYTES
    return padded >= BUCKET_BYTES and padded % BUCKET_BYTES == 0 and raw[0] == MAGIC and raw[1] == SUITE
