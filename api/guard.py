"""Lets a value out only after its rule said so: every field of the schema runs behind its directive.

The guard wraps graphql-core's own fields, outside of everything strawberry put around a resolver, so nothing can run
before it. What a rule decides, it decides once per operation.
"""

from collections.abc import Callable, Iterator, Mapping
from inspect import isawaitable
from typing import Any, cast

from graphql import (
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLResolveInfo,
    GraphQLSchema,
    default_field_resolver,
    get_named_type,
)
from strawberry.schema.schema_converter import GraphQLCoreConverter

from api.directives import (
    INPUT_RULES,
    RULES,
    Input,
    InputRule,
    Personal,
    Requires,
    Rule,
    Searches,
    Writes,
    customer_field,
    label,
    one_of,
)
from api.operation import Operation
from domain import rules
from domain.customers import CLEAR_WRITES
from domain.errors import Forbidden
from tenants.access import Level, Permission
from tenants.errors import Unauthenticated
from tenants.unit import GUARD
from tenants.viewers import Viewer

Resolve = Callable[..., Any]
Info = GraphQLResolveInfo[Operation]
Check = Callable[[Viewer | None], bool]
_DEFINITION = GraphQLCoreConverter.DEFINITION_BACKREF
_INTERNAL = ("__",)

_CLEAR_WRITES = {label(name): permission for name, permission in CLEAR_WRITES.items()} | {
    "Tag.name": Permission.TAGS_MANAGE
}
_CLEAR_SEARCHES = frozenset(
    f"Customer.{name}"
    for name in ("stage", "ownerId", "tagIds", "language", "source", "region", "createdAt", "updatedAt", "archivedAt")
)


def problems(schema: GraphQLSchema) -> Iterator[str]:
    """A sentence for every field, argument and input field that has no rule of its own, or one that says nothing."""
    for kind in _own_types(schema):
        for name, field in kind.fields.items():
            where = f"{kind.name}.{name}"
            if isinstance(kind, GraphQLInputObjectType):
                yield from _input_problems(where, _directives(field))
                continue
            rule = one_of(RULES, _directives(field))
            if isinstance(rule, Personal) and "column" not in field.extensions[_DEFINITION].metadata:
                yield f"{where} is @personal but names no sealed column; declare it with personal(…)"
            if rule is None:
                yield f"{where} has no rule; give it one of @personal, @requires, @public (see api/directives.py)"
            for argument, definition in field.args.items():
                yield from _input_problems(f"{where}({argument}:)", _directives(definition))
        yield from _interface_problems(kind)


def install(schema: GraphQLSchema) -> None:
    """Put every field behind its rule. Raises TypeError naming all that have none."""
    found = list(problems(schema))
    if found:
        raise TypeError("The schema is not guarded:\n" + "\n".join(f"- {problem}" for problem in found))
    for kind in _own_types(schema):
        if isinstance(kind, GraphQLObjectType):
            for field in kind.fields.values():
                if kind is schema.subscription_type:
                    field.subscribe = _subscribing(field)
                field.resolve = _guarded(field, is_mutation=kind is schema.mutation_type)


def rule_of(field: GraphQLField) -> Rule:
    return cast(Rule, one_of(RULES, _directives(field)))


