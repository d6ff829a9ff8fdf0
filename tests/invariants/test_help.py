"""The schema explains itself: nobody has to guess what a root field, an input or a value of an enum means."""

from enum import StrEnum

import pytest
from graphql import GraphQLEnumType, GraphQLInputObjectType

from api.meanings import described
from api.schema import build

SCHEMA = build()[0]
TYPES = [kind for name, kind in SCHEMA.type_map.items() if not name.startswith("__")]
ROOTS = {
    f"{root.name}.{name}": field
    for root in (SCHEMA.query_type, SCHEMA.mutation_type, SCHEMA.subscription_type)
    if root is not None
    for name, field in root.fields.items()
}
VALUES = {
    f"{kind.name}.{name}": value
    for kind in TYPES
    if isinstance(kind, GraphQLEnumType)
    for name, value in kind.values.items()
}
INPUTS = {
    f"{kind.name}.{name}": field
    for kind in TYPES
    if isinstance(kind, GraphQLInputObjectType)
    for name, field in kind.fields.items()
}
ARGUMENTS = {f"{root}({name}:)": each for root, field in ROOTS.items() for name, each in field.args.items()}


def test_every_root_field_and_its_arguments_are_explained() -> None:
    assert len(ROOTS) > 80
    assert [name for name, each in (ROOTS | ARGUMENTS).items() if not each.description] == []


def test_every_value_of_an_enum_is_explained() -> None:
    assert len(VALUES) > 100
    assert [name for name, value in VALUES.items() if not value.description] == []


def test_every_input_and_its_fields_are_explained() -> None:
    inputs = [kind for kind in TYPES if isinstance(kind, GraphQLInputObjectType)]
    assert [kind.name for kind in inputs if not kind.description] == []
    assert [name for name, field in INPUTS.items() if not field.description] == []


def test_an_explanation_is_a_sentence_or_shows_the_thing() -> None:
    explained = ROOTS | ARGUMENTS | VALUES | INPUTS
    assert [name for name, each in explained.items() if (each.description or "")[-1:] not in (".", "`")] == []


class Colour(StrEnum):
    RED = "RED"
    BLUE = "BLUE"


@pytest.mark.parametrize("meanings", [{"RED": "Red."}, {"RED": "Red.", "BLUE": "Blue.", "PINK": "Pink."}])
def test_an_enum_is_not_declared_with_another_number_of_meanings(meanings: dict[str, str]) -> None:
    with pytest.raises(TypeError, match="Colour needs one meaning for each of its values"):
        described(Colour, "A colour.", name=None, **meanings)
