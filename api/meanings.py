"""Says in the schema what each value of an enum means, beside the enum's own declaration; imports nothing of ours."""

from enum import EnumMeta
from typing import TypeVar, cast

import strawberry
from strawberry.types.enum import StrawberryEnumDefinition

E = TypeVar("E", bound=EnumMeta)


def described(kind: E, description: str, /, name: str | None = None, **meanings: str) -> E:
    """Make an enum of the schema. Raises TypeError where a value has no meaning, or a meaning no value."""
    made = strawberry.enum(kind, name=name, description=description)
    definition = cast(StrawberryEnumDefinition, made.__strawberry_definition__)  # type: ignore[attr-defined]  # set by strawberry
    if odd := {value.name for value in definition.values} ^ set(meanings):
        raise TypeError(f"{definition.name} needs one meaning for each of its values: {', '.join(sorted(odd))}")
    for value in definition.values:
        value.description = meanings[value.name]
    return made
