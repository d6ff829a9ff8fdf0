"""The root of the house's one error tree, and the errors of keys; it lives in crypto because imports run downwards."""

from typing import ClassVar


class CofferError(Exception):
    """An error with a stable `code` and a sentence that a client may read; it names things, never values."""

    code: ClassVar[str] = "INTERNAL"
    message: str = "Something went wrong on our side."
    retryable: ClassVar[bool] = False
    retry_after: int | None = None  # seconds, where it is known

    def __init__(self, message: str | None = None) -> None:
        if message is not None:
            self.message = message
        super().__init__(self.message)


class KeyUnavailable(CofferError):
    """The key store is away, sealed, overloaded or too slow: the same call may work in a moment."""

    code = "KEY_UNAVAILABLE"
    message = "The key store does not answer; try again shortly."
    retryable = True


class KeyRefused(CofferError):
    """The key store answered no: its policy forbids it, the key is missing, or the wrapped key is not its own."""

    code = "KEY_REFUSED"
    message = "The key store refused this key."


class CannotOpen(CofferError):
    """A sealed value does not open; why is never told, so that an attacker learns nothing by trying."""

    code = "CANNOT_OPEN"
    message = "This value can't be opened."
