"""The audits of the `graphql-http` package, as its users run them against servers of their own."""

from typing import Any

from tests.clients.conftest import Served
from tests.clients.node_packages import Run

# Variables by POST and by GET, in each media type: these audits query `__type`, which is closed to the anonymous.
INTROSPECTING = {"2EA1", "28B9", "D6D5", "6A70"}


def failed(results: list[dict[str, Any]]) -> dict[str, str]:
    return {each["id"]: each["reason"] for each in results if each["status"] != "ok"}


async def test_a_member_finds_every_audit_passed(node: Run, production: Served, token: str) -> None:
    results = await node("audits.mjs", url=production.url, token=token)

    assert failed(results) == {}
    assert len(results) == 61


async def test_the_anonymous_are_refused_only_what_introspects(node: Run, production: Served) -> None:
    results = await node("audits.mjs", url=production.url)

    assert failed(results).keys() == INTROSPECTING
    assert len(results) == 61
