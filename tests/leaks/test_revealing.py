"""The one exit that is meant to show a value whole: to whom it does, and that it shows the others nothing."""

import pytest

from tenants.access import Level
from tests.leaks.answers import Look
from tests.leaks.graph import SCHEMA
from tests.leaks.seeds import ANONYMOUS, Seeds
from tests.leaks.viewers import BUILT_IN, LEAVES, NOBODY, OWN_ROLES, Viewer

FIELDS = [*SCHEMA.type_map["CustomerField"].values]  # type: ignore[attr-defined]  # an enum
COORDINATES = {name: f"Customer.{name}" for name in FIELDS} | {
    "addressLines": "Address.lines",
    **{name: f"Address.{name}" for name in ("city", "postalCode", "country")},
}
REVEAL = "mutation($i: ID!) {{ {} }}".format(
    " ".join(
        f'{name}: revealCustomerField(id: $i, field: {name}, purpose: "support-case") {{'
        " revealed { values field customerId } userErrors { code path message } }"
        for name in FIELDS
    )
)


def expected(look: Look, customer: str, name: str) -> list[str] | None:
    near, coordinate = look.near(customer, "Customer.id"), COORDINATES[name]
    may = look.reaches(customer) and look.viewer.may("CUSTOMERS_REVEAL", near)
    if not may or look.level(customer, coordinate) is Level.HIDDEN:
        return None
    value = look.truth.values[customer][coordinate]
    return value if isinstance(value, list) else [str(value)]


async def revealed(here: Seeds, viewer: Viewer, customer: str) -> tuple[dict[str, list[str] | None], bytes]:
    answer = await here.post(viewer, REVEAL, {"i": customer})
    data = answer.json()["data"]
    shown = {name: (data[name] or {}).get("revealed") for name in FIELDS}
    return {name: each["values"] if each else None for name, each in shown.items()}, answer.content


def test_every_field_that_can_be_revealed_has_a_level() -> None:
    assert set(COORDINATES.values()) <= set(LEAVES)


@pytest.mark.parametrize("name", [*BUILT_IN, *OWN_ROLES, NOBODY])
async def test_a_value_is_revealed_to_who_may_and_sees_its_mask(here: Seeds, there: Seeds, name: str) -> None:
    look = Look(here.viewers[name], here.truth, there.truth)
    for customer in (here.customers.get(name, here.customers["a mate"]), here.customers["a stranger"]):
        shown, raw = await revealed(here, look.viewer, customer)
        wanted = {field: expected(look, customer, field) for field in FIELDS}
        assert shown == wanted
        besides = {COORDINATES[field] for field in FIELDS if wanted[field] is None}
        assert [each for each in look.canaries(raw) if each.split()[0] in besides or customer not in each] == []


async def test_another_tenants_customer_and_no_viewer_reveal_nothing(here: Seeds, there: Seeds) -> None:
    for viewer, customer in ((here.owner, there.customers["a mate"]), (ANONYMOUS, here.customers["a mate"])):
        shown, raw = await revealed(here, viewer, customer)
        assert shown == dict.fromkeys(FIELDS)
        assert Look(viewer, here.truth, there.truth).canaries(raw) == []
