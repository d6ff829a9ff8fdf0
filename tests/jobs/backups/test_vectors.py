"""Frozen backups are read for as long as the product exists."""

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.backups.errors import ManifestRefused, Refusal
from jobs.backups.finding import find
from jobs.backups.manifests import Expected
from jobs.backups.shapes import folder
from tests import vectors
from tests.jobs.backups.yards import BACKUP, FIRST, OTHER_TENANT, TENANT, Yard

BACKUPS: list[dict[str, Any]] = json.loads((Path(vectors.__file__).parent / "backups.json").read_text())


def laid_out(yard: Yard, vector: dict[str, Any]) -> dict[int, bytes]:
    """All in the first store. Gives the public keys."""
    place = yard.root / "0" / folder(TENANT, BACKUP)
    place.mkdir(parents=True)
    for name, content in vector["files"].items():
        (place / name).write_bytes(bytes.fromhex(content))
    return {vector["key_version"]: bytes.fromhex(vector["public_key"])}


@pytest.mark.parametrize("vector", BACKUPS, ids=[vector["coding"] for vector in BACKUPS])
async def test_a_frozen_backup_is_read(yard: Yard, vector: dict[str, Any]) -> None:
    keys = laid_out(yard, vector)

    found = await find(yard.stores, keys, Expected(tenant=TENANT, backup=BACKUP))

    records = await yard.read(found.manifest, bytes.fromhex(vector["key"]))
    assert [record.hex() for record in records] == vector["records"]
    assert (found.manifest.about, found.manifest.identity) == (FIRST, vector["identity"])


@pytest.mark.parametrize("vector", BACKUPS, ids=[vector["coding"] for vector in BACKUPS])
async def test_a_frozen_backup_is_repaired_to_where_it_should_lie(yard: Yard, vector: dict[str, Any]) -> None:
    laid_out(yard, vector)

    repaired = await yard.repair()

    assert await yard.faults(repaired.manifest) == []
    assert {Path(name).name: content.hex() for name, content in yard.files().items() if "manifest" not in name} == {
        name: content for name, content in vector["files"].items() if "manifest" not in name
    }


async def test_a_frozen_backup_in_another_tenants_folder_is_refused(yard: Yard) -> None:
    keys = laid_out(yard, BACKUPS[0])
    (yard.root / "0" / str(TENANT)).rename(yard.root / "0" / str(OTHER_TENANT))

    with pytest.raises(ManifestRefused) as refused:
        await find(yard.stores, keys, Expected(tenant=OTHER_TENANT, backup=BACKUP))

    assert refused.value.why is Refusal.FOREIGN
