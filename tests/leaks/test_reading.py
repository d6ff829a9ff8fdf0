"""Every way from Query to an object, by everybody, in every spelling: 0 leaks, and no way or leaf left out."""

from dataclasses import replace

import pytest

from tenants.access import Role
from tests.leaks import graph, readings
from tests.leaks.answers import Look, Seen
from tests.leaks.documents import Spelling, documents
from tests.leaks.seeds import ANONYMOUS, Seeds
from tests.leaks.viewers import BUILT_IN, LEAVES, NOBODY, OWN_ROLES, Viewer

EVERYBODY = [*BUILT_IN, *OWN_ROLES, NOBODY]
_BUDGET = "UPDATE tenants SET disclosure_budget = $2 WHERE id = $1"
# Ways that lead nowhere in the seeds, and why.
EMPTY = {"AuditVerdict.firstBad": "the chain is whole"}


async def asked(here: Seeds, there: Seeds, viewer: Viewer, spelling: Spelling) -> tuple[Look, list[str]]:
    look, problems = Look(viewer, here.truth, there.truth), list[str]()
    for document in documents("Query", readings.calls(here, there, viewer), spelling):
        answer = await here.post(viewer, str(document), document.variables())
        problems += look.problems(document, answer.content, answer.json())
    return look, problems


def test_every_personal_leaf_has_a_line_in_the_table() -> None:
    assert graph.all_personal() == set(LEAVES)


def test_every_query_is_known_to_these_tests() -> None:
    assert readings.unknown() == set()


def test_every_field_can_be_asked_for() -> None:
    assert graph.unanswerable() == []


@pytest.mark.parametrize("spelling", Spelling)
@pytest.mark.parametrize("name", EVERYBODY)
async def test_nobody_reads_more_than_was_granted(here: Seeds, there: Seeds, name: str, spelling: Spelling) -> None:
    look, problems = await asked(here, there, here.viewers[name], spelling)
    assert problems == []
    assert look.seen.customers == {each for each in here.customers.values() if look.reaches(each)}


@pytest.mark.parametrize("spelling", Spelling)
async def test_without_a_credential_nothing_is_read(here: Seeds, there: Seeds, spelling: Spelling) -> None:
    look, problems = await asked(here, there, ANONYMOUS, spelling)
    assert (problems, look.seen.customers) == ([], set())


@pytest.mark.parametrize("spelling", Spelling)
async def test_over_the_budget_nothing_is_plain(here: Seeds, there: Seeds, spelling: Spelling) -> None:
    manager = there.viewers[Role.MANAGER]
    await there.superuser(_BUDGET, 1)
    try:
        await there.data("{ customers(first: 5) { nodes { givenName } } }", manager)  # and with that it is spent
        look, problems = await asked(there, here, replace(manager, is_capped=True), spelling)
    finally:
        await there.superuser(_BUDGET, None)
    assert problems == []
    assert look.seen.customers == set(there.customers.values())


async def test_every_way_is_walked_and_every_personal_leaf_is_seen(here: Seeds, there: Seeds) -> None:
    below, seen = graph.reachable("Query"), Seen()
    for name in (Role.OWNER, "masked, own plain"):  # who see everything, without and with roles of the tenant's own
        seen += (await asked(here, there, here.viewers[name], Spelling.PLAIN))[0].seen
    assert seen.asked == below - {f"AuditBreak.{name}" for name in graph.leaves("AuditBreak")}
    assert seen.filled & graph.all_personal() == below & graph.all_personal() == set(LEAVES)
    assert graph.leading(below) - seen.filled == set(EMPTY)
