"""How large a request may be, and the walk that refuses a document too large to validate; imports nothing of ours."""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLField,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    ListValueNode,
    OperationDefinitionNode,
    OperationType,
    SelectionNode,
    SelectionSetNode,
    ValueNode,
    VariableNode,
    get_named_type,
)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one request; fragments count as often as they are spread.

    `pairs` bounds the comparisons of OverlappingFieldsCanBeMerged, which is quadratic in fields of one response name.
    `cost` is the number of fields an operation may ask for once its lists are as long as its arguments let them be.
    Each of the mutations in `passwords` costs its caller `password_cost` more, since it may look at a password.
    """

    body_bytes: int = 1024 * 1024
    url_bytes: int = 32 * 1024
    json_depth: int = 32
    json_containers: int = 20_000
    characters: int = 50_000
    tokens: int = 2_000
    comments: int = 500
    definitions: int = 50
    depth: int = 12
    introspection_depth: int = 20  # the introspection query of GraphiQL unwraps nine levels of `ofType`
    root_fields: int = 20
    aliases: int = 30
    directives: int = 20
    fields: int = 500
    document_fields: int = 2_000
    pairs: int = 3_000
    cost: int = 10_000
    default_page: int = 20
    mutation_cost: int = 100
    passwords: frozenset[str] = frozenset()
    password_cost: int = 900


_TOLD = 1_000_000_000  # no client needs a longer number than that


class LimitExceeded(Exception):
    """A document is larger than a limit; `code` is stable, `message` is for clients and echoes nothing of theirs."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def check_shape(document: DocumentNode, schema: GraphQLSchema, limits: Limits) -> None:
    """Hold every definition to the limits, cost apart, so that none can make validation slow."""
    if len(document.definitions) > limits.definitions:
        raise LimitExceeded("QUERY_TOO_LONG", f"A document holds at most {limits.definitions} definitions.")
    steps = 0
    for definition in document.definitions:
        if isinstance(definition, OperationDefinitionNode | FragmentDefinitionNode):
            walk = _Walk(document, schema, {}, replace(limits, cost=sys.maxsize))
            walk.over(definition)
            steps += walk.steps
            # Many operations that share large fragments are small to write and long to walk.
            if steps > limits.document_fields:
                raise LimitExceeded(
                    "TOO_MANY_FIELDS", "The operations of the document select too many fields together."
                )


def measure(
    document: DocumentNode,
    operation: OperationDefinitionNode,
    schema: GraphQLSchema,
    variables: Mapping[str, Any],
    limits: Limits,
) -> int:
    """Return the cost of an operation with these raw variables; raises LimitExceeded at the first limit passed."""
    defaults = {
        each.variable.name.value: each.default_value
        for each in operation.variable_definitions or ()
        if each.default_value
    }
    return _Walk(document, schema, {**defaults, **variables}, limits).over(operation)


class _Place(NamedTuple):
    selections: SelectionSetNode
    parent: Any  # the type the selections are on; None where the document is wrong, which validation will tell
    depth: int
    deepest: int
    times: int
    path: int  # a number for the response path, so that merged fields meet
    inside: frozenset[str]


