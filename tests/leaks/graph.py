"""What can be reached in the schema: its fields, its personal leaves, and every way from a root to an object.

Read off the executable schema, so that a new field, type or way is covered, or missed by name, without a line here.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from graphql import (
    GraphQLField,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLUnionType,
    get_named_type,
    is_composite_type,
    is_required_argument,
)

from api import labels
from api.directives import Personal, Searches, Writes, one_of
from api.schema import build

SCHEMA, _ = build()
MOST_VISITS = 2  # of one type on one way: a cycle is walked round once
DEEPEST = 11  # fields; a document nests at most 12
# Arguments of fields below the roots: of those that need any, and of lists that would be long.
NESTED: Mapping[str, Mapping[str, int]] = {"Team.members": {"first": 5}}


@dataclass(frozen=True)
class Way:
    """How one comes to an object from the answer of a root field: by which fields, and of which type each then is."""

    root: str  # the type of the first object
    steps: tuple[tuple[str, str], ...] = ()

    @property
    def kind(self) -> str:
        return self.steps[-1][1] if self.steps else self.root


def object_type(name: str) -> GraphQLObjectType:
    kind = SCHEMA.type_map[name]
    assert isinstance(kind, GraphQLObjectType), name
    return kind


def roots(operation: str) -> dict[str, GraphQLField]:
    """The fields of "Query", "Mutation" or "Subscription"."""
    return dict(object_type(operation).fields)


def kinds_of(field: GraphQLField) -> list[str]:
    """The object types that may stand in the field's place; none for a leaf."""
    named = get_named_type(field.type)
    if isinstance(named, GraphQLInterfaceType | GraphQLUnionType):
        return sorted(each.name for each in SCHEMA.get_possible_types(named))
    return [named.name] if isinstance(named, GraphQLObjectType) else []


def is_abstract(field: GraphQLField) -> bool:
    return isinstance(get_named_type(field.type), GraphQLInterfaceType | GraphQLUnionType)


def leaves(kind: str) -> list[str]:
    """The scalar fields of a type that can be asked for as they are."""
    return [
        name for name, field in object_type(kind).fields.items() if not is_composite_type(get_named_type(field.type))
    ]


def edges(kind: str) -> dict[str, list[str]]:
    """The fields of a type that lead to objects, and to which types."""
    return {name: to for name, field in object_type(kind).fields.items() if (to := kinds_of(field))}


def personal(kind: str) -> list[str]:
    return [name for name, field in object_type(kind).fields.items() if isinstance(labels.rule_of(field), Personal)]


def all_personal() -> set[str]:
    """The coordinates of every personal leaf of the SDL."""
    own = [kind for kind in SCHEMA.type_map.values() if isinstance(kind, GraphQLObjectType)]
    return {f"{kind.name}.{name}" for kind in own if not kind.name.startswith("__") for name in personal(kind.name)}


@cache
def ways(root: str) -> list[Way]:
    """Every way to an object from one of that type, itself first."""
    return list(_ways(Way(root), Counter([root])))


@cache
def telling(root: str) -> list[Way]:
    """Those that end at personal leaves."""
    return [way for way in ways(root) if personal(way.kind)]


def _ways(here: Way, visits: Counter[str]) -> Iterator[Way]:
    yield here
    if len(here.steps) >= DEEPEST - 1:
        return
    for name, to in edges(here.kind).items():
        for kind in to:
            if visits[kind] < MOST_VISITS:
                yield from _ways(Way(here.root, (*here.steps, (name, kind))), visits + Counter([kind]))


def reachable(operation: str) -> set[str]:
    """The coordinates of all fields below the roots of an operation."""
    return below(roots(operation), operation)


def below(names: Iterable[str], operation: str) -> set[str]:
    """The same for these of its roots."""
    found, waiting = set[str](), {kind for name in names for kind in kinds_of(roots(operation)[name])}
    while waiting:
        found |= waiting
        waiting = {kind for each in waiting for to in edges(each).values() for kind in to} - found
    return {f"{kind}.{name}" for kind in found for name in object_type(kind).fields}


def leading(coordinates: set[str]) -> set[str]:
    """Those of the fields that lead to objects."""
    return {each for each in coordinates if each.partition(".")[2] in edges(each.partition(".")[0])}


def carries(field: GraphQLField) -> bool:
    """Whether a personal leaf can be reached by it."""
    return any(telling(kind) for kind in kinds_of(field))


def unanswerable() -> list[str]:
    """Fields below the roots that need an argument which `NESTED` does not give."""
    coordinates = reachable("Query") | reachable("Mutation") | reachable("Subscription")
    return sorted(each for each in coordinates if each not in NESTED and _needs_more(each))


def _needs_more(coordinate: str) -> bool:
    kind, _, name = coordinate.partition(".")
    return any(is_required_argument(each) for each in object_type(kind).fields[name].args.values())


def labelled() -> dict[str, Searches | Writes]:
    """Every argument and input field that takes a right, as `CustomerSearch.email` or `Mutation.createTag(name:)`."""
    found = {}
    for kind in SCHEMA.type_map.values():
        for name, field in getattr(kind, "fields", {}).items():
            found[f"{kind.name}.{name}"] = field
            arguments = getattr(field, "args", {}).items()
            found |= {f"{kind.name}.{name}({argument}:)": each for argument, each in arguments}
    rules = {at: one_of((Searches, Writes), labels.directives_of(each)) for at, each in found.items()}
    return {at: rule for at, rule in rules.items() if rule is not None}
