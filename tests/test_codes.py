"""docs/codes.md names every code, audit action and event that the code can give, and no other."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import api.app  # noqa: F401  # all kinds of events are declared once it is imported
import jobs.worker  # noqa: F401
from tenants import events

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "codes.md").read_text()
PACKAGES = ("api", "crypto", "domain", "jobs", "mail", "tenants")
CODE = re.compile(r"[A-Z][A-Z0-9]+(?:_[A-Z0-9]+)*")
ACTION = re.compile(r"[a-z_]+(?:\.[a-z_]+)+")
REFUSING = {"refusal", "refuse", "UserError", "Reason", "LimitExceeded", "_count", "_refused", "_again", "_later"}
AUDITING = {"audit", "_entry", "_act", "Entry", "EventKind", "prove"}


@cache
def _trees() -> list[ast.Module]:
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return [ast.parse(path.read_text()) for path in files]


@cache
def _constants() -> dict[str, set[str]]:
    """Texts by the name of the constant that holds them, in any module."""
    found: dict[str, set[str]] = {}
    for tree in _trees():
        for each in tree.body:
            if isinstance(each, ast.Assign) and isinstance(each.value, ast.Constant):
                for target in each.targets:
                    found.setdefault(ast.unparse(target), set()).add(str(each.value.value))
    return found


def _given(calls: set[str], kind: re.Pattern[str]) -> Iterator[str]:
    """Texts of that kind among what these functions are called with, literally or by a constant's name."""
    for call in (node for tree in _trees() for node in ast.walk(tree) if isinstance(node, ast.Call)):
        if ast.unparse(call.func).rpartition(".")[2] in calls:
            for value in [*call.args, *(each.value for each in call.keywords)]:
                texts = (
                    {str(value.value)} if isinstance(value, ast.Constant) else _constants().get(ast.unparse(value), ())
                )
                yield from filter(kind.fullmatch, texts)


def _errors() -> Iterator[tuple[str, bool]]:
    """The code of each error class, and whether trying again may help."""
    for cls in (node for tree in _trees() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
        said = {
            ast.unparse(target): each.value.value
            for each in cls.body
            if isinstance(each, ast.Assign | ast.AnnAssign) and isinstance(each.value, ast.Constant)
            for target in (each.targets if isinstance(each, ast.Assign) else [each.target])
        }
        if isinstance(code := said.get("code"), str):
            yield code, said.get("retryable") is True


def _in_extensions() -> Iterator[str]:
    for pairs in (node for tree in _trees() for node in ast.walk(tree) if isinstance(node, ast.Dict)):
        for key, value in zip(pairs.keys, pairs.values, strict=True):
            if isinstance(key, ast.Constant) and key.value == "code" and isinstance(value, ast.Constant):
                yield str(value.value)


def _rows(section: str) -> dict[str, list[str]]:
    """The rows of a section's tables, by the code in the first column."""
    text = PAGE.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([^`]+)` \|(.*)\|$", text, re.M)
    assert len(rows) == len({code for code, _ in rows}), "a code is listed twice"
    return {code: [cell.strip() for cell in rest.split("|")] for code, rest in rows}


def test_the_page_has_every_code_and_no_other() -> None:
    codes = {code for code, _ in _errors()} | {*_given(REFUSING, CODE)} | {*_in_extensions()} | {"WORKER_DIED"}
    assert len(codes) > 80
    assert set(_rows("Codes")) == codes


def test_the_page_says_where_trying_again_may_help() -> None:
    retryable = {code for code, is_retryable in _errors() if is_retryable} | {"RATE_LIMITED"}
    assert {code for code, (_, _, again, _) in _rows("Codes").items() if again == "yes"} == retryable


def test_the_page_has_every_audit_action_and_no_other() -> None:
    actions = {*_given(AUDITING, ACTION)}
    assert len(actions) > 50
    assert set(_rows("Audit actions")) == actions - set(events.KINDS)


def test_the_page_has_every_event_and_says_what_it_means() -> None:
    kinds = {name: [kind.subject, kind.meaning] for name, kind in events.KINDS.items() if not name.startswith("test.")}
    assert _rows("Events") == kinds
