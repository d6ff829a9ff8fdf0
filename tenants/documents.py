"""Sealed documents: frozen typed values that are sealed as one, whose every field says its class and its mask.

A document is stored as a small JSON object of its set fields. A field added later is absent in older rows and reads as
its default, so it needs no migration; a name once used is never given another meaning.
"""

import dataclasses
from collections.abc import Callable, Sequence
from datetime import date
from enum import StrEnum
from typing import Any, ClassVar, Self, dataclass_transform, get_type_hints

import orjson

from tenants.access import SearchRight, Sensitivity


class Mask(StrEnum):
    """How a value is shown in part; `domain.masks` applies them."""

    NAME = "NAME"  # J. D.
    EMAIL = "EMAIL"  # j***@e***.com
    PHONE = "PHONE"  # +49 ••• •••42
    LAST2 = "LAST2"  # •••••••42
    ADDRESS_LINE = "ADDRESS_LINE"  # •••
    TEXT = "TEXT"  # •••
    KEEP = "KEEP"  # the value: city and country of a masked address
    NOTHING = "NOTHING"  # null, as for dates and numbers


MOST_VALUES = 20  # of a field that is a list


@dataclasses.dataclass(frozen=True, slots=True)
class Edge:
    """What normalising an input needs to know: the tenant's default region and the day."""

    region: str
    today: date


Parse = Callable[[Any, Edge], Any]


@dataclasses.dataclass(frozen=True, slots=True)
class BlindIndex:
    """How a field is found without being readable. `name` enters every token, so it is never renamed.

    `keys` gives what is stored for a value, `lookup` the one stored key that every match of a query has (None: nothing
    can match), `matches(value, query)` decides on the opened value. A unique index belongs to an id that the tenant
    gives out itself; only those who may search by it may set it, because a refusal confirms a value.
    """

    name: str
    right: SearchRight
    normaliser: int
    keys: Callable[[str], Sequence[str]]
    lookup: Callable[[str], str | None]
    matches: Callable[[str, str], bool]
    is_unique: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class PersonalField:
    """What a document's field is to the rules: its name, class and mask; and to the edge: how it is read and found.

    For a list, `parse` and `index` take each of its values.
    """

    name: str
    sensitivity: Sensitivity
    mask: Mask
    parse: Parse
    index: BlindIndex | None
    shown_as: str


def _as_it_is(value: Any, _edge: Edge) -> Any:
    return value


def personal(
    sensitivity: Sensitivity,
    mask: Mask,
    parse: Parse = _as_it_is,
    *,
    index: BlindIndex | None = None,
    default: Any = None,
    shown_as: str = "",
) -> Any:
    """Declare a field of a document: `given_name: str | None = personal(Sensitivity.IDENTITY, Mask.NAME)`.

    `shown_as` names the property that viewers read in the field's place.
    """
    return dataclasses.field(default=default, metadata={"personal": (sensitivity, mask, parse, index, shown_as)})


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(personal,))
@dataclasses.dataclass(frozen=True)
class Document:
    """Base of sealed documents; subclasses become frozen dataclasses, refused if a field lacks class or mask."""

    is_of_people: ClassVar[bool] = True  # False for a secret of the house: opening it tells of nobody
    fields: ClassVar[dict[str, PersonalField]]
    lists: ClassVar[frozenset[str]]
    _dates: ClassVar[frozenset[str]]

    def __init_subclass__(cls) -> None:
        dataclasses.dataclass(frozen=True, kw_only=True, repr=False)(cls)
        cls.fields = {f.name: _personal(cls, f) for f in dataclasses.fields(cls)}
        hints = get_type_hints(cls)
        cls._dates = frozenset(name for name in cls.fields if hints[name] == date | None)
        cls.lists = frozenset(name for name in cls.fields if hints[name] == tuple[str, ...])
        for name in cls.fields.keys() - cls._dates - cls.lists:
            if hints[name] != str | None:
                raise TypeError(f"{cls.__name__}.{name}: a document holds str | None, date | None or tuple[str, ...]")

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"

    def is_empty(self) -> bool:
        return not any(getattr(self, name) for name in self.fields)

    def dump(self) -> bytes:
        """UTF-8 JSON of the fields that are set, in the order of their declaration; dates as RFC 3339 full-date."""
        return orjson.dumps({name: value for name in self.fields if (value := getattr(self, name))})

    @classmethod
    def load(cls, raw: bytes) -> Self:
        """Fields that this version does not know are left out; absent ones take their default."""
        stored: dict[str, Any] = orjson.loads(raw)
        for name in cls._dates & stored.keys():
            stored[name] = date.fromisoformat(stored[name])
        for name in cls.lists & stored.keys():
            stored[name] = tuple(stored[name])
        return cls(**{name: value for name, value in stored.items() if name in cls.fields})


def _personal(document: type[Document], field: "dataclasses.Field[Any]") -> PersonalField:
    declared = field.metadata.get("personal")
    if declared is None:
        raise TypeError(
            f"{document.__name__}.{field.name} has no class and mask; "
            f"declare it as `{field.name}: ... = personal(Sensitivity.…, Mask.…)`"
        )
    sensitivity, mask, parse, index, shown_as = declared
    return PersonalField(field.name, sensitivity, mask, parse, index, shown_as or field.name)
