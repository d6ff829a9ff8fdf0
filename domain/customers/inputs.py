"""From what a client sent to what is kept: every value normalised, or refused with its field's name and the reason."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from domain import normalise
from domain.customers.fields import DOCUMENTS, FIELDS, Stage
from domain.errors import Path, Refused, UserError
from domain.normalise import Invalid
from tenants.documents import MOST_VALUES, Document, Edge
from tenants.unit import Unit

MOST_TAGS = 50
_ADDRESS = {"address_lines": "lines", "city": "city", "postal_code": "postalCode", "country": "country"}


@dataclass(frozen=True, slots=True)
class Changes:
    """What to set, normalised: personal fields by name, clear columns by name, tags if they are to change."""

    personal: Mapping[str, Any]
    clear: Mapping[str, Any]
    tags: frozenset[UUID] | None

    def applied(self, column: str, current: Document) -> Document:
        mine = {name: value for name, value in self.personal.items() if name in current.fields}
        return replace(current, **mine) if mine else current


def edge(unit: Unit) -> Edge:
    return Edge(unit.tenant.default_region, unit.now.date())


def parse(sent: Mapping[str, Any], at: Edge) -> Changes:
    """`sent` holds only what the client named; None clears. Raises `Refused` with every error at once."""
    errors: list[UserError] = []
    personal = {name: _tried(errors, name, _personal, name, sent[name], at) for name in FIELDS if name in sent}
    clear = {name: _tried(errors, name, read, sent[name]) for name, read in CLEAR.items() if name in sent}
    tags = _tried(errors, "tag_ids", _tags, sent["tag_ids"]) if "tag_ids" in sent else None
    if errors:
        raise Refused(sorted(errors, key=lambda error: [str(step) for step in error.path]))
    return Changes(personal, clear, tags)


def refuse_empty(changes: Changes) -> None:
    """A new customer is somebody: at least one value that says who."""
    if not any(changes.personal.values()):
        raise Refused([UserError("REQUIRED", (), "Give at least one of the customer's names, e-mails, phones or ids.")])


def input_path(name: str) -> Path:
    """Where the input of a field stands below the mutation's input, as clients spell it."""
    if name in _ADDRESS:
        return ("address", _ADDRESS[name])
    first, *rest = name.split("_")
    return (first + "".join(word.capitalize() for word in rest),)


class _Wrong(Exception):
    def __init__(self, position: int, reason: str) -> None:
        self.position = position
        self.reason = reason


def _tried(errors: list[UserError], name: str, read: Callable[..., Any], *arguments: Any) -> Any:
    path = input_path(name)
    spelled = ".".join(str(step) for step in path)
    try:
        return read(*arguments)
    except _Wrong as wrong:
        errors.append(UserError("INVALID", (*path, wrong.position), f"{spelled}.{wrong.position} {wrong.reason}."))
    except Invalid as invalid:
        errors.append(UserError("INVALID", path, f"{spelled} {invalid.reason}."))


def _personal(name: str, value: Any, at: Edge) -> Any:
    if name not in _LISTS:
        return FIELDS[name].parse(value, at) if value is not None else None
    values = list(value or ())
    if len(values) > MOST_VALUES:
        raise Invalid(f"has more than {MOST_VALUES} values")
    return tuple(dict.fromkeys(_each(name, position, one, at) for position, one in enumerate(values)))


def _each(name: str, position: int, value: Any, at: Edge) -> Any:
    try:
        return FIELDS[name].parse(value, at)
    except Invalid as invalid:
        raise _Wrong(position, invalid.reason) from None


def _stage(value: Any) -> str:
    if value is None:
        raise Invalid("can't be null; leave it out to keep it")
    return Stage(value).value


def _or_null(normaliser: Callable[[str], str]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else normaliser(value)


def _source(text: str) -> str:
    kept = normalise.line(text)
    if len(kept) > 64:
        raise Invalid("is longer than 64 characters")
    return kept


def _tags(value: Any) -> frozenset[UUID]:
    tags = frozenset(value or ())
    if len(tags) > MOST_TAGS:
        raise Invalid(f"has more than {MOST_TAGS} tags")
    return tags


_LISTS = frozenset().union(*(document.lists for document in DOCUMENTS.values()))
CLEAR: dict[str, Callable[[Any], Any]] = {
    "stage": _stage,
    "owner_id": lambda value: value,
    "language": _or_null(normalise.language),
    "source": _or_null(_source),
    "region": _or_null(normalise.region),
}
