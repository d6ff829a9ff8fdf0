"""What a client may be told: refusals with stable codes; the tree's root is `crypto.errors.CofferError`."""

from collections.abc import Sequence
from dataclasses import dataclass

from crypto.errors import CofferError

Path = tuple[str | int, ...]


class Forbidden(CofferError):
    code = "FORBIDDEN"
    message = "You may not do this."


class NotFound(CofferError):
    code = "NOT_FOUND"
    message = "There is nothing of that id."


class BadInput(CofferError):
    code = "BAD_USER_INPUT"
    message = "The input can't be used."


class IdempotencyKeyReused(CofferError):
    code = "IDEMPOTENCY_KEY_REUSED"
    message = "This idempotency key was used with other input; take a fresh key for a new request."


@dataclass(frozen=True, slots=True)
class UserError:
    """What a user can mend: a stable code, the path of the input below the mutation's arguments, and a sentence.

    `retry_after` is in seconds.
    """

    code: str
    path: Path
    message: str
    retry_after: int | None = None


class Refused(CofferError):
    """A change was refused for these reasons and nothing of it happened."""

    code = "REFUSED"

    def __init__(self, errors: Sequence[UserError]) -> None:
        super().__init__("; ".join(error.message for error in errors))
        self.errors = tuple(errors)


class CoverageTooLarge(CofferError):
    code = "KEY_COVERAGE_TOO_LARGE"
    message = "There is too much to be counted in one request; use `coffer keys status`."
