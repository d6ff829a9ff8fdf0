"""Texts that must be given: what is missing of one is told as such, and what can't be kept with its reason."""

from collections.abc import Callable

from domain.errors import Path, Refused, UserError
from domain.normalise import Blank, Invalid

REQUIRED = "REQUIRED"


def text(errors: list[UserError], path: Path, sent: str | None, form: Callable[[str], str]) -> str:
    """What is kept of it; empty where `errors` has one more."""
    try:
        return form(sent or "")
    except Invalid as invalid:
        errors.append(refusal(path, sent, invalid))
        return ""


def one(path: Path, sent: str | None, form: Callable[[str], str]) -> str:
    """Raises `Refused`: REQUIRED, INVALID."""
    errors: list[UserError] = []
    kept = text(errors, path, sent, form)
    if errors:
        raise Refused(errors)
    return kept


def refusal(path: Path, sent: str | None, invalid: Invalid) -> UserError:
    """The last of `path` is how the client spells it."""
    if isinstance(invalid, Blank) or not (sent or "").strip():
        return UserError(REQUIRED, path, f"{path[-1]} is required.")
    return UserError("INVALID", path, f"{path[-1]} {invalid.reason}.")
