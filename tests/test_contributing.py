"""The worked example of CONTRIBUTING.md is applied to a copy of the tree and used there."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = (
    "api",
    "domain",
    "tenants",
    "crypto",
    "migrations",
    "local",
    "mail",
    "telemetry",
    "egress",
    "deploy",
    "tests",
    "settings.py",
    "pyproject.toml",
)

USE = '''
"""Uses the field of the worked example."""

from tenants.access import Role
from tests.house import House


async def test_the_new_field_is_sealed_masked_and_searchable(house: House) -> None:
    made = await house.create(loyaltyNumber="LOYAL-4711")
    read = "query($i: ID!) { customer(id: $i) { loyaltyNumber } }"
    shown = {role: (await house.data(read, {"i": made["id"]}, role=role))["customer"]["loyaltyNumber"] for role in Role}
    assert shown[Role.OWNER] == "LOYAL-4711"
    assert shown[Role.ADMIN] == "•••••••11"
    assert shown[Role.ANALYST] is None
    find = '{ findCustomers(by: {loyaltyNumber: "LOYAL-4711"}) { nodes { id } } }'
    assert (await house.data(find))["findCustomers"]["nodes"] == [{"id": made["id"]}]
'''


def test_the_worked_example_takes_two_files_and_works(tmp_path: Path) -> None:
    for name in PACKAGES:
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    changed = [_apply(tmp_path, diff) for diff in _diffs()]
    (tmp_path / "tests" / "test_example.py").write_text(USE.lstrip())
    run = [sys.executable, "-m", "pytest", "tests/test_example.py"]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert changed == ["domain/customers/fields.py", "api/customers.py"]
    assert done.returncode == 0, done.stdout + done.stderr


def _diffs() -> list[str]:
    return re.findall(r"```diff\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)


def _apply(tree: Path, diff: str) -> str:
    """Each hunk is a line of context, found once in the file, and the lines to add behind it."""
    path = diff.splitlines()[1].removeprefix("+++ b/")
    text = (tree / path).read_text()
    for hunk in re.split(r"^@@.*@@\n", diff, flags=re.MULTILINE)[1:]:
        context, *added = hunk.splitlines()
        assert text.count(context[1:] + "\n") == 1, f"{path} has no single line {context[1:]!r}"
        new = "".join(line.removeprefix("+") + "\n" for line in added)
        text = text.replace(context[1:] + "\n", context[1:] + "\n" + new)
    (tree / path).write_text(text)
    return path
