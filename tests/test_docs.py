"""Every GraphQL document in the documentation is one that the schema would run."""

import re
from pathlib import Path

import pytest
from graphql import GraphQLSchema, OperationDefinitionNode, parse, specified_rules, validate
from graphql.validation import LoneAnonymousOperationRule

from api.schema import build

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```graphql\n(.*?)^```", re.M | re.S)
# A block shows several operations one below the other; each is sent alone.
RULES = [rule for rule in specified_rules if rule is not LoneAnonymousOperationRule]
BLOCKS = [
    (f"{page.name} {number}", text) for page in PAGES for number, text in enumerate(BLOCK.findall(page.read_text()))
]


@pytest.fixture(scope="module")
def schema() -> GraphQLSchema:
    return build()[0]


@pytest.mark.parametrize(("where", "text"), BLOCKS, ids=[where for where, _ in BLOCKS])
def test_what_the_documentation_shows_is_valid(schema: GraphQLSchema, where: str, text: str) -> None:
    document = parse(text)
    assert any(isinstance(each, OperationDefinitionNode) for each in document.definitions)
    assert [error.message for error in validate(schema, document, RULES)] == []


def test_the_documentation_shows_something() -> None:
    assert {page.name for page in PAGES} == {where.split()[0] for where, _ in BLOCKS}
