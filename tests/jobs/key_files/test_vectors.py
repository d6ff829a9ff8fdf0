"""A frozen key file is read for as long as the product exists, by the product and by an independent decoder."""

import ast
import json
from base64 import b64decode
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import pytest

from crypto.transit import TransitKeys
from jobs.backups.stores import Store
from jobs.key_files import finding
from jobs.key_files.errors import KeyFileRefused
from jobs.key_files.reading import KeyFile
from tests.vectors import key_files as decoder

VECTOR: dict[str, Any] = json.loads((Path(decoder.__file__).parent / "key_files.json").read_text())
CONTENT = b64decode(VECTOR["file"])
TENANT, GENERATION = UUID(VECTOR["tenant"]), VECTOR["generation"]
PUBLIC_KEYS = {VECTOR["keyVersion"]: bytes.fromhex(VECTOR["publicKey"])}
SECRETS = {UUID(subject): bytes.fromhex(secret) for subject, secret in VECTOR["secrets"].items()}


class Opener:
    """A key store that has one key, of the file."""

    async def unwrap(self, tenant: UUID, wrapped: Sequence[tuple[str, bytes]]) -> list[bytes]:
        assert (tenant, wrapped) == (TENANT, [(VECTOR["wrapped"], bytes.fromhex(VECTOR["context"]))])
        return [bytes.fromhex(VECTOR["fileKey"])]


def laid_out(tmp_path: Path, content: bytes = CONTENT) -> Store:
    place = tmp_path / finding.name(TENANT, GENERATION)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)
    return Store(f"file://{tmp_path}")


async def test_a_frozen_key_file_is_read(tmp_path: Path) -> None:
    store = laid_out(tmp_path)

    proven = await finding.prove(store, TENANT, GENERATION, len(CONTENT), PUBLIC_KEYS)

    file = KeyFile(proven, [store], cast(TransitKeys, Opener()))
    found: dict[UUID, bytes] = {}
    async for bucket in file.buckets():
        found |= bucket
    assert found == SECRETS
    assert file.sha256.hex() == VECTOR["sha256"]
    assert [str(row.subject) for row in file.ledger] == VECTOR["erased"]
    assert {str(each.id): each.wrapped_key for each in file.backups} == VECTOR["backups"]
    assert [(key.purpose.value, key.version) for key in file.data_keys] == [("DEK", 2), ("DEK", 3)]


async def test_the_decoder_reads_the_same() -> None:
    parsed = decoder.read(CONTENT, PUBLIC_KEYS)

    assert decoder.secrets(CONTENT, parsed, bytes.fromhex(VECTOR["fileKey"])) == SECRETS
    assert decoder.head(parsed).hex() == parsed["ledger"]["head"]
    assert {each["backup"]: each["wrapped"] for each in parsed["backups"]} == VECTOR["backups"]


@pytest.mark.parametrize("place", [0, 200, 20_000, -1])
async def test_a_changed_byte_is_refused(tmp_path: Path, place: int) -> None:
    changed = bytearray(CONTENT)
    changed[place] ^= 1
    store = laid_out(tmp_path, bytes(changed))

    with pytest.raises(KeyFileRefused):
        proven = await finding.prove(store, TENANT, GENERATION, len(CONTENT), PUBLIC_KEYS)
        async for _ in KeyFile(proven, [store], cast(TransitKeys, Opener())).buckets():
            pass


def test_the_decoder_imports_nothing_of_ours() -> None:
    tree = ast.parse(Path(decoder.__file__).read_text())
    names = {str(node.module).partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}

    assert names == {"datetime", "typing", "uuid", "cryptography", "tests"}
