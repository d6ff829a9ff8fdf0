"""Who may look by what finds whom they reach; all others get the same bytes whether or not somebody has the value."""

import base64
from typing import Any

import httpx
import pytest

from api.directives import Personal, Searches
from api.labels import rule_of
from tests.leaks import finding, graph
from tests.leaks.answers import Look
from tests.leaks.finding import FOUND, LISTED, RIGHTS, Probe
from tests.leaks.seeds import ANONYMOUS, Seeds
from tests.leaks.viewers import BUILT_IN, NOBODY, OWN_ROLES, Viewer

EVERYBODY = [*BUILT_IN, *OWN_ROLES, NOBODY]
SEARCHES = sorted(at for at, rule in graph.labelled().items() if isinstance(rule, Searches))
SORTED = """query($f: CustomerSortField!, $d: SortDirection!) {{
    customers(first: 30, sort: {{ field: $f, direction: $d }}) {{ nodes {{ at: {} id }} }} }}"""
FILTERS = [at for at in SEARCHES if at.startswith("CustomerFilter.")]


@pytest.fixture(scope="module")
async def filters(work: Seeds) -> dict[str, Probe]:
    return await finding.filters(work, work.viewers["levels without reading"])


async def probed(work: Seeds, viewer: Viewer, document: str, probe: Probe) -> tuple[httpx.Response, httpx.Response]:
    return await work.post(viewer, document, dict(probe.hits)), await work.post(viewer, document, dict(probe.misses))


def ids(answer: httpx.Response) -> Any:
    """Of those found; or the code of the refusal."""
    body = answer.json()
    if "errors" in body:
        return body["errors"][0]["extensions"]["code"]
    (page,) = body["data"].values()
    return [each["id"] for each in page["nodes"]]


def same(one: httpx.Response, two: httpx.Response) -> bool:
    return (one.status_code, one.content) == (two.status_code, two.content)


def test_every_search_of_the_sdl_is_tried() -> None:
    assert set(SEARCHES) == {*RIGHTS, *FILTERS}


@pytest.mark.parametrize("coordinate", RIGHTS)
@pytest.mark.parametrize("name", EVERYBODY)
async def test_a_search_finds_whom_one_may_find_and_tells_of_nobody_else(
    work: Seeds, there: Seeds, name: str, coordinate: str
) -> None:
    look = Look(work.viewers[name], work.truth, there.truth)
    for whose in (name, "a mate", "a stranger"):
        if whose in work.customers:
            probe = finding.search(work, coordinate, work.customers[whose])
            near = look.near(probe.customer, "Customer.id")
            hit, miss = await probed(work, look.viewer, FOUND, probe)
            if look.reaches(probe.customer) and look.viewer.may_search(RIGHTS[coordinate], near):
                assert (ids(hit), ids(miss)) == ([probe.customer], [])
            else:
                may = look.viewer.may_search(RIGHTS[coordinate]) and look.viewer.may("CUSTOMERS_READ")
                assert same(hit, miss)
                assert ids(hit) == ([] if may else "FORBIDDEN")


@pytest.mark.parametrize("coordinate", FILTERS)
async def test_a_filter_tells_of_no_customer_out_of_reach(
    work: Seeds, there: Seeds, filters: dict[str, Probe], coordinate: str
) -> None:
    probe = filters[coordinate]
    for name in EVERYBODY:
        look = Look(work.viewers[name], work.truth, there.truth)
        hit, miss = await probed(work, look.viewer, LISTED, probe)
        if look.reaches(probe.customer):
            assert (ids(hit), ids(miss)) == ([probe.customer], [])
        else:
            assert same(hit, miss)
            assert ids(hit) == ([] if look.viewer.may("CUSTOMERS_READ") else "FORBIDDEN")


@pytest.mark.parametrize("coordinate", SEARCHES)
async def test_without_a_credential_every_search_answers_the_same(
    work: Seeds, filters: dict[str, Probe], coordinate: str
) -> None:
    is_filter = coordinate in FILTERS
    probe = filters[coordinate] if is_filter else finding.search(work, coordinate, work.customers["a mate"])
    hit, miss = await probed(work, ANONYMOUS, LISTED if is_filter else FOUND, probe)
    assert same(hit, miss)
    assert ids(hit) == "UNAUTHENTICATED"


@pytest.mark.parametrize("coordinate", SEARCHES)
async def test_nobody_of_another_tenant_is_found(
    work: Seeds, there: Seeds, filters: dict[str, Probe], coordinate: str
) -> None:
    is_filter = coordinate in FILTERS
    probe = filters[coordinate] if is_filter else finding.search(work, coordinate, work.customers["a mate"])
    answer = await there.post(there.owner, LISTED if is_filter else FOUND, dict(probe.hits))
    assert probe.customer not in ids(answer)


@pytest.mark.parametrize("field", graph.SCHEMA.type_map["CustomerSortField"].values)  # type: ignore[attr-defined]  # an enum
async def test_every_order_is_that_of_a_clear_field(here: Seeds, field: str) -> None:
    first, *rest = field.lower().split("_")
    name = first + "".join(map(str.capitalize, rest))
    assert not isinstance(rule_of(graph.object_type("Customer").fields[name]), Personal)
    for direction in ("ASC", "DESC"):
        for viewer in here.viewers.values():
            answer = await here.post(viewer, SORTED.format(name), {"f": field, "d": direction})
            nodes = (answer.json()["data"]["customers"] or {}).get("nodes", [])
            keys = [(each["at"], base64.urlsafe_b64decode(each["id"] + "==")) for each in nodes]
            assert keys == sorted(keys, reverse=direction == "DESC")


CURSORS = "{{ at: {}(first: 20) {{ edges {{ cursor }} pageInfo {{ startCursor endCursor }} }} }}"
PAGED = [name for name, field in graph.roots("Query").items() if name.endswith("s") and "first" in field.args]


@pytest.mark.parametrize("name", sorted({*PAGED} - {"findCustomers", "importRows"}))
async def test_a_cursor_holds_a_version_a_key_an_id_and_a_mac(here: Seeds, there: Seeds, name: str) -> None:
    page = (await here.data(CURSORS.format(name)))["at"]
    cursors = {each["cursor"] for each in page["edges"]} | {
        page["pageInfo"]["startCursor"],
        page["pageInfo"]["endCursor"],
    }
    raw = [base64.urlsafe_b64decode(each + "=" * (-len(each) % 4)) for each in cursors]
    assert {len(each) for each in raw} == {2 + 8 + 16 + 16}
    assert Look(ANONYMOUS, here.truth, there.truth).canaries(b"\n".join(raw)) == []
