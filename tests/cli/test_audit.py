"""`coffer audit`, run as its users run it."""

import json
from pathlib import Path

import pytest

from tests.cli.test_cli import coffer, environment  # noqa: F401  # a fixture
from tests.house import House
from tests.tenants.chained import Chained, act, chained, fetch

pytestmark = pytest.mark.usefixtures("environment")


@pytest.fixture
async def mine(house: House, tmp_path: Path) -> Chained:
    made = await chained(house, tmp_path)
    await made.enter(3)
    await made.link()
    await made.chains.checkpoints.make(made.tenant)
    return made


async def _slug(mine: Chained) -> str:
    return str((await fetch(mine.house, "SELECT slug FROM tenants WHERE id = $1", mine.tenant))[0]["slug"])


@pytest.fixture
def set_up(environment: dict[str, str], mine: Chained) -> dict[str, str]:  # noqa: F811
    return {**environment, "COFFER_AUDIT_STORE": f"file://{mine.folder}/second"}


async def test_an_intact_chain_is_told_with_what_was_checked(mine: Chained, set_up: dict[str, str]) -> None:
    done = await coffer("audit", "verify", await _slug(mine), environment=set_up)

    assert done.returncode == 0, done.stderr
    assert "3 entries fit; 1 checkpoints, 1 copies." in done.stdout
    assert "intact" in done.stdout


async def test_a_break_is_named_and_fails_the_command(mine: Chained, set_up: dict[str, str]) -> None:
    await act(mine.house, "DELETE FROM audit_links WHERE tenant_id = $1 AND seq = 2", mine.tenant)
    done = await coffer("audit", "verify", await _slug(mine), environment=set_up)

    assert done.returncode == 1
    assert "BROKEN at seq 2" in done.stdout
    assert "GAP" in done.stdout


async def test_an_export_is_one_entry_a_line_in_the_order_of_the_chain(mine: Chained, set_up: dict[str, str]) -> None:
    slug = await _slug(mine)
    done = await coffer("audit", "export", slug, environment=set_up)
    lines = [json.loads(line) for line in done.stdout.splitlines()]

    assert [line["seq"] for line in lines] == [1, 2, 3]
    assert {len(bytes.fromhex(line["mac"])) for line in lines} == {32}
    assert {line["action"] for line in lines} == {"thing.done"}
    none = await coffer("audit", "export", slug, "--to", "2020-01-01", environment=set_up)
    assert (none.returncode, none.stdout) == (0, "")
