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