def columns(schema: GraphQLSchema, kind: str, selected: frozenset[str], viewer: Viewer) -> set[str]:
    """The sealed columns that this operation opens of a type: those of selected leaves at least MASKED.

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
        and (definition := field.extensions[_DEFINITION]).metadata.get("column")
        and viewer.level(cast(Personal, rule_of(field)).class_) is not Level.HIDDEN
    }


def disclosure(schema: GraphQLSchema, selected: frozenset[str], viewer: Viewer) -> list[dict[str, str]]:
    """What this viewer gets of each selected personal field, and the rule that says so."""
    entries = []
    for coordinate in sorted(selected):
        kind, _, name = coordinate.partition(".")
        rule = rule_of(cast(GraphQLObjectType, schema.type_map[kind]).fields[name])
        if isinstance(rule, Personal):
            level = viewer.level(rule.class_)
            said = f"@personal(class: {rule.class_.value}, mask: {rule.mask.value})"
            entries.append({"field": coordinate, "level": level.name, "rule": said})
    return entries


def wholes(schema: GraphQLSchema) -> dict[str, str]:
    """In which type's rows the leaves of each type lie: its own, or for a part without an id those of its whole."""
    found = {kind.name: kind.name for kind in _own_types(schema)}
    for kind in _own_types(schema):
        if isinstance(kind, GraphQLObjectType) and "id" in kind.fields:
            for field in kind.fields.values():
                part = get_named_type(field.type)
                if isinstance(part, GraphQLObjectType) and "id" not in part.fields:
                    found[part.name] = kind.name
    return found


def _own_types(schema: GraphQLSchema) -> list[GraphQLObjectType | GraphQLInterfaceType | GraphQLInputObjectType]:
    guarded = (GraphQLObjectType, GraphQLInterfaceType, GraphQLInputObjectType)
    return [
        kind for kind in schema.type_map.values() if isinstance(kind, guarded) and not kind.name.startswith(_INTERNAL)
    ]


def _directives(element: Any) -> list[object]:
    definition = (element.extensions or {}).get(_DEFINITION)
    return list(getattr(definition, "directives", None) or ())


def _input_problems(where: str, directives: list[object]) -> Iterator[str]:
    rule = one_of(INPUT_RULES, directives)
    if rule is None:
        yield f"{where} has no rule; give it one of @searches, @writes, @input (see api/directives.py)"
    elif not isinstance(rule, Input):
        try:
            _right(rule)
        except LookupError as error:
            yield f"{where}: {error}"


def _interface_problems(kind: Any) -> Iterator[str]:
    for interface in getattr(kind, "interfaces", ()):
        for name, field in interface.fields.items():
            if rule_of(field) != rule_of(kind.fields[name]):
                yield f"{kind.name}.{name} has another rule than {interface.name}.{name}"


def _guarded(field: GraphQLField, *, is_mutation: bool) -> Resolve:
    rule = rule_of(field)
    definition = field.extensions[_DEFINITION]
    resolve: Resolve = field.resolve or default_field_resolver
    if isinstance(rule, Personal):
        return _personal(rule, definition.metadata)
    check = _check_of(field)
    if definition.is_basic_field:
        resolve = _attribute(definition.python_name)
    if is_mutation:
        resolve = _in_savepoint(resolve)
    if isinstance(rule, Requires):
        return _requiring(rule.permission, resolve, check)
    return _checked(resolve, check) if check else resolve


def _subscribing(field: GraphQLField) -> Resolve:
    """Decided when the stream opens, and again for each event: `load` makes the answer of the source's id."""
    rule, check = rule_of(field), _check_of(field)
    load, subscribe = field.extensions[_DEFINITION].metadata["load"], cast(Resolve, field.subscribe)
    field.resolve = load
    if isinstance(rule, Requires):
        return _requiring(rule.permission, subscribe, check)
    return _checked(subscribe, check) if check else subscribe


def _attribute(name: str) -> Resolve:
    def resolve(source: Any, _info: Info) -> Any:
        return getattr(source, name)

    return resolve


def _personal(rule: Personal, metadata: Mapping[str, Any]) -> Resolve:
    """Level first; the document is opened only where something of it may be shown."""
    column, attribute = metadata["column"], metadata["attribute"]
    sensitivity, mask = rule.class_, rule.mask

    def guarded(source: Any, info: Info) -> Any:
        operation = info.context
        level = operation.level(sensitivity)
        if level is Level.HIDDEN:
            return None
        document = source.document(column, GUARD)
        value = None if document is None else getattr(document, attribute)
        return rules.shown(level, mask, value)

    return guarded


