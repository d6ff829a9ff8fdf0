"""docs/govern.md lists the mutations that heed an Idempotency-Key, and no other: the code tells who reads it."""

import ast
import re
from pathlib import Path

from graphql import GraphQLObjectType
from strawberry.utils.str_converters import to_camel_case

from api.schema import build

ROOT = Path(__file__).parent.parent
READS = "request.idempotency_key"
TREES = {path.stem: ast.parse(path.read_text()) for path in (ROOT / "api").glob("*.py")}
BODIES = {
    (module, each.name): each
    for module, tree in TREES.items()
    for each in ast.walk(tree)
    if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
}
IMPORTED = {
    (module, alias.asname or alias.name): (str(each.module).removeprefix("api."), alias.name)
    for module, tree in TREES.items()
    for each in ast.walk(tree)
    if isinstance(each, ast.ImportFrom)
    for alias in each.names
}


def _heeds(module: str, name: str, seen: frozenset[tuple[str, str]] = frozenset()) -> bool:
    """Whether the function, or one of the edge's that it names, reads the key."""
    at = IMPORTED.get((module, name), (module, name))
    if at in seen or at not in BODIES:
        return False
    body = BODIES[at]
    if READS in ast.unparse(body):
        return True
    names = {node.id for node in ast.walk(body) if isinstance(node, ast.Name)}
    return any(_heeds(at[0], each, seen | {at}) for each in names)


def test_the_listed_mutations_are_those_that_heed_the_key() -> None:
    schema, _ = build()
    assert isinstance(schema.mutation_type, GraphQLObjectType)
    fields = set(schema.mutation_type.fields)
    heeding = {to_camel_case(name) for module, name in BODIES if to_camel_case(name) in fields and _heeds(module, name)}
    text = (ROOT / "docs" / "govern.md").read_text()
    listed = text.partition("**Sending again.**")[2].partition("The same key")[0]
    assert set(re.findall(r"`([a-z]+[A-Z]\w+)`", listed)) == heeding
