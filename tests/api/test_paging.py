"""Pages of a list meet without a gap or an overlap, both ways, in every order; sizes are held to 1..100."""

from typing import Any

import pytest

from tests.house import House

MANY = 45
LIST = """query($sort: CustomerSort, $first: Int, $after: String, $last: Int, $before: String) {
  at: customers(filter: { source: "paging" }, sort: $sort, first: $first, after: $after, last: $last, before: $before) {
    totalCount nodes { id } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }"""
FIND = """query($first: Int, $after: String, $last: Int, $before: String) {
  at: findCustomers(by: { namePrefix: "pagingt" }, first: $first, after: $after, last: $last, before: $before) {
    totalCount nodes { id } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }"""
SORTS = [{"field": field, "direction": way} for field in ("CREATED_AT", "UPDATED_AT") for way in ("ASC", "DESC")]


@pytest.fixture(scope="module")
async def many(house: House) -> set[str]:
    """Made in three batches, each of one instant, so that ties are broken by id; every seventh was changed since."""
    made: list[str] = []
    for batch in range(3):
        rows = [
            {"familyName": f"Pagington {batch * 15 + n}", "givenName": f"Pip{n}", "source": "paging"} for n in range(15)
        ]
        answer = await house.data(
            "mutation($i: [CustomerInput!]!) { createCustomers(input: $i) { created outcomes { customer { id } } } }",
            {"i": rows},
        )
        made += [outcome["customer"]["id"] for outcome in answer["createCustomers"]["outcomes"]]
    for each in made[::7]:
        await house.data(
            "mutation($id: ID!) { updateCustomer(id: $id, version: 1, input: { stage: LEAD }) { customer { id } } }",
            {"id": each},
        )
    return set(made)


async def walked(house: House, document: str, size: int, *, forward: bool, **more: Any) -> list[list[str]]:
    pages: list[list[str]] = []
    edge = None
    while True:
        end = {"first": size, "after": edge} if forward else {"last": size, "before": edge}
        at = (await house.data(document, {**more, **end}))["at"]
        pages.append([node["id"] for node in at["nodes"]])
        info = at["pageInfo"]
        edge = info["endCursor" if forward else "startCursor"]
        assert info["hasPreviousPage" if forward else "hasNextPage"] is (len(pages) > 1)
        if not info["hasNextPage" if forward else "hasPreviousPage"]:
            return pages


@pytest.mark.parametrize("sort", SORTS, ids=lambda sort: " ".join(sort.values()))
@pytest.mark.parametrize("size", [7, 15, 45])
async def test_forward_and_backward_visit_each_customer_once_in_one_order(
    house: House, many: set[str], sort: dict[str, str], size: int
) -> None:
    forward = await walked(house, LIST, size, forward=True, sort=sort)
    backward = await walked(house, LIST, size, forward=False, sort=sort)
    order = [each for page in forward for each in page]
    assert len(order) == MANY
    assert set(order) == many
    assert [each for page in reversed(backward) for each in page] == order
    assert {len(page) for page in forward[:-1]} <= {size}


@pytest.mark.parametrize("field", ["CREATED_AT", "UPDATED_AT"])
async def test_descending_is_ascending_turned_round(house: House, many: set[str], field: str) -> None:
    up, down = [
        (await house.data(LIST, {"first": 100, "sort": {"field": field, "direction": way}}))["at"]["nodes"]
        for way in ("ASC", "DESC")
    ]
    assert len(up) == len(many)
    assert up == down[::-1]


@pytest.mark.parametrize("size", [7, 44, 45])
async def test_a_search_by_name_is_paged_alike(house: House, many: set[str], size: int) -> None:
    forward = await walked(house, FIND, size, forward=True)
    backward = await walked(house, FIND, size, forward=False)
    order = [each for page in forward for each in page]
    assert (len(order), set(order)) == (MANY, many)
    assert [each for page in reversed(backward) for each in page] == order


async def test_a_page_is_of_twenty_unless_told(house: House, many: set[str]) -> None:
    assert len((await house.data(LIST))["at"]["nodes"]) == 20


@pytest.mark.parametrize("document", [LIST, FIND], ids=["customers", "findCustomers"])
@pytest.mark.parametrize(
    "sizes",
    [{"first": 0}, {"first": 101}, {"first": -1}, {"last": 0}, {"last": 101}, {"first": 3, "last": 3}],
    ids=str,
)
async def test_a_size_out_of_bounds_is_refused(house: House, document: str, sizes: dict[str, int]) -> None:
    answer = await house.ask(document, sizes)
    assert answer["data"]["at"] is None
    (error,) = answer["errors"]
    assert error["extensions"]["code"] == "BAD_USER_INPUT"


@pytest.mark.parametrize("sizes", [{"first": 1}, {"first": 100}, {"last": 1}, {"last": 100}], ids=str)
async def test_a_size_at_its_bounds_is_taken(house: House, many: set[str], sizes: dict[str, int]) -> None:
    at = (await house.data(LIST, sizes))["at"]
    assert len(at["nodes"]) == min(MANY, *sizes.values())


async def test_both_cursors_bound_a_page(house: House, many: set[str]) -> None:
    head = (await house.data(LIST, {"first": 10}))["at"]
    tail = (await house.data(LIST, {"last": 10}))["at"]
    ends = {"after": head["pageInfo"]["endCursor"], "before": tail["pageInfo"]["startCursor"]}
    between = (await house.data(LIST, {"first": 100, **ends}))["at"]
    assert {node["id"] for node in between["nodes"]} == many - {
        node["id"] for page in (head, tail) for node in page["nodes"]
    }


async def test_a_list_counts_all_of_it_and_a_search_does_not(house: House, many: set[str]) -> None:
    assert (await house.data(LIST, {"first": 1}))["at"]["totalCount"] == MANY
    assert (await house.data(FIND, {"first": 1}))["at"]["totalCount"] is None
