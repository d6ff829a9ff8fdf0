"""The labels of the SDL that are the checks: each field bears one rule, each argument and input field one right."""

from collections.abc import Iterable
from typing import Any

import strawberry
from strawberry.schema_directive import Location
from strawberry.types.arguments import StrawberryArgumentAnnotation

from domain.customers import FIELDS
from tenants.access import Permission, Sensitivity
from tenants.documents import Mask, PersonalField

strawberry.enum(Sensitivity, description="The class of a personal field: how sensitive it is.")
strawberry.enum(Mask, description="How a value is shown in part.")
strawberry.enum(Permission, description="What a member may do.")


@strawberry.schema_directive(
    locations=[Location.FIELD_DEFINITION],
    name="personal",
    description="A personal value: hidden, masked or plain by the viewer's level for its class.",
)
class Personal:
    class_: Sensitivity = strawberry.directive_field(name="class")
    mask: Mask


@strawberry.schema_directive(
    locations=[Location.FIELD_DEFINITION], name="requires", description="Only for viewers with this permission."
)
class Requires:
    permission: Permission


@strawberry.schema_directive(
    locations=[Location.FIELD_DEFINITION], name="public", description="For everybody, and the reason why."
)
class Public:
    reason: str


@strawberry.schema_directive(
    locations=[Location.ARGUMENT_DEFINITION, Location.INPUT_FIELD_DEFINITION],
    name="searches",
    description="Finding by this needs the right to search by the field, or for a clear field to read it.",
)
class Searches:
    field: str


@strawberry.schema_directive(
    locations=[Location.ARGUMENT_DEFINITION, Location.INPUT_FIELD_DEFINITION],
    name="writes",
    description="Giving this, null too, needs the right to write the field.",
)
class Writes:
    field: str


@strawberry.schema_directive(
    locations=[Location.ARGUMENT_DEFINITION, Location.INPUT_FIELD_DEFINITION],
    name="input",
    description="Needs no right of its own, and why.",
)
class Input:
    why: str


Rule = Personal | Requires | Public
InputRule = Searches | Writes | Input
RULES = (Personal, Requires, Public)
INPUT_RULES = (Searches, Writes, Input)


def public(reason: str, **options: Any) -> Any:
    return strawberry.field(directives=[Public(reason=reason)], **options)


def requires(permission: Permission, **options: Any) -> Any:
    return strawberry.field(directives=[Requires(permission=permission)], **options)


def personal(column: str, field: PersonalField, attribute: str = "", mask: Mask | None = None) -> Any:
    """A leaf of a sealed document: the guard opens it. `attribute` is another reading of the same field."""
    return strawberry.field(
        directives=[Personal(class_=field.sensitivity, mask=mask or field.mask)],
        metadata={"column": column, "attribute": attribute or field.shown_as},
    )


def searches(field: str, **options: Any) -> Any:
    return strawberry.field(directives=[Searches(field=field)], **options)


def writes(field: str, **options: Any) -> Any:
    return strawberry.field(directives=[Writes(field=field)], **options)


def input_(why: str, **options: Any) -> Any:
    return strawberry.field(directives=[Input(why=why)], **options)


def argument(rule: InputRule, description: str | None = None) -> StrawberryArgumentAnnotation:
    return strawberry.argument(description=description, directives=[rule])


def one_of(kinds: Iterable[type], directives: Iterable[object]) -> Any | None:
    """The only directive of these kinds, or None where there is none or more than one."""
    found = [each for each in directives if isinstance(each, tuple(kinds))]
    return found[0] if len(found) == 1 else None


def customer_field(name: str) -> PersonalField | None:
    """The personal field that `Customer.givenName` speaks of, by its name in the SDL."""
    return _BY_LABEL.get(name)


def label(field: str) -> str:
    first, *rest = field.split("_")
    return "Customer." + first + "".join(word.capitalize() for word in rest)


_BY_LABEL = {label(name): field for name, field in FIELDS.items()}
