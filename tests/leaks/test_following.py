"""Every subscription, followed by everybody over the WebSocket: 0 leaks, and nothing of what is out of reach."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import orjson
import pytest

from tenants.access import Role
from tests.api.test_subscriptions import hearing
from tests.api.test_websocket import Client, Stage, serving, until
from tests.house import House
from tests.leaks import graph
from tests.leaks.answers import Look, Seen
from tests.leaks.documents import Call, Document, Spelling, documents
from tests.leaks.seeds import ANONYMOUS, Seeds
from tests.leaks.viewers import BUILT_IN, NOBODY, OWN_ROLES, Viewer

EVERYBODY = [*BUILT_IN, *OWN_ROLES, NOBODY]
_MOVE = "mutation($i: ID!) {{ {}(id: $i) {{ userErrors {{ code }} }} }}"
SUBSCRIPTIONS = {"customerChanged", "jobProgress"}


@pytest.fixture(scope="module")
async def stage(house: House) -> AsyncIterator[Stage]:
    async with serving() as made:
        made.app = house.api.app
        yield made


@asynccontextmanager
async def connected(stage: Stage, seeds: Seeds, viewer: Viewer) -> AsyncIterator[Client]:
    token = viewer.credential and await seeds.house.token(viewer.credential)
    async with stage.acknowledged({"authorization": f"Bearer {token}"} if token else None) as client:
        yield client


async def asked(client: Client, name: str, spelling: Spelling, **arguments: Any) -> Document:
    (kind,) = graph.kinds_of(graph.roots("Subscription")[name])
    (document,) = documents("Subscription", [Call(name, arguments, kind)], spelling)
    await client.subscribe({"query": str(document), "variables": document.variables()})
    return document


async def heard(client: Client, look: Look, document: Document) -> tuple[dict[str, Any], list[str]]:
    """The next message, and what is wrong with it."""
    async with asyncio.timeout(10):
        raw = await client.connection.recv()
    raw = raw if isinstance(raw, bytes) else raw.encode()
    message = orjson.loads(raw)
    payload = message.get("payload") or {}
    answer = {"errors": payload} if isinstance(payload, list) else payload
    return message, list(look.problems(document, raw, answer))


async def moved(work: Seeds) -> list[str]:
    """Archive every customer, then restore every one; the ids in the order of the events.

    What should not be sent of the first round would come before the second.
    """
    for act in ("archiveCustomer", "restoreCustomer"):
        for customer in work.customers.values():
            await work.data(_MOVE.format(act), i=customer)
    return [*work.customers.values()] * 2


def shown(message: dict[str, Any]) -> Any:
    payload = message["payload"]
    return None if isinstance(payload, list) else (payload.get("data") or {}).get("r0")


def test_every_subscription_is_known_to_these_tests() -> None:
    assert graph.roots("Subscription").keys() == SUBSCRIPTIONS


async def test_a_change_shows_nobody_more_than_was_granted(stage: Stage, work: Seeds, there: Seeds) -> None:
    names, seen = [name for name in EVERYBODY if name != NOBODY], Seen()
    looks = {name: Look(work.viewers[name], work.truth, there.truth) for name in names}
    async with AsyncExitStack() as stack:
        before = len(hearing(work.house))
        clients = {name: await stack.enter_async_context(connected(stage, work, work.viewers[name])) for name in names}
        spelled = {name: list(Spelling)[n % len(Spelling)] for n, name in enumerate(names)}
        asking = {name: await asked(client, "customerChanged", spelled[name]) for name, client in clients.items()}
        await until(lambda: len(hearing(work.house)) == before + len(names))
        changes = await moved(work)
        for name, client in clients.items():
            reached = [customer for customer in changes if looks[name].reaches(customer)]
            told = [await heard(client, looks[name], asking[name]) for _ in reached]
            assert [problem for _, problems in told for problem in problems] == []
            assert [(shown(message)["customer"] or {}).get("id") for message, _ in told] == reached
            seen += looks[name].seen
    below = graph.below(["customerChanged"], "Subscription")
    assert seen.asked == below
    assert seen.filled & graph.all_personal() == below & graph.all_personal()
    assert graph.leading(below) == graph.leading(below) & seen.filled


@pytest.mark.parametrize("name", [NOBODY, "nobody"])
async def test_who_may_not_read_hears_of_no_change(stage: Stage, work: Seeds, there: Seeds, name: str) -> None:
    viewer = work.viewers.get(name, ANONYMOUS)
    async with connected(stage, work, viewer) as client:
        document = await asked(client, "customerChanged", Spelling.PLAIN)
        message, problems = await heard(client, Look(viewer, work.truth, there.truth), document)
    assert problems == []
    assert shown(message) is None


@pytest.mark.parametrize("name", [*EVERYBODY, "nobody"])
async def test_a_job_shows_nobody_more_than_was_granted(stage: Stage, work: Seeds, there: Seeds, name: str) -> None:
    look = Look(work.viewers.get(name, ANONYMOUS), work.truth, there.truth)
    for job in (work.job, there.job):
        async with connected(stage, work, look.viewer) as client:
            document = await asked(client, "jobProgress", Spelling.PLAIN, id=job)
            message, problems = await heard(client, look, document)
        assert problems == []
        assert (shown(message) is not None) == (
            job == work.job and (name == Role.OWNER or look.viewer.may("JOBS_READ"))
        )
