"""Documents that walk ways through the schema, in three spellings, and where in their answers each object stands."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from tests.leaks.graph import NESTED, Way, is_abstract, leaves, object_type, personal, roots, telling, ways

MOST_FIELDS = 330  # of a document, which may hold 500
MOST_COST = 7_000  # of 10,000
MOST_ALIASES = 30  # of our own names, those of the calls among them
MOST_ROOTS = 18  # of 20
_USUAL_PAGE = 20


class Spelling(StrEnum):
    PLAIN = "fields"
    ALIASED = "aliases"
    SPREAD = "fragments"


@dataclass
class Branch:
    """An object of an answer: of which type, whether its leaves are asked for, and what stands below it."""

    kind: str
    asks: bool = False
    below: dict[tuple[str, str], "Branch"] = field(default_factory=dict)

    def at(self, way: Way) -> "Branch":
        here = self
        for name, kind in way.steps:
            here = here.below.setdefault((name, kind), Branch(kind))
        return here


@dataclass(frozen=True)
class Call:
    """A root field with its arguments; of an abstract field also which type its answer is."""

    name: str
    arguments: Mapping[str, Any]
    kind: str


@dataclass
class Document:
    """`calls` by the name under which each is answered."""

    operation: str
    spelling: Spelling
    calls: dict[str, tuple[Call, Branch]] = field(default_factory=dict)

    def __str__(self) -> str:
        declared = [f"${at}_{name}: {kind}" for at, name, kind, _ in self._given()]
        heading = f"{self.operation.lower()}({', '.join(declared)})" if declared else self.operation.lower()
        body = "\n".join(self._rooted(at, call, branch) for at, (call, branch) in self.calls.items())
        kinds = sorted({each.kind for _, top in self.calls.values() for each in _all(top) if each.asks})
        shared = [_fragment(kind) for kind in kinds] if self.spelling is Spelling.SPREAD else []
        return "\n".join([f"{heading} {{ {body} }}", *shared])

    def variables(self) -> dict[str, Any]:
        return {f"{at}_{name}": value for at, name, _, value in self._given()}

    def key(self, kind: str, name: str) -> str:
        """Under which name a field is answered."""
        return aliases(kind).get(name, name) if self.spelling is Spelling.ALIASED else name

    def _given(self) -> Iterator[tuple[str, str, str, Any]]:
        for at, (call, _) in self.calls.items():
            taken = roots(self.operation)[call.name].args
            yield from ((at, name, str(taken[name].type), value) for name, value in call.arguments.items())

    def _rooted(self, at: str, call: Call, branch: Branch) -> str:
        given = ", ".join(f"{name}: ${at}_{name}" for name in call.arguments)
        inner = self._written(branch)
        if is_abstract(roots(self.operation)[call.name]):
            inner = f"... on {call.kind} {{ {inner} }}"
        return f"{at}: {call.name}{f'({given})' if given else ''} {{ {inner} }}"

    def _written(self, branch: Branch, depth: int = 0) -> str:
        below = " ".join(self._below(branch.kind, name, each, depth) for (name, _), each in branch.below.items())
        own = " ".join(self._asked(branch)) or "__typename"
        if self.spelling is not Spelling.SPREAD or not below:
            return f"{own} {below}"
        return f"{own} ... {f'on {branch.kind} ' if depth % 2 else ''}{{ {below} }}"

    def _below(self, kind: str, name: str, branch: Branch, depth: int) -> str:
        inner = self._written(branch, depth + 1)
        if is_abstract(object_type(kind).fields[name]):
            inner = f"... on {branch.kind} {{ {inner} }}"
        given = ", ".join(f"{each}: {value}" for each, value in NESTED.get(f"{kind}.{name}", {}).items())
        return f"{name}{f'({given})' if given else ''} {{ {inner} }}"

    def _asked(self, branch: Branch) -> Iterator[str]:
        """Every object says its id, so that it is known whose values these are."""
        if not branch.asks:
            yield from ["id"] if "id" in leaves(branch.kind) else []
        elif self.spelling is Spelling.SPREAD:
            yield f"...Of{branch.kind}"
        else:
            keys = {name: self.key(branch.kind, name) for name in leaves(branch.kind)}
            yield from (name if key == name else f"{key}: {name}" for name, key in keys.items())


def aliases(kind: str) -> dict[str, str]:
    """Personal leaves under one another's names, so that nothing can go by the name in the answer."""
    own = personal(kind)
    return dict(zip(own, [*own[1:], own[0]], strict=True)) if len(own) > 1 else {name: f"{name}_" for name in own}


def _fragment(kind: str) -> str:
    return f"fragment Of{kind} on {kind} {{ {' '.join(leaves(kind)) or '__typename'} }}"


def _all(branch: Branch) -> Iterator[Branch]:
    yield branch
    for each in branch.below.values():
        yield from _all(each)


def documents(operation: str, calls: Iterable[Call], spelling: Spelling) -> Iterator[Document]:
    """As few as hold every way of every call; a call whose ways are too many is asked again.

    Other than plain, the ways to personal leaves alone.
    """
    document, used = Document(operation, spelling), _Used()
    for call in calls:
        at = ""
        for way in ways(call.kind) if spelling is Spelling.PLAIN else telling(call.kind):
            wanted = _Used.of(operation, call, way, spelling)
            full = (used + wanted).is_too_much or used.aliases + wanted.aliases + len(document.calls) >= MOST_ALIASES
            if full or (not at and len(document.calls) >= MOST_ROOTS):
                yield document
                document, used, at = Document(operation, spelling), _Used(), ""
            if not at:
                at = f"r{len(document.calls)}"
                document.calls[at] = (call, Branch(call.kind))
            document.calls[at][1].at(way).asks = True
            used += wanted
    if document.calls:
        yield document


def whole(operation: str, call: Call, spelling: Spelling = Spelling.PLAIN) -> list[Document]:
    """Of one call alone."""
    return list(documents(operation, [call], spelling))


@dataclass(frozen=True)
class _Used:
    fields: int = 0
    cost: int = 0
    aliases: int = 0

    def __add__(self, other: "_Used") -> "_Used":
        return _Used(self.fields + other.fields, self.cost + other.cost, self.aliases + other.aliases)

    @property
    def is_too_much(self) -> bool:
        return self.fields > MOST_FIELDS or self.cost > MOST_COST

    @classmethod
    def of(cls, operation: str, call: Call, way: Way, spelling: Spelling) -> "_Used":
        fields = len(leaves(way.kind)) + len(way.steps) + 1
        times = _length(call, operation)
        for n, (name, _) in enumerate(way.steps):
            parent = way.steps[n - 1][1] if n else way.root
            page = NESTED.get(f"{parent}.{name}", {}).get("first", _USUAL_PAGE)
            times *= page if "first" in object_type(parent).fields[name].args else 1
        renamed = len(aliases(way.kind)) if spelling is Spelling.ALIASED else 0
        return cls(fields, fields * times + (100 if operation == "Mutation" else 0), renamed)  # what a mutation weighs


def _length(call: Call, operation: str) -> int:
    if "first" in roots(operation)[call.name].args:
        return int(call.arguments.get("first") or call.arguments.get("last") or _USUAL_PAGE)
    ids: Sequence[Any] = call.arguments.get("ids") or [""]
    return len(ids)
