"""What mutations answer with, to everybody who may run them and everybody who may not: 0 leaks."""

import pytest

from tenants.access import Role
from tests.leaks import changes, graph
from tests.leaks.answers import Look, Seen
from tests.leaks.changes import CHANGES
from tests.leaks.documents import Call, Spelling, documents
from tests.leaks.seeds import ANONYMOUS, Seeds
from tests.leaks.viewers import BUILT_IN, NOBODY, OWN_ROLES, Viewer

EVERYBODY = [*BUILT_IN, *OWN_ROLES, NOBODY]
# Ways that lead nowhere in these answers, and why.
EMPTY = {
    "Offboarding.approvedBy": "one who asked can't approve, and a tenant that is frozen is none to test in",
    "HandOverPayload.job": "few are handed over at once",
}


async def changed(work: Seeds, there: Seeds, viewer: Viewer, name: str) -> tuple[Look, list[str]]:
    look, problems = Look(viewer, work.truth, there.truth), list[str]()
    (kind,) = graph.kinds_of(graph.roots("Mutation")[name])
    for make in CHANGES[name]:
        change = await make(work, viewer)
        (document,) = documents("Mutation", [Call(name, change.arguments, kind)], Spelling.PLAIN)
        answer = await work.post(viewer, str(document), document.variables())
        if payload := (answer.json().get("data") or {}).get("r0"):
            change.settle(payload)
        problems += look.problems(document, answer.content, answer.json())
    return look, problems


def test_every_mutation_is_known_to_these_tests() -> None:
    assert changes.unknown() == set()


@pytest.mark.parametrize("name", [name for name, field in graph.roots("Mutation").items() if graph.carries(field)])
def test_a_mutation_with_personal_leaves_is_run(name: str) -> None:
    assert name in CHANGES


@pytest.mark.parametrize("name", EVERYBODY)
async def test_no_payload_shows_more_than_was_granted(work: Seeds, there: Seeds, name: str) -> None:
    problems = [each for mutation in CHANGES for each in (await changed(work, there, work.viewers[name], mutation))[1]]
    assert problems == []


async def test_every_way_is_walked_and_every_personal_leaf_is_seen(work: Seeds, there: Seeds) -> None:
    seen = Seen()
    for name in CHANGES:
        for viewer in (Role.OWNER, "masked, own plain"):  # who see everything, and one has roles of the tenant's own
            seen += (await changed(work, there, work.viewers[viewer], name))[0].seen
    below = graph.below(CHANGES, "Mutation")
    assert seen.asked == below
    assert seen.filled & graph.all_personal() == below & graph.all_personal()
    empty = {each for each in graph.leading(below) - seen.filled if not each.endswith(".userErrors")}
    assert empty == set(EMPTY)


async def test_without_a_credential_nothing_changes_and_nothing_is_told(work: Seeds, there: Seeds) -> None:
    for name in CHANGES:
        for make in CHANGES[name]:
            change = await make(work, work.owner)
            (kind,) = graph.kinds_of(graph.roots("Mutation")[name])
            (document,) = documents("Mutation", [Call(name, change.arguments, kind)], Spelling.PLAIN)
            answer = (await work.post(ANONYMOUS, str(document), document.variables())).json()
            assert answer["data"] == {"r0": None}, name
            assert [each["extensions"]["code"] for each in answer["errors"]] == ["UNAUTHENTICATED"], name
