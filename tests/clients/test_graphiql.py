"""GraphiQL in a real browser: what `coffer demo` shows a newcomer works, and asks nobody else for anything."""

from typing import Any

import orjson
import pytest

from tests.clients.conftest import Served
from tests.clients.node_packages import Run

QUERY = "{ me { email tenant { slug } } }"


@pytest.fixture(scope="module")
async def visit(node: Run, browser: dict[str, str], development: Served, token: str) -> Any:
    return await node("graphiql.mjs", origin=development.origin, token=token, query=QUERY, **browser)


def test_a_query_typed_into_graphiql_answers_the_member_of_the_token(visit: Any, development: Served) -> None:
    me = {"email": development.email, "tenant": {"slug": development.tenant}}

    assert visit["status"] == 200
    assert orjson.loads(visit["shown"])["data"] == {"me": me}


def test_the_page_reads_the_schema_without_a_token(visit: Any) -> None:
    assert visit["introspected"]


def test_the_page_asks_no_other_host_for_anything(visit: Any, development: Served) -> None:
    asked = [each for each in visit["requests"] if not each.startswith("data:")]

    assert f"{development.origin}/graphiql/graphiql.min.js" in asked
    assert [each for each in asked if not each.startswith(f"{development.origin}/")] == []


def test_the_browser_has_nothing_to_complain_of(visit: Any) -> None:
    assert visit["complaints"] == []
