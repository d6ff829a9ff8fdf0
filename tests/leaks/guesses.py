"""What one may write: for every @writes of the SDL the right it takes, and of a value a right and a wrong guess."""

from collections.abc import Mapping, Sequence
from typing import Any

from tests.leaks import people
from tests.leaks.viewers import LEAVES, Nearness, Viewer

# A customer's clear fields take a permission, as do the fields of what is no customer.
PERMISSIONS: Mapping[str, str] = {
    "CustomerInput.stage": "CUSTOMERS_STAGE",
    "CustomerInput.ownerId": "CUSTOMERS_HAND_OVER",
    "CustomerInput.tagIds": "CUSTOMERS_CLASSIFY",
    "CustomerInput.language": "CUSTOMERS_CLASSIFY",
    "CustomerInput.source": "CUSTOMERS_CLASSIFY",
    "CustomerInput.region": "CUSTOMERS_CLASSIFY",
    "Mutation.createTag(name:)": "TAGS_MANAGE",
    "Mutation.handOverCustomer(to:)": "CUSTOMERS_HAND_OVER",
    "Mutation.handOverCustomers(to:)": "CUSTOMERS_HAND_OVER",
}
CLEAR: Mapping[str, Any] = {
    "CustomerInput.stage": "FORMER",
    "CustomerInput.ownerId": None,
    "CustomerInput.tagIds": [],
    "CustomerInput.language": "mt",
    "CustomerInput.source": "a source",
    "CustomerInput.region": "MT-01",
}
_INPUTS = {"Customer": "CustomerInput", "Address": "AddressInput"}
# By input field, the coordinate of what it writes; a birth year is a part of another value.
WRITTEN = {
    f"{_INPUTS[kind]}.{name}": f"{kind}.{name}"
    for kind, _, name in (each.partition(".") for each in LEAVES)
    if kind in _INPUTS and name != "birthYear"
}


def sent(coordinate: str, value: Any) -> dict[str, Any]:
    """The input that gives this field and no other."""
    kind, _, name = coordinate.partition(".")
    return {"address": {name: value}} if kind == "AddressInput" else {name: value}


def refusal(viewer: Viewer, coordinate: str, near: Nearness, *, is_reached: bool) -> str | None:
    """What the viewer is told who gives that field of a customer so near."""
    at_best = Nearness.NONE if coordinate in CLEAR else Nearness.OWN  # before the customer is known
    if not viewer.may("CUSTOMERS_WRITE") or not _may_give(viewer, coordinate, at_best):
        return "FORBIDDEN"
    if not is_reached:
        return "NOT_FOUND"
    if not viewer.may("CUSTOMERS_WRITE", near) or not _may_give(viewer, coordinate, near):
        return "FORBIDDEN"
    return None


def _may_give(viewer: Viewer, coordinate: str, near: Nearness) -> bool:
    if coordinate in CLEAR:
        return viewer.may(PERMISSIONS[coordinate], near)
    # Whoever sets an external id learns which are taken.
    is_open = coordinate != "CustomerInput.externalId" or viewer.may_search("EXTERNAL_ID", Nearness.STRANGER)
    return is_open and viewer.may_write(LEAVES[WRITTEN[coordinate]][0], near)


def saving(inputs: Sequence[dict[str, Any]], version: int) -> tuple[str, dict[str, Any]]:
    """One document that gives each of the inputs to the same customer, and its variables but the id."""
    return _document(inputs, f"updateCustomer(id: $id, version: {version}, ", "($id: ID!, ")


def making(inputs: Sequence[dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    return _document(inputs, "createCustomer(", "(")


def _document(inputs: Sequence[dict[str, Any]], call: str, declared: str) -> tuple[str, dict[str, Any]]:
    takes = ", ".join(f"$i{n}: CustomerInput!" for n, _ in enumerate(inputs))
    asked = "userErrors { code path message }"
    calls = "\n".join(f"r{n}: {call}input: $i{n}) {{ {asked} }}" for n, _ in enumerate(inputs))
    return f"mutation{declared}{takes}) {{ {calls} }}", {f"i{n}": each for n, each in enumerate(inputs)}


def wrong(values: Mapping[str, Any], coordinate: str) -> Any:
    """A guess of the same form, and of the same mask."""
    value, at = values[coordinate], people.mark_of(dict(values))
    if coordinate == "Customer.birthDate":
        return f"{value[:4]}-12-31"
    if coordinate == "Address.country":
        return "AT"
    guesses = [each.replace(at, f"7{at[1:]}") for each in (value if isinstance(value, list) else [value])]
    return guesses if isinstance(value, list) else guesses[0]