class _Walk:
    """Depth first and without recursion; ends at the first limit, so a fragment bomb takes `fields` steps at most."""

    def __init__(
        self, document: DocumentNode, schema: GraphQLSchema, variables: Mapping[str, Any], limits: Limits
    ) -> None:
        self._fragments = {
            each.name.value: each for each in document.definitions if isinstance(each, FragmentDefinitionNode)
        }
        self._schema, self._variables, self._limits = schema, variables, limits
        self._counts: Counter[str] = Counter()
        self._paths: dict[tuple[int, str], int] = {}
        self._met: Counter[int] = Counter()
        self._cost = 0
        self._passwords = 0
        self._mutates = False

    def over(self, root: OperationDefinitionNode | FragmentDefinitionNode) -> int:
        self._count_directives(root, *(root.variable_definitions or ()))
        self._mutates = isinstance(root, OperationDefinitionNode) and root.operation is OperationType.MUTATION
        parent = self._type_of(root)
        deepest = self._deepest(parent.name if parent else "")
        stack = [_Place(root.selection_set, parent, 0, deepest, 1, 0, frozenset())]
        while stack:
            place = stack.pop()
            for selection in place.selections.selections:
                self._count("fields", "TOO_MANY_FIELDS", "fields")
                self._count_directives(selection)
                stack.extend(self._below(selection, place))
        if self._cost > self._limits.cost:
            found = self._cost if self._cost < _TOLD else f"{_TOLD} or more"
            message = (
                f"The operation may touch {found} fields, and {self._limits.cost} are allowed; ask for shorter pages."
            )
            raise LimitExceeded("QUERY_TOO_COSTLY", message)
        return self._cost + self._passwords * self._limits.password_cost

    @property
    def steps(self) -> int:
        return self._counts["fields"]

    def _deepest(self, name: str) -> int:
        return self._limits.introspection_depth if name.startswith("__") else self._limits.depth

    def _type_of(self, root: OperationDefinitionNode | FragmentDefinitionNode) -> Any:
        if isinstance(root, OperationDefinitionNode):
            return self._schema.get_root_type(root.operation)
        return self._schema.get_type(root.type_condition.name.value)

    def _below(self, selection: SelectionNode, place: _Place) -> Iterator[_Place]:
        if isinstance(selection, FieldNode):
            yield from self._below_field(selection, place)
        elif isinstance(selection, InlineFragmentNode):
            condition = selection.type_condition
            parent = self._schema.get_type(condition.name.value) if condition else place.parent
            yield place._replace(selections=selection.selection_set, parent=parent)
        elif isinstance(selection, FragmentSpreadNode):
            yield from self._below_spread(selection.name.value, place)

    def _below_spread(self, name: str, place: _Place) -> Iterator[_Place]:
        fragment = self._fragments.get(name)
        # A cycle is left to the validator, whose message names the fragments.
        if fragment is not None and name not in place.inside:
            self._count_directives(fragment)
            parent = self._type_of(fragment)
            yield place._replace(
                selections=fragment.selection_set, parent=parent, inside=place.inside | frozenset((name,))
            )

    def _below_field(self, node: FieldNode, place: _Place) -> Iterator[_Place]:
        if place.depth == 0:
            self._count("root_fields", "TOO_MANY_FIELDS", "fields at its root")
        if node.alias:
            self._count("aliases", "TOO_MANY_ALIASES", "aliases")
        name = node.name.value
        deepest = max(place.deepest, self._deepest(name))
        if place.depth >= deepest:
            raise LimitExceeded("QUERY_TOO_DEEP", f"A query nests at most {deepest} fields deep.")
        field = self._schema.get_field(place.parent, name)
        self._add_cost(place, name)
        path = self._meet(place.path, node.alias.value if node.alias else name)
        if node.selection_set:
            parent = get_named_type(field.type) if field else None
            times = place.times * self._length(node, field)
            yield _Place(node.selection_set, parent, place.depth + 1, deepest, times, path, place.inside)

    def _add_cost(self, place: _Place, name: str) -> None:
        is_change = self._mutates and place.depth == 0
        self._cost += place.times * (self._limits.mutation_cost if is_change else 1)
        self._passwords += is_change and name in self._limits.passwords

    def _meet(self, parent: int, response_name: str) -> int:
        path = self._paths.setdefault((parent, response_name), len(self._paths) + 1)
        self._counts["pairs"] += self._met[path]
        self._met[path] += 1
        if self._counts["pairs"] > self._limits.pairs:
            raise LimitExceeded("TOO_MANY_FIELDS", "The document selects the same fields too many times.")
        return path

    def _length(self, node: FieldNode, field: GraphQLField | None) -> int:
        given = {argument.name.value: argument.value for argument in node.arguments or ()}
        lengths = [self._page(given[name]) for name in ("first", "last") if name in given]
        if not lengths and field is not None and ("first" in field.args or "last" in field.args):
            lengths.append(self._limits.default_page)
        if "ids" in given:
            lengths.append(self._count_ids(given["ids"]))
        return max([1, *lengths])

    def _page(self, value: ValueNode) -> int:
        size = self._known(value)
        if isinstance(size, IntValueNode):
            # Digits are counted first: int() refuses 4,300 of them with an exception that is not ours.
            return int(size.value) if len(size.value) < 12 else sys.maxsize
        # Int takes 100.0 from JSON as well.
        if isinstance(size, int | float) and not isinstance(size, bool):
            return int(size)
        return self._limits.default_page

    def _count_ids(self, value: ValueNode) -> int:
        ids = self._known(value)
        if isinstance(ids, ListValueNode):
            return len(ids.values)
        return len(ids) if isinstance(ids, list) else 1

    def _known(self, value: ValueNode) -> Any:
        return self._variables.get(value.name.value) if isinstance(value, VariableNode) else value

    def _count_directives(self, *nodes: Any) -> None:
        for node in nodes:
            for _ in node.directives or ():
                self._count("directives", "TOO_MANY_DIRECTIVES", "directives")

    def _count(self, limit: str, code: str, things: str) -> None:
        self._counts[limit] += 1
        most: int = getattr(self._limits, limit)
        if self._counts[limit] > most:
            raise LimitExceeded(code, f"A query holds at most {most} {things}, counting each use of a fragment.")
