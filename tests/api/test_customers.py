"""Customers through the whole house: HTTP, guard, domain, sealing, Postgres, OpenBao."""

import pytest

from tests.house import House

FOUND = "query($by: CustomerSearch!) { findCustomers(by: $by) { nodes { id } } }"


@pytest.mark.parametrize(
    "by",
    [
        {"email": "ADA@example.org"},
        {"phone": "(202) 224-3441"},
        {"namePrefix": "lovel"},
        {"externalId": "L-1"},
        {"governmentId": "1234567"},
    ],
    ids=lambda by: next(iter(by)),
)
async def test_a_customer_is_found_by_each_indexed_value(house: House, by: dict[str, str]) -> None:
    known = await house.data(FOUND, {"by": {"externalId": "L-1"}})
    if not known["findCustomers"]["nodes"]:
        await house.create(
            givenName="Ada",
            familyName="Lovelace",
            emails=["ada@example.org"],
            phones=["202-224-3441"],
            governmentId="12-34567",
            externalId="L-1",
        )
    found = await house.data(FOUND, {"by": by})
    assert len(found["findCustomers"]["nodes"]) == 1