def _requiring(permission: Permission, resolve: Resolve, check: "ArgumentCheck | None") -> Resolve:
    def guarded(source: Any, info: Info, **arguments: Any) -> Any:
        operation: Operation = info.context
        if not operation.may(permission):
            raise Unauthenticated if operation.viewer is None else Forbidden(f"This needs the permission {permission}.")
        if check is not None and arguments:
            check(operation.viewer, arguments)
        return resolve(source, info, **arguments)

    return guarded


def _checked(resolve: Resolve, check: "ArgumentCheck") -> Resolve:
    def guarded(source: Any, info: Info, **arguments: Any) -> Any:
        check(info.context.viewer, arguments)
        return resolve(source, info, **arguments)

    return guarded


def _in_savepoint(resolve: Resolve) -> Resolve:
    """A root mutation field that answers with user errors, or raises, is undone alone."""

    async def mutate(source: Any, info: Info, **arguments: Any) -> Any:
        operation: Operation = info.context
        return await operation.undoable(lambda: _awaited(resolve(source, info, **arguments)))

    return mutate


async def _awaited(answer: Any) -> Any:
    return await answer if isawaitable(answer) else answer


ArgumentCheck = Callable[[Viewer | None, Mapping[str, Any]], None]


def _check_of(field: GraphQLField) -> ArgumentCheck | None:
    """Refuses arguments and input fields, however deep, that the viewer has no right to give."""
    guards = {name: _input_check(name, definition, frozenset()) for name, definition in field.args.items()}
    active = {name: check for name, check in guards.items() if check is not None}
    if not active:
        return None

    def check(viewer: Viewer | None, arguments: Mapping[str, Any]) -> None:
        for name in arguments.keys() & active.keys():
            active[name](viewer, arguments[name])

    return check


def _input_check(path: str, definition: Any, above: frozenset[str]) -> Callable[[Viewer | None, Any], None] | None:
    rule = one_of(INPUT_RULES, _directives(definition))
    kind = get_named_type(definition.type)
    inner: dict[str, Any] = {}
    if isinstance(kind, GraphQLInputObjectType) and kind.name not in above:
        inner = {
            name: check
            for name, field in kind.fields.items()
            if (check := _input_check(f"{path}.{name}", field, above | {kind.name}))
        }
    right = None if isinstance(rule, Input) else _right(cast("Searches | Writes", rule))
    if right is None and not inner:
        return None

    def check_value(viewer: Viewer | None, value: Any) -> None:
        if right is not None and not right(viewer):
            raise Forbidden(f"You have no right to give `{path}`.")
        for each in value if isinstance(value, list) else [value]:
            # null gives null to all of its fields: clearing an address takes the right to write each part of it
            fields = dict.fromkeys(inner) if each is None else each if isinstance(each, dict) else {}
            for name in fields.keys() & inner.keys():
                inner[name](viewer, fields[name])

    return check_value


def _right(rule: InputRule) -> Check:
    """Raises LookupError for a label that names no field."""
    if isinstance(rule, Writes):
        return _right_to_write(rule.field)
    return _right_to_search(cast(Searches, rule).field)


def _right_to_write(name: str) -> Check:
    field, permission = customer_field(name), _CLEAR_WRITES.get(name)
    if field is not None:
        return lambda viewer: viewer is not None and rules.may_write(viewer, field)
    if permission is not None:
        return lambda viewer: viewer is not None and viewer.may(permission)
    raise LookupError(f"@writes names {name}, which is no field that can be written")


def _right_to_search(name: str) -> Check:
    field = customer_field(name)
    if field is not None and field.index is not None:
        right = field.index.right
        return lambda viewer: viewer is not None and viewer.may_search(right)
    if name in _CLEAR_SEARCHES:
        return lambda viewer: viewer is not None and viewer.may(Permission.CUSTOMERS_READ)
    raise LookupError(f"@searches names {name}, which is no field that can be searched by")
