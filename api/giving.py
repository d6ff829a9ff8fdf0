"""What a viewer may give: refuses arguments and input fields, however deep, that no right lets through."""

from collections.abc import Callable, Mapping
from typing import Any, cast

from graphql import GraphQLField, GraphQLInputObjectType, get_named_type

from api.directives import INPUT_RULES, Input, InputRule, Searches, Writes, customer_field, label, one_of
from api.labels import directives_of
from domain import rules
from domain.customers import CLEAR_WRITES
from domain.errors import Forbidden
from tenants.access import Permission, Relation
from tenants.viewers import Viewer

Check = Callable[[Viewer | None], bool]
ArgumentCheck = Callable[[Viewer | None, Mapping[str, Any]], None]

_CLEAR_WRITES = {label(name): permission for name, permission in CLEAR_WRITES.items()} | {
    "Tag.name": Permission.TAGS_MANAGE
}
_CLEAR_SEARCHES = frozenset(
    f"Customer.{name}"
    for name in ("stage", "ownerId", "tagIds", "language", "source", "region", "createdAt", "updatedAt", "archivedAt")
)


def check_of(field: GraphQLField) -> ArgumentCheck | None:
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
    rule = one_of(INPUT_RULES, directives_of(definition))
    kind = get_named_type(definition.type)
    inner: dict[str, Any] = {}
    if isinstance(kind, GraphQLInputObjectType) and kind.name not in above:
        inner = {
            name: check
            for name, field in kind.fields.items()
            if (check := _input_check(f"{path}.{name}", field, above | {kind.name}))
        }
    right = None if isinstance(rule, Input) else right_to(cast("Searches | Writes", rule))
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


def right_to(rule: InputRule) -> Check:
    """Raises LookupError for a label that names no field."""
    if isinstance(rule, Writes):
        return right_to_write(rule.field)
    return right_to_search(cast(Searches, rule).field)


def right_to_write(name: str) -> Check:
    """Of some customer. Raises LookupError for what is no field that can be written."""
    field, permission = customer_field(name), _CLEAR_WRITES.get(name)
    if field is not None:
        return lambda viewer: viewer is not None and rules.may_write(viewer, field, Relation.OWN)
    if permission is not None:
        return lambda viewer: viewer is not None and viewer.may(permission)
    raise LookupError(f"@writes names {name}, which is no field that can be written")


def right_to_search(name: str) -> Check:
    """Among some customers. Raises LookupError for what is no field that can be searched by."""
    field = customer_field(name)
    if field is not None and field.index is not None:
        right = field.index.right
        return lambda viewer: viewer is not None and viewer.may_search(right)
    if name in _CLEAR_SEARCHES:
        return lambda viewer: viewer is not None and viewer.may(Permission.CUSTOMERS_READ)
    raise LookupError(f"@searches names {name}, which is no field that can be searched by")
