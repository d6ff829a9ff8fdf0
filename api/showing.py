"""What a viewer gets of an operation's personal fields: which columns are opened, and what is said of their levels."""

from collections.abc import Iterator, Mapping
from typing import Any, cast

from graphql import GraphQLObjectType, GraphQLSchema, get_named_type

from api.directives import Personal
from api.labels import DEFINITION, rule_at, said
from domain.customers import FIELDS
from tenants.access import Level, Relation
from tenants.documents import PersonalField
from tenants.viewers import Viewer


def columns(schema: GraphQLSchema, kind: str, selected: frozenset[str], viewer: Viewer) -> set[str]:
    """The sealed columns that this operation opens of a type: those of selected leaves at least MASKED for some row.

    Leaves of a part without an id of its own, as an address, lie in the row of the whole.
    """
    whole = cast(GraphQLObjectType, schema.type_map[kind])
    named = [get_named_type(field.type) for field in whole.fields.values()]
    parts = [part for part in named if isinstance(part, GraphQLObjectType) and "id" not in part.fields]
    return {
        definition.metadata["column"]
        for each in (whole, *parts)
        for name, field in each.fields.items()
        if f"{each.name}.{name}" in selected
        and (definition := field.extensions[DEFINITION]).metadata.get("column")
        and any(viewer.levels(definition.metadata["field"]))
    }


def disclosure(schema: GraphQLSchema, selected: frozenset[str], viewer: Viewer) -> list[dict[str, Any]]:
    """What this viewer gets of each selected personal field, and the rule that says so.

    Where the level hangs on the row, it is BY_ROW, and `levels` has it by the row's relation to the viewer.
    """
    entries = []
    for coordinate, rule, field in _personal_fields(schema, selected):
        levels = levels_by_row(viewer, field)
        entry: dict[str, Any] = {"field": coordinate, "level": next(iter(levels.values())).name, "rule": said(rule)}
        if len(set(levels.values())) > 1:
            entry |= {"level": "BY_ROW", "levels": {each.name: level.name for each, level in levels.items()}}
        entries.append(entry)
    return entries


def levels_by_row(viewer: Viewer, field: PersonalField) -> dict[Relation, Level]:
    """What is granted of a field, by the relations to the viewer that its rows can be in."""
    levels = dict(zip(Relation, viewer.levels(field), strict=True))
    apart = levels.pop(Relation.NONE)
    return levels if FIELDS.get(field.name) is field else {Relation.NONE: apart}


def shown(
    schema: GraphQLSchema,
    wholes: Mapping[str, str],
    kind: str,
    selected: frozenset[str],
    viewer: Viewer,
    relation: Relation,
) -> list[tuple[str, Level]]:
    """The level of each selected personal field in the rows of a type, of those that are not hidden."""
    found = [
        (coordinate, viewer.levels(field)[relation])
        for coordinate, _, field in _personal_fields(schema, selected)
        if wholes[coordinate.partition(".")[0]] == kind
    ]
    return [(coordinate, level) for coordinate, level in found if level is not Level.HIDDEN]


def _personal_fields(schema: GraphQLSchema, selected: frozenset[str]) -> Iterator[tuple[str, Personal, PersonalField]]:
    for coordinate in sorted(selected):
        kind, _, name = coordinate.partition(".")
        rule, field = rule_at(schema, kind, name) or (None, None)
        if isinstance(rule, Personal) and field is not None:
            yield coordinate, rule, field
