"""The bytes of the audit chain are injective, frozen, and the same to an independent reader of their description."""

import ast
import json
from dataclasses import asdict, fields, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto import chain
from crypto.chain import Content
from tests.vectors import chains

VECTORS: dict[str, Any] = json.loads((Path(chains.__file__).parent / "chains.json").read_text())
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY_0 = date(1970, 1, 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
CONTENTS = st.builds(
    Content,
    id=st.uuids(),
    at=st.datetimes(min_value=datetime(1900, 1, 1), timezones=st.just(UTC)),
    actor=st.none() | st.uuids(),
    action=TEXT,
    subject_type=st.none() | TEXT,
    subjects=st.lists(st.uuids(), max_size=3),
    fields=st.lists(TEXT, max_size=3),
    outcome=TEXT,
    details=st.dictionaries(TEXT, st.integers() | TEXT, max_size=3),
    purpose=st.none() | TEXT,
    request_id=st.none() | TEXT,
)


def content_of(said: dict[str, Any]) -> Content:
    ids = {"id": UUID(said["id"]), "actor": UUID(said["actor"]) if said["actor"] else None}
    at, details = EPOCH + timedelta(microseconds=said["at"]), json.loads(said["details"])
    return Content(**{**said, **ids, "at": at, "details": details, "subjects": [UUID(s) for s in said["subjects"]]})


def said_of(content: Content) -> dict[str, Any]:
    micros = (content.at - EPOCH) // timedelta(microseconds=1)
    details = json.dumps(content.details, sort_keys=True, separators=(",", ":"))
    ids = {"id": str(content.id), "actor": str(content.actor) if content.actor else None}
    return {**asdict(content), **ids, "at": micros, "details": details, "subjects": [str(s) for s in content.subjects]}


@pytest.mark.parametrize("vector", VECTORS["entries"])
def test_both_make_a_frozen_entry(vector: dict[str, Any]) -> None:
    assert chain.entry_bytes(content_of(vector["entry"])).hex() == vector["bytes"]
    assert chains.entry(vector["entry"]).hex() == vector["bytes"]


@pytest.mark.parametrize("vector", VECTORS["links"])
def test_both_make_a_frozen_link(vector: dict[str, Any]) -> None:
    audit_key, tenant = bytes.fromhex(vector["audit_key"]), UUID(vector["tenant"])
    before, entry = bytes.fromhex(vector["before"]), bytes.fromhex(vector["entry"])
    key = chain.key_after(chain.first_key(audit_key, tenant), vector["days"])
    day = DAY_0 + timedelta(days=vector["day"])
    other = chains.key(audit_key, tenant, vector["days"])

    assert chain.link_mac(key, tenant, vector["seq"], day, before, entry).hex() == vector["mac"]
    assert chains.link(other, tenant, vector["seq"], vector["day"], before, entry).hex() == vector["mac"]


def test_both_read_a_frozen_checkpoint() -> None:
    said = VECTORS["checkpoint"]
    tenant, mac = UUID(said["tenant"]), bytes.fromhex(said["mac"])
    public, signature = bytes.fromhex(said["public_key"]), bytes.fromhex(said["signature"])
    at = EPOCH + timedelta(microseconds=said["at"])

    assert chain.is_signed(public, signature, chain.statement(tenant, said["seq"], mac, at))
    assert not chain.is_signed(public, signature, chain.statement(tenant, said["seq"] + 1, mac, at))
    assert chains.is_checkpoint(public, signature, tenant, said["seq"], mac, said["at"])


@given(CONTENTS)
def test_the_second_making_agrees_on_any_entry(content: Content) -> None:
    assert chains.entry(said_of(content)) == chain.entry_bytes(content)


@given(CONTENTS, CONTENTS, st.sampled_from([field.name for field in fields(Content)]))
def test_entries_that_differ_in_one_field_never_give_equal_bytes(one: Content, other: Content, name: str) -> None:
    changed = replace(one, **{name: getattr(other, name)})

    assert (chain.entry_bytes(changed) == chain.entry_bytes(one)) == (changed == one)


@given(CONTENTS, CONTENTS)
def test_different_entries_never_give_equal_bytes(one: Content, other: Content) -> None:
    assert (chain.entry_bytes(one) == chain.entry_bytes(other)) == (one == other)


def test_absent_and_empty_differ() -> None:
    absent = content_of(VECTORS["entries"][1]["entry"])

    assert absent.purpose is None
    assert chain.entry_bytes(absent) != chain.entry_bytes(replace(absent, purpose=""))


def test_details_count_by_what_they_say_not_by_their_order() -> None:
    content = content_of(VECTORS["entries"][0]["entry"])
    turned = replace(content, details=dict(reversed(list(content.details.items()))))

    assert list(turned.details) != list(content.details)
    assert chain.entry_bytes(turned) == chain.entry_bytes(content)


@pytest.mark.parametrize("changed", ["key", "tenant", "seq", "day", "before", "entry"])
def test_a_link_depends_on_each_of_its_parts(changed: str) -> None:
    one = {"key": bytes(32), "tenant": UUID(int=1), "seq": 1, "day": DAY_0, "before": chain.START, "entry": b"e"}
    other: dict[str, Any] = {
        "key": b"\x01" * 32,
        "tenant": UUID(int=2),
        "seq": 2,
        "day": date(1970, 1, 2),
        "before": b"\x01" * 32,
        "entry": b"f",
    }

    assert chain.link_mac(**one) != chain.link_mac(**{**one, changed: other[changed]})  # type: ignore[arg-type]  # by name


def test_the_second_making_imports_nothing_of_ours() -> None:
    tree = ast.parse(Path(chains.__file__).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in imports if isinstance(node, ast.ImportFrom)}

    assert {name.partition(".")[0] for name in names} == {"hashlib", "hmac", "struct", "typing", "uuid", "cryptography"}
