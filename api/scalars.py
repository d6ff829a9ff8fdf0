"""String and ID that refuse what Postgres and UTF-8 can't keep: NUL and lone surrogates; dates that tell their form.

Knows no schema of ours.
"""

import re
from collections.abc import Iterable
from typing import Any

from graphql import (
    GraphQLArgument,
    GraphQLError,
    GraphQLField,
    GraphQLID,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLList,
    GraphQLNamedType,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLScalarType,
    GraphQLSchema,
    GraphQLString,
    ValueNode,
    is_specified_directive,
    value_from_ast_untyped,
)

FORMS = {
    "DateTime": "A DateTime is RFC 3339 with an offset: 2026-01-31T09:00:00Z",
    "Date": "A Date is RFC 3339: 2026-01-31",
}
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def harden(schema: GraphQLSchema) -> None:
    """Replace String and ID of this schema by copies that refuse NUL and lone surrogates; other schemas don't change.

    graphql-core's scalars are singletons of the process, so they are not patched: every input position of the schema is
    pointed at the copies instead. Call it once, after the schema is built and before it serves.
    """
    copies: dict[str, GraphQLScalarType] = {each.name: _strict(each) for each in (GraphQLString, GraphQLID)}
    for named in tuple(schema.type_map.values()):
        if not named.name.startswith("__"):  # the types of introspection are singletons too
            _point(_inputs(named), copies)
    for directive in schema.directives:
        if not is_specified_directive(directive):
            _point(directive.args.values(), copies)
    schema.type_map.update({name: copy for name, copy in copies.items() if name in schema.type_map})
    _harden_lookup(schema, copies)
    for name, form in FORMS.items():
        scalar = schema.type_map.get(name)
        if isinstance(scalar, GraphQLScalarType):
            _tell_form(scalar, form)


def _tell_form(scalar: GraphQLScalarType, form: str) -> None:
    """Each schema has its own; the library's errors quote the value and don't say where it stands."""
    coerce = scalar.parse_value

    def coerce_value(value: Any) -> Any:
        try:
            return coerce(value)
        except GraphQLError:
            raise GraphQLError(f"{form}.") from None

    def coerce_literal(node: ValueNode, _variables: Any = None) -> Any:
        try:
            return coerce(value_from_ast_untyped(node))
        except GraphQLError:
            raise GraphQLError(f"{form}.", node) from None

    scalar.description = f"{form}."
    for name in ("parse_value", "coerce_input_value"):
        setattr(scalar, name, coerce_value)
    for name in ("parse_literal", "coerce_input_literal"):
        setattr(scalar, name, coerce_literal)


def _strict(scalar: GraphQLScalarType) -> GraphQLScalarType:
    def coerce_value(value: Any) -> Any:
        return _storable(scalar.name, scalar.coerce_input_value(value))

    def coerce_literal(node: ValueNode, _variables: Any = None) -> Any:
        return _storable(scalar.name, scalar.parse_literal(node))

    # graphql-core forbids a second type of a built-in name, hence the name comes after.
    copy = GraphQLScalarType(
        f"Strict{scalar.name}",
        coerce_output_value=scalar.coerce_output_value,
        parse_value=coerce_value,
        parse_literal=coerce_literal,
        coerce_input_value=coerce_value,
        coerce_input_literal=coerce_literal,
        value_to_literal=scalar.value_to_literal,
        description=scalar.description,
    )
    copy.name = scalar.name
    return copy


def _storable(name: str, value: Any) -> Any:
    if isinstance(value, str) and _UNSTORABLE.search(value):
        raise GraphQLError(f"{name} cannot hold NUL or a lone surrogate.")
    return value


def _inputs(named: GraphQLNamedType) -> list[Any]:
    if isinstance(named, GraphQLInputObjectType):
        return list(named.fields.values())
    if isinstance(named, GraphQLObjectType | GraphQLInterfaceType):
        return [argument for field in named.fields.values() for argument in field.args.values()]
    return []


def _point(inputs: Iterable[Any], copies: dict[str, GraphQLScalarType]) -> None:
    for each in inputs:
        each.type = _rewrap(each.type, copies)


def _rewrap(kind: Any, copies: dict[str, GraphQLScalarType]) -> Any:
    if isinstance(kind, GraphQLNonNull):
        return GraphQLNonNull(_rewrap(kind.of_type, copies))
    if isinstance(kind, GraphQLList):
        return GraphQLList(_rewrap(kind.of_type, copies))
    return copies.get(kind.name, kind)


def _harden_lookup(schema: GraphQLSchema, copies: dict[str, GraphQLScalarType]) -> None:
    """Give `__type(name:)` the strict String too: types are compared by identity and `$name: String!` is strict."""
    plain = schema.get_field

    def get_field(parent_type: Any, field_name: str) -> GraphQLField | None:
        field = plain(parent_type, field_name)
        if field is None or field_name != "__type":
            return field
        return GraphQLField(
            field.type,
            args={"name": GraphQLArgument(GraphQLNonNull(copies["String"]))},
            resolve=field.resolve,
            description=field.description,
        )

    schema.get_field = get_field  # type: ignore[method-assign]  # the one door to fields in graphql-core
