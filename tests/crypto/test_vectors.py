"""The product and an independent decoder agree on frozen vectors and on random values."""

import ast
import json
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto.envelopes import Cell
from crypto.keyring import Keyring, SealedCell
from crypto.keys import DataKey, KeyState, Purpose, check_value, wrapping_context
from crypto.values import Sealed
from tests.vectors import decoder

FOLDER = Path(decoder.__file__).parent
ENVELOPES: list[dict[str, Any]] = json.loads((FOLDER / "envelopes.json").read_text())
TOKENS: dict[str, list[dict[str, Any]]] = json.loads((FOLDER / "tokens.json").read_text())
KEY = st.binary(min_size=32, max_size=32)
VERSION = st.integers(0, 2**32 - 1)
IDS = st.uuids()


def ring_of(purpose: Purpose, secret: bytes, tenant: UUID, version: int = 1) -> Keyring:
    return Keyring(tenant, 1, [DataKey(purpose, version, KeyState.ACTIVE, secret=secret)])


def hexed(vector: dict[str, Any], name: str) -> bytes:
    return bytes.fromhex(vector[name])


@pytest.mark.parametrize("vector", ENVELOPES)
def test_the_product_opens_a_frozen_envelope(vector: dict[str, Any]) -> None:
    sealed, secret = Sealed(hexed(vector, "sealed")), hexed(vector, "subject_secret")
    ring = ring_of(Purpose.DEK, hexed(vector, "dek"), UUID(vector["tenant"]), vector["dek_version"])

    cell = SealedCell(sealed, secret, UUID(vector["subject"]), UUID(vector["row"]))

    assert ring.open_many(vector["label"], [cell]) == [vector["document"].encode()]


@pytest.mark.parametrize("vector", ENVELOPES)
def test_the_decoder_opens_a_frozen_envelope(vector: dict[str, Any]) -> None:
    sealed, secret, dek = (hexed(vector, name) for name in ("sealed", "subject_secret", "dek"))
    tenant, subject, row = (UUID(vector[name]) for name in ("tenant", "subject", "row"))

    document = decoder.opened(dek, sealed, tenant, subject, secret, vector["label"], row)

    assert document == vector["document"]
    assert decoder.dek_version(sealed) == vector["dek_version"]


@pytest.mark.parametrize("vector", TOKENS["tokens"])
def test_both_make_a_frozen_token(vector: dict[str, Any]) -> None:
    bik, tenant, version = hexed(vector, "bik"), UUID(vector["tenant"]), vector["bik_version"]
    words = vector["place"], vector["index"], vector["normaliser"], vector["value"]

    assert ring_of(Purpose.BIK, bik, tenant, version).token(*words, version) == hexed(vector, "token")
    assert decoder.token(bik, tenant, *words) == hexed(vector, "token")


@pytest.mark.parametrize("vector", TOKENS["macs"])
def test_both_make_a_frozen_mac(vector: dict[str, Any]) -> None:
    bik, tenant, message = hexed(vector, "bik"), UUID(vector["tenant"]), hexed(vector, "message")

    assert ring_of(Purpose.BIK, bik, tenant).authenticate(vector["label"], message) == hexed(vector, "mac")
    assert decoder.mac(bik, tenant, vector["label"], message) == hexed(vector, "mac")


@pytest.mark.parametrize("vector", TOKENS["check_values"])
def test_both_make_a_frozen_check_value_and_wrapping_context(vector: dict[str, Any]) -> None:
    secret, tenant, key_id = hexed(vector, "secret"), UUID(vector["tenant"]), UUID(vector["id"])
    purpose = Purpose(vector["purpose"])

    assert check_value(tenant, key_id, purpose, secret) == hexed(vector, "check_value")
    assert decoder.check_value(secret, tenant, key_id, vector["purpose"]) == hexed(vector, "check_value")
    assert wrapping_context(tenant, key_id, purpose) == hexed(vector, "wrapping_context")
    assert decoder.wrapping_context(tenant, key_id, vector["purpose"]) == hexed(vector, "wrapping_context")


@given(KEY, VERSION, IDS, IDS, KEY, st.text(), IDS, st.text())
def test_the_decoder_opens_whatever_the_product_seals(
    dek: bytes, version: int, tenant: UUID, subject: UUID, secret: bytes, label: str, row: UUID, document: str
) -> None:
    ring = ring_of(Purpose.DEK, dek, tenant, version)

    sealed = ring.seal(document.encode(), secret, Cell(tenant, subject, label, row))

    assert decoder.opened(dek, sealed, tenant, subject, secret, label, row) == document
    assert decoder.dek_version(sealed) == version


@given(KEY, IDS, st.text(), st.text(), st.integers(0, 2**32 - 1), st.text())
def test_the_decoder_makes_the_products_tokens(
    bik: bytes, tenant: UUID, place: str, index: str, normaliser: int, value: str
) -> None:
    made = ring_of(Purpose.BIK, bik, tenant).token(place, index, normaliser, value, 1)

    assert decoder.token(bik, tenant, place, index, normaliser, value) == made


@given(KEY, IDS, st.text(), st.binary())
def test_the_decoder_makes_the_products_macs(bik: bytes, tenant: UUID, label: str, message: bytes) -> None:
    assert decoder.mac(bik, tenant, label, message) == ring_of(Purpose.BIK, bik, tenant).authenticate(label, message)


@given(KEY, IDS, IDS, st.sampled_from(Purpose))
def test_the_decoder_makes_the_products_check_values(secret: bytes, tenant: UUID, key: UUID, purpose: Purpose) -> None:
    assert decoder.check_value(secret, tenant, key, purpose) == check_value(tenant, key, purpose, secret)


def test_the_decoder_imports_nothing_of_ours() -> None:
    tree = ast.parse(Path(decoder.__file__).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in imports if isinstance(node, ast.ImportFrom)}

    assert {name.partition(".")[0] for name in names} == {"hashlib", "hmac", "re", "uuid", "cryptography"}
