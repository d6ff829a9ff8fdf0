"""A schema with a field, argument or input field that has no rule is not built; the real one is on paper."""

# mypy: disallow-untyped-decorators=False
# (a strawberry field is both a decorator and an attribute, so it is typed Any)

from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, cast
from uuid import UUID

import pytest
import strawberry
from graphql import GraphQLObjectType

from api import guard, labels
from api.directives import Input, Personal, Public, Requires, Writes, argument, public
from api.schema import build
from domain import masks
from domain.customers.fields import DOCUMENTS, ExternalId, Guarded, Note, Profile
from domain.holds import HoldReason
from domain.tags import TagName
from tenants.access import Access, Grants, Level, Permission, Relation, Sensitivity
from tenants.documents import Document, Mask
from tenants.members import MemberIdentity
from tenants.signing_in.sessions import Device
from tenants.viewers import TenantId, Viewer

PRINTED = Path(__file__).parent.parent / "schema.graphql"
UPDATE = ".venv/bin/python -m tests.invariants.test_schema"
WHY = "only a test"
_PERSONAL = Personal(class_=Sensitivity.IDENTITY, mask=Mask.NAME)


@strawberry.type
class FieldWithoutRule:
    name: str


@strawberry.type
class ResolverWithoutRule:
    @strawberry.field
    def name(self) -> str:
        return ""


@strawberry.type
class FieldOfTwoRules:
    name: str = strawberry.field(directives=[Public(reason=WHY), Requires(permission=Permission.CUSTOMERS_READ)])


@strawberry.type
class PersonalOfNoColumn:
    name: str | None = strawberry.field(directives=[_PERSONAL])


@strawberry.type
class InnerFieldWithoutRule:
    @public(WHY)
    def inner(self) -> FieldWithoutRule:
        return FieldWithoutRule(name="")


@strawberry.type
class ArgumentWithoutRule:
    @public(WHY)
    def name(self, of: str) -> str:
        return of


@strawberry.type
class ArgumentOfTwoRules:
    @public(WHY)
    def name(
        self, of: Annotated[str, strawberry.argument(directives=[Input(why=WHY), Writes(field="Customer.stage")])]
    ) -> str:
        return of


@strawberry.type
class ArgumentThatWritesNothing:
    @public(WHY)
    def name(self, of: Annotated[str, argument(Writes(field="Customer.shoeSize"))]) -> str:
        return of


@strawberry.input
class InputWithoutRule:
    name: str


@strawberry.type
class InputFieldWithoutRule:
    @public(WHY)
    def name(self, of: Annotated[InputWithoutRule, argument(Input(why=WHY))]) -> str:
        return of.name


@strawberry.interface
class Named:
    name: str = public(WHY)


@strawberry.type
class Person(Named):
    name: str = strawberry.field(directives=[Requires(permission=Permission.AUDIT_READ)])


@strawberry.type
class InterfaceOfAnotherRule:
    @public(WHY)
    def person(self) -> Person:
        return Person(name="")


@strawberry.type
class Whole:
    @public(WHY)
    def name(self, of: Annotated[str, argument(Input(why=WHY))]) -> str:
        return of


