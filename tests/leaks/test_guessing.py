"""Writing is no way of asking: a guess that is right answers as one that is wrong, and only the mask is refused."""

from typing import Any

import pytest

from api.directives import Writes
from tenants.access import Level
from tests.leaks import graph, guesses
from tests.leaks.answers import Look
from tests.leaks.guesses import CLEAR, PERMISSIONS, WRITTEN
from tests.leaks.seeds import ANONYMOUS, Seeds
from tests.leaks.viewers import BUILT_IN, NOBODY, OWN_ROLES, is_kept, shown

EVERYBODY = [*BUILT_IN, *OWN_ROLES, NOBODY]
WRITES = {at for at, rule in graph.labelled().items() if isinstance(rule, Writes)}
GIVEN = [*WRITTEN, *CLEAR]
GUESSERS = ["masked, own plain", "AGENT", "INTEGRATION"]  # who may write what they do not see
STALE = 999
_SAVE = """mutation($id: ID!, $i: CustomerInput!) { updateCustomer(id: $id, version: 1, input: $i) {
    userErrors { code path message } } }"""
_LOGGED = """query($id: ID!) { auditEntries(filter: { subject: $id, action: "customer.updated" }) {
    nodes { fields outcome details { name value } } } }"""
_READ = """query($id: ID!) { customer(id: $id) { version givenName familyName displayName emails phones birthDate
    governmentId note externalId address { lines city postalCode country } } }"""
_TAG = "mutation($n: String!) { createTag(name: $n) { tag { name } userErrors { code path message } } }"


def told(answer: dict[str, Any]) -> list[str | None]:
    """Of each root field, in order, the first code: of an error, or of a user error."""
    errors = {each["path"][0]: each["extensions"]["code"] for each in answer.get("errors", [])}
    payloads = answer["data"].items()
    return [errors.get(name) or next((e["code"] for e in each["userErrors"]), None) for name, each in payloads]


def inputs(values: dict[str, Any], *, is_right: bool) -> list[dict[str, Any]]:
    """One for each field that can be given: as it is in `values`, or otherwise."""
    personal = {at: values[written] if is_right else guesses.wrong(values, written) for at, written in WRITTEN.items()}
    return [guesses.sent(at, value) for at, value in (personal | dict(CLEAR)).items()]


def test_every_write_of_the_sdl_is_tried() -> None:
    assert {*WRITTEN, *PERMISSIONS} == WRITES


@pytest.mark.parametrize("name", EVERYBODY)
async def test_only_who_may_write_a_field_gives_it_whatever_its_value(work: Seeds, there: Seeds, name: str) -> None:
    look = Look(work.viewers[name], work.truth, there.truth)
    for whose in {name, "a mate", "a stranger"} & work.customers.keys():
        customer = work.customers[whose]
        near, reached = look.near(customer, "Customer.id"), look.reaches(customer)
        refused = [guesses.refusal(look.viewer, at, near, is_reached=reached) or "STALE_VERSION" for at in GIVEN]
        answers = []
        for is_right in (True, False):
            document, given = guesses.saving(inputs(work.truth.values[customer], is_right=is_right), STALE)
            answers.append(await work.post(look.viewer, document, {"id": customer, **given}))
        assert told(answers[0].json()) == refused
        assert answers[0].content == answers[1].content


@pytest.mark.parametrize("name", EVERYBODY)
async def test_a_new_customer_tells_of_no_other(work: Seeds, there: Seeds, name: str) -> None:
    look = Look(work.viewers[name], work.truth, there.truth)
    near = look.near("", "Tag.name") if not look.viewer.may("CUSTOMERS_WRITE") else look.viewer.near(look.viewer.member)
    values = work.truth.values[await work.customer(work.viewers["levels without reading"])]
    for is_right in (True, False):
        document, given = guesses.making(inputs(values, is_right=is_right))
        answer = await work.post(look.viewer, document, given)
        wanted = [guesses.refusal(look.viewer, at, near, is_reached=True) for at in GIVEN]
        taken = {"CustomerInput.externalId": "EXTERNAL_ID_TAKEN"} if is_right else {}
        empty = dict.fromkeys(CLEAR, "REQUIRED")
        assert told(answer.json()) == [
            refused or (taken | empty).get(at) for at, refused in zip(GIVEN, wanted, strict=True)
        ]
        assert look.canaries(answer.content) == []


def unseen(look: Look, customer: str) -> list[str]:
    """The input fields that the viewer may give of it, and sees less than plain."""
    near = look.near(customer, "Customer.id")
    given = [at for at in WRITTEN if guesses.refusal(look.viewer, at, near, is_reached=True) is None]
    return [at for at in given if look.level(customer, WRITTEN[at]) is not Level.PLAIN and not is_kept(WRITTEN[at])]


@pytest.mark.parametrize("name", GUESSERS)
async def test_a_guess_that_is_right_answers_as_one_that_is_wrong(work: Seeds, there: Seeds, name: str) -> None:
    look, owner = Look(work.viewers[name], work.truth, there.truth), work.viewers["levels without reading"]
    fields = unseen(look, await work.customer(owner))
    assert fields
    for at in fields:
        said = []
        for is_right in (True, False):
            customer = await work.customer(owner)
            values, written = work.truth.values[customer], WRITTEN[at]
            guess = guesses.sent(at, values[written] if is_right else guesses.wrong(values, written))
            answer = await work.post(look.viewer, _SAVE, {"id": customer, "i": guess})
            assert told(answer.json()) == [None]
            said.append((answer.content, await work.data(_LOGGED, id=customer)))
        assert said[0] == said[1], at


@pytest.mark.parametrize("name", GUESSERS)
async def test_the_mask_of_the_value_is_refused_and_changes_nothing(work: Seeds, there: Seeds, name: str) -> None:
    look, customer = Look(work.viewers[name], work.truth, there.truth), work.customers["a stranger"]
    before = await work.data(_READ, id=customer)
    seen = {
        at: shown(WRITTEN[at], look.level(customer, WRITTEN[at]), work.truth.values[customer][WRITTEN[at]])
        for at in unseen(look, customer)
    }
    for at, value in seen.items():
        given = {"id": customer, "i": guesses.sent(at, value)}
        answer = await work.post(
            look.viewer, _SAVE.replace("version: 1", f"version: {before['customer']['version']}"), given
        )
        assert told(answer.json()) == ["MASKED_INPUT"], at
    assert await work.data(_READ, id=customer) == before


async def test_a_name_of_a_tag_is_told_to_nobody_who_does_not_see_it(work: Seeds, there: Seeds) -> None:
    taken = work.truth.values[work.tag]["Tag.name"]
    for name in EVERYBODY:
        look = Look(work.viewers[name], work.truth, there.truth)
        answer = await work.post(look.viewer, _TAG, {"n": taken})
        if look.level(work.tag, "Tag.name") is Level.PLAIN and look.viewer.may("TAGS_MANAGE"):
            assert told(answer.json()) == ["TAKEN"]
        else:
            assert told(answer.json()) == ["FORBIDDEN"]


async def test_without_a_credential_nothing_is_written(work: Seeds) -> None:
    values = work.truth.values[work.customers["a mate"]]
    document, given = guesses.saving(inputs(values, is_right=True), STALE)
    answer = await work.post(ANONYMOUS, document, {"id": work.customers["a mate"], **given})
    assert told(answer.json()) == ["UNAUTHENTICATED"] * len(GIVEN)
