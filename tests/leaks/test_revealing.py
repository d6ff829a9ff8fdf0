"""The one exit that is meant to show a value whole: to whom it does, and that it shows the others nothing."""

import pytest

from tenants.access import Level
from tests.leaks.answers import Look
from tests.leaks.graph import SCHEMA
from tests.leaks.seeds import ANONYMOUS, Seeds
from tests.leaks.viewers import BUILT_IN, LEAVES, NOBODY, OWN_ROLES, Nearness, Viewer

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


EXPORT = 'mutation($i: ID!) { at: exportCustomer(id: $i, purpose: "access-request") { export { json } } }'
WHOLE = [coordinate for coordinate in LEAVES if coordinate.startswith(("Customer.", "Address.", "LegalHold."))]


async def exported(here: Seeds, viewer: Viewer, customer: str) -> tuple[str | None, bytes]:
    answer = await here.post(viewer, EXPORT, {"i": customer})
    export = ((answer.json().get("data") or {}).get("at") or {}).get("export")
    return export and export["json"], answer.content


def may_export(look: Look, customer: str) -> bool:
    near = look.near(customer, "Customer.id")
    is_plain = all(look.viewer.level(each, near) is Level.PLAIN for each in WHOLE)
    names_tags = look.viewer.level("Tag.name", Nearness.NONE) is Level.PLAIN
    return look.reaches(customer) and look.viewer.may("CUSTOMERS_EXPORT", near) and is_plain and names_tags


@pytest.mark.parametrize("name", [*BUILT_IN, *OWN_ROLES, NOBODY])
async def test_everything_of_a_customer_leaves_for_who_sees_all_of_it_alone(
    here: Seeds, there: Seeds, name: str
) -> None:
    look = Look(here.viewers[name], here.truth, there.truth)
    for customer in (here.customers.get(name, here.customers["a mate"]), here.customers["a stranger"]):
        document, raw = await exported(here, look.viewer, customer)
        assert (document is not None) == may_export(look, customer)
        assert look.canaries(raw) == []
        if document is not None:
            values = [core for (row, _), cores in here.truth.cores.items() if row == customer for core in cores]
            assert sum(core in document for core in values) >= len(WHOLE) - 4


async def test_nothing_leaves_of_another_tenants_customer_or_without_a_viewer(here: Seeds, there: Seeds) -> None:
    for viewer, customer in ((here.owner, there.customers["a mate"]), (ANONYMOUS, here.customers["a mate"])):
        document, raw = await exported(here, viewer, customer)
        assert document is None
        assert Look(viewer, here.truth, there.truth).canaries(raw) == []
