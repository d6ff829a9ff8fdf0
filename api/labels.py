"""Reads the labels off the finished schema: which rule a field bears, which rows its leaves lie in."""

import json
from typing import Any, cast

from graphql import (
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLSchema,
    get_named_type,
)
from strawberry.schema.schema_converter import GraphQLCoreConverter

from api.directives import RULES, Personal, Public, Rule, one_of
from tenants.documents import PersonalField

DEFINITION = GraphQLCoreConverter.DEFINITION_BACKREF
_INTERNAL = ("__",)


def rule_of(field: GraphQLField) -> Rule:
    return cast(Rule, one_of(RULES, directives_of(field)))


def rule_at(schema: GraphQLSchema, kind: str, name: str) -> tuple[Rule, PersonalField | None] | None:
    """The rule of a field of an output type, and the personal field that it shows, if any. None where there is none."""
    found = schema.type_map.get(kind)
    fields = {} if found is None or kind.startswith(_INTERNAL) else getattr(found, "fields", {})
    if name not in fields or isinstance(found, GraphQLInputObjectType):
        return None
    rule = rule_of(fields[name])
    return rule, fields[name].extensions[DEFINITION].metadata["field"] if isinstance(rule, Personal) else None


def said(rule: Rule) -> str:
    """As the SDL prints it."""
    if isinstance(rule, Personal):
        return f"@personal(class: {rule.class_.value}, mask: {rule.mask.value})"
    if isinstance(rule, Public):
        return f"@public(reason: {json.dumps(rule.reason, ensure_ascii=False)})"
    return f"@{type(rule).__name__.lower()}(permission: {rule.permission.value})"


def wholes(schema: GraphQLSchema) -> dict[str, str]:
    """In which type's rows the leaves of each type lie: its own, or for a part without an id those of its whole."""
    found = {kind.name: kind.name for kind in own_types(schema)}
    for kind in own_types(schema):
        if isinstance(kind, GraphQLObjectType) and "id" in kind.fields:
            for field in kind.fields.values():
                part = get_named_type(field.type)
                if isinstance(part, GraphQLObjectType) and "id" not in part.fields:
                    found[part.name] = kind.name
    return found


def own_types(schema: GraphQLSchema) -> list[GraphQLObjectType | GraphQLInterfaceType | GraphQLInputObjectType]:
    guarded = (GraphQLObjectType, GraphQLInterfaceType, GraphQLInputObjectType)
    return [
        kind for kind in schema.type_map.values() if isinstance(kind, guarded) and not kind.name.startswith(_INTERNAL)
    ]


def directives_of(element: Any) -> list[object]:
    definition = (element.extensions or {}).get(DEFINITION)
    return list(getattr(definition, "directives", None) or ())