@pytest.mark.parametrize(
    ("query", "said"),
    [
        (FieldWithoutRule, "FieldWithoutRule.name has no rule"),
        (ResolverWithoutRule, "ResolverWithoutRule.name has no rule"),
        (FieldOfTwoRules, "FieldOfTwoRules.name has no rule"),
        (InnerFieldWithoutRule, "FieldWithoutRule.name has no rule"),
        (PersonalOfNoColumn, "PersonalOfNoColumn.name is @personal but names no sealed column"),
        (ArgumentWithoutRule, r"ArgumentWithoutRule.name\(of:\) has no rule"),
        (ArgumentOfTwoRules, r"ArgumentOfTwoRules.name\(of:\) has no rule"),
        (ArgumentThatWritesNothing, "@writes names Customer.shoeSize, which is no field"),
        (InputFieldWithoutRule, "InputWithoutRule.name has no rule"),
        (InterfaceOfAnotherRule, "Person.name has another rule than Named.name"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_a_schema_with_a_gap_is_not_built(query: type, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        build(query, None)


def test_a_schema_without_a_gap_is_built() -> None:
    schema, _ = build(Whole, None)
    assert list(guard.problems(schema)) == []


def test_the_printed_schema_is_the_real_one() -> None:
    assert PRINTED.read_text() == build()[1], f"the schema or a rule changed; if you meant it: {UPDATE}"


FILLED: dict[str, Document] = {
    "profile": Profile(
        given_name="Augusta",
        family_name="Lovelace",
        display_name="Augusta Lovelace",
        emails=("augusta@example.org",),
        phones=("+12022243441",),
        address_lines=("12 St James's Square",),
        city="London",
        postal_code="SW1Y 4JH",
        country="GB",
        birth_date=Profile.load(b'{"birth_date":"1815-12-10"}').birth_date,
    ),
    "guarded": Guarded(government_id="123456789"),
    "note": Note(note="a note of hers"),
    "reason": HoldReason(reason="a claim of hers"),
    "external_id": ExternalId(external_id="L-1234567"),
    "name": TagName(name="Countess"),
    "identity": MemberIdentity(name="Charles Babbage", email="charles@example.org"),
    "device": Device(user_agent="Mosaic/0.9", address="192.0.2.7"),
}


class _Source:
    relation = Relation.TEAM

    def __init__(self) -> None:
        self.opened: list[str] = []

    def document(self, column: str, _why: str) -> Document:
        self.opened.append(column)
        return FILLED[column]


def _leaves() -> dict[str, tuple[Any, Personal, str, str]]:
    schema, _ = build()
    found = {}
    for kind in schema.type_map.values():
        if isinstance(kind, GraphQLObjectType) and not kind.name.startswith("__"):
            for name, field in kind.fields.items():
                if isinstance(rule := labels.rule_of(field), Personal):
                    metadata = field.extensions[labels.DEFINITION].metadata
                    found[f"{kind.name}.{name}"] = (field.resolve, rule, metadata["column"], metadata["attribute"])
    return found


LEAVES = _leaves()


def _seen(leaf: str, level: Level) -> tuple[Any, list[str]]:
    """What a viewer of that level for this leaf's class, and of no right to any other, gets; and what was opened.

    In every other relation to the row the viewer has another level, which must not count.
    """
    resolve, rule, _, _ = LEAVES[leaf]
    source, other = _Source(), Level.PLAIN if level is Level.HIDDEN else Level.HIDDEN
    own, others = Grants(levels={rule.class_: level}), Grants(levels={rule.class_: other})
    viewer = Viewer(TenantId(UUID(int=1)), None, frozenset(), Access((others, own, others, others), is_uniform=False))
    info = SimpleNamespace(context=SimpleNamespace(levels=viewer.levels))
    return resolve(source, cast(Any, info)), source.opened


@pytest.mark.parametrize("leaf", LEAVES)
def test_a_hidden_leaf_is_null_and_not_even_opened(leaf: str) -> None:
    assert _seen(leaf, Level.HIDDEN) == (None, [])


@pytest.mark.parametrize("leaf", LEAVES)
def test_a_masked_leaf_is_what_its_mask_makes_of_it(leaf: str) -> None:
    _, rule, column, attribute = LEAVES[leaf]
    value = getattr(FILLED[column], attribute)
    parts = value if isinstance(value, tuple) else (value,)
    masked = [masks.apply(rule.mask, part) for part in parts]
    assert _seen(leaf, Level.MASKED) == (masked if isinstance(value, tuple) else masked[0], [column])
    assert rule.mask is Mask.KEEP or not set(masked) & set(parts)


@pytest.mark.parametrize("leaf", LEAVES)
def test_a_plain_leaf_is_the_value(leaf: str) -> None:
    _, _, column, attribute = LEAVES[leaf]
    assert _seen(leaf, Level.PLAIN) == (getattr(FILLED[column], attribute), [column])


def test_every_field_of_a_customers_documents_is_a_personal_leaf() -> None:
    shown = {(column, attribute) for _, _, column, attribute in LEAVES.values()}
    assert ("profile", "full_name") in shown  # what `displayName` reads: the display name, or what the others make
    shown.add(("profile", "display_name"))
    assert {(column, name) for column, document in DOCUMENTS.items() for name in document.fields} <= shown


if __name__ == "__main__":
    PRINTED.write_text(build()[1])
