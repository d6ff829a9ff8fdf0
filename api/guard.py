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
    GraphQLObjectType,
    GraphQLResolveInfo,
    GraphQLSchema,
    default_field_resolver,
)

from api.directives import INPUT_RULES, RULES, Input, Personal, Requires, Revealed, one_of
from api.giving import ArgumentCheck, check_of, right_to
from api.labels import DEFINITION, directives_of, own_types, rule_of
from api.operation import Operation
from domain import rules
from domain.errors import Forbidden
from domain.granting import BEYOND
from tenants.access import Level, Permission
from tenants.errors import Unauthenticated
from tenants.unit import GUARD

Resolve = Callable[..., Any]
Info = GraphQLResolveInfo[Operation]


def problems(schema: GraphQLSchema) -> Iterator[str]:
    """A sentence for every field, argument and input field that has no rule of its own, or one that says nothing."""
    for kind in own_types(schema):
        for name, field in kind.fields.items():
            where = f"{kind.name}.{name}"
            if isinstance(kind, GraphQLInputObjectType):
                yield from _input_problems(where, directives_of(field))
                continue
            rule = one_of(RULES, directives_of(field))
            if isinstance(rule, Personal) and "column" not in field.extensions[DEFINITION].metadata:
                yield f"{where} is @personal but names no sealed column; declare it with personal(…)"
            if rule is None:
                yield f"{where} has no rule; give it one of @personal, @requires, @public (see api/directives.py)"
            for argument, definition in field.args.items():
                yield from _input_problems(f"{where}({argument}:)", directives_of(definition))
        yield from _interface_problems(kind)


def install(schema: GraphQLSchema) -> None:
    """Put every field behind its rule. Raises TypeError naming all that have none."""
    found = list(problems(schema))
    if found:
        raise TypeError("The schema is not guarded:\n" + "\n".join(f"- {problem}" for problem in found))
    for kind in own_types(schema):
        if isinstance(kind, GraphQLObjectType):
            for field in kind.fields.values():
                if kind is schema.subscription_type:
                    field.subscribe = _subscribing(field)
                field.resolve = _guarded(field, is_mutation=kind is schema.mutation_type)


def _input_problems(where: str, directives: list[object]) -> Iterator[str]:
    rule = one_of(INPUT_RULES, directives)
    if rule is None:
        yield f"{where} has no rule; give it one of @searches, @writes, @input (see api/directives.py)"
    elif not isinstance(rule, Input):
        try:
            right_to(rule)
        except LookupError as error:
            yield f"{where}: {error}"


def _interface_problems(kind: Any) -> Iterator[str]:
    for interface in getattr(kind, "interfaces", ()):
        for name, field in interface.fields.items():
            if rule_of(field) != rule_of(kind.fields[name]):
                yield f"{kind.name}.{name} has another rule than {interface.name}.{name}"


def _guarded(field: GraphQLField, *, is_mutation: bool) -> Resolve:
    rule = rule_of(field)
    definition = field.extensions[DEFINITION]
    resolve: Resolve = field.resolve or default_field_resolver
    if isinstance(rule, Personal):
        return _personal(rule, definition.metadata)
    if isinstance(rule, Revealed):
        return _revealed(rule.permission, definition.python_name)
    check = check_of(field)
    if definition.is_basic_field:
        resolve = _attribute(definition.python_name)
    if is_mutation:
        resolve = _in_savepoint(resolve)
    if isinstance(rule, Requires):
        return _requiring(rule.permission, resolve, check)
    return _checked(resolve, check) if check else resolve


def _subscribing(field: GraphQLField) -> Resolve:
    """Decided when the stream opens, and again for each event: `load` makes the answer of the source's id."""
    rule, check = rule_of(field), check_of(field)
    load, subscribe = field.extensions[DEFINITION].metadata["load"], cast(Resolve, field.subscribe)
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
    column, attribute, field, mask = metadata["column"], metadata["attribute"], metadata["field"], rule.mask

    def guarded(source: Any, info: Info) -> Any:
        level = info.context.levels(field)[source.relation]
        if level is Level.HIDDEN:
            return None
        document = source.document(column, GUARD)
        value = None if document is None else getattr(document, attribute)
        return rules.shown(level, mask, value)

    return guarded


def _revealed(permission: Permission, name: str) -> Resolve:
    """What `domain.reveals` or `domain.access_requests` decided to let out, opened by the source's method of that name;
    no level is given to the viewer, and nothing else of it opened.
    """

    def guarded(source: Any, info: Info) -> Any:
        if not info.context.may(permission):
            raise Forbidden(f"This needs the permission {permission}.")
        return getattr(source, name)(GUARD)

    return guarded


def _requiring(permission: Permission, resolve: Resolve, check: ArgumentCheck | None) -> Resolve:
    def guarded(source: Any, info: Info, **arguments: Any) -> Any:
        operation: Operation = info.context
        if not operation.may(permission):
            raise Unauthenticated if operation.viewer is None else Forbidden(f"This needs the permission {permission}.")
        if check is not None and arguments:
            check(operation.viewer, arguments)
        return resolve(source, info, **arguments)

    return guarded


def _checked(resolve: Resolve, check: ArgumentCheck) -> Resolve:
    def guarded(source: Any, info: Info, **arguments: Any) -> Any:
        check(info.context.viewer, arguments)
        return resolve(source, info, **arguments)

    return guarded


def _in_savepoint(resolve: Resolve) -> Resolve:
    """A root mutation field that answers with user errors, or raises, is undone alone."""

    async def mutate(source: Any, info: Info, **arguments: Any) -> Any:
        operation: Operation = info.context
        payload = await operation.undoable(lambda: _awaited(resolve(source, info, **arguments)))
        if any(error.code == BEYOND for error in payload.user_errors):
            operation.unit.audit("access.refused", fields=[info.field_name], outcome=BEYOND)
        return payload

    return mutate


async def _awaited(answer: Any) -> Any:
    return await answer if isawaitable(answer) else answer
