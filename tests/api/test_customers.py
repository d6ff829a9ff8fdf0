"""Customers through the whole house: HTTP, guard, domain, sealing, Postgres, OpenBao."""

import pytest

from tests.house import House

FOUND = "query($by: CustomerSearch!) { findCustomers(by: $by) { nodes { id } } }"


@pytest.mark.parametrize(
    "by",
    [
        {"email": "QUUX@example.org"},
        {"phone": "(202) 224-3999"},
        {"namePrefix": "quuxl"},
        {"externalId": "Quux-1"},
        {"governmentId": "QX9917"},
    ],
    ids=lambda by: next(iter(by)),
)
async def test_a_customer_is_found_by_each_indexed_value(house: House, by: dict[str, str]) -> None:
    known = await house.data(FOUND, {"by": {"externalId": "Quux-1"}})
    if not known["findCustomers"]["nodes"]:
        await house.create(
            givenName="Zyx",
            familyName="Quuxley",
            emails=["quux@example.org"],
            phones=["202-224-3999"],
            governmentId="QX 99-17",
            externalId="Quux-1",
        )
    found = await house.data(FOUND, {"by": by})
    assert len(found["findCustomers"]["nodes"]) == 1


FILTERED = "query($f: CustomerFilter!) { customers(filter: $f) { nodes { id } } }"


@pytest.mark.parametrize("where", [{"language": "GSW_ch"}, {"region": " ch-zh"}], ids=lambda where: next(iter(where)))
async def test_a_filter_is_read_as_the_stored_value_was(house: House, where: dict[str, str]) -> None:
    made = await house.create(givenName="Zilla", language="gsw-CH", region="CH-ZH")
    other = await house.create(givenName="Zilla", language="fr-CH", region="CH-GE")
    found = {node["id"] for node in (await house.data(FILTERED, {"f": where}))["customers"]["nodes"]}
    assert (made["id"] in found, other["id"] in found) == (True, False)


@pytest.mark.parametrize("where", [{"language": "klingonese-language"}, {"region": "Elsewhere"}], ids=str)
async def test_a_filter_that_no_stored_value_can_equal_is_refused(house: House, where: dict[str, str]) -> None:
    (error,) = (await house.ask(FILTERED, {"f": where}))["errors"]
    assert error["extensions"]["code"] == "BAD_USER_INPUT"
