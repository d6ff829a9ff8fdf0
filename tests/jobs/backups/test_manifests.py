"""A manifest says what was signed, or it is refused with the reason."""

import tracemalloc
from base64 import b64encode
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from crypto.encoding import join
from jobs.backups.errors import BackupUnknown, ManifestRefused, Refusal, StoreAway
from jobs.backups.manifests import Expected, Manifest, read, require_order
from tests.jobs.backups.yards import (
    BACKUP,
    FIRST,
    OTHER_TENANT,
    PUBLIC_KEYS,
    SIGNER,
    TENANT,
    Yard,
    second,
    sign,
    some_records,
)

EXPECTED = Expected(tenant=TENANT, backup=BACKUP)


def why(raw: bytes, expected: Expected = EXPECTED) -> Refusal:
    with pytest.raises(ManifestRefused) as refused:
        read(raw, PUBLIC_KEYS, expected)
    return refused.value.why


def signed_as(said: dict[str, Any]) -> bytes:
    """By one who holds the key and obeys no format."""
    statement = orjson.dumps(said, option=orjson.OPT_SORT_KEYS)
    message = join(b"coffer.backup.manifest.v1", TENANT.bytes, BACKUP.bytes, sha256(statement).digest())
    signature = b64encode(SIGNER.sign(message)).decode()
    return statement + b"\n" + orjson.dumps({"keyVersion": 3, "signature": signature}) + b"\n"


@pytest.fixture
async def manifest(yard: Yard) -> Manifest:
    return await yard.write(some_records())


async def test_a_manifest_comes_back_as_it_was(manifest: Manifest) -> None:
    raw = await manifest.signed(sign)

    assert read(raw, PUBLIC_KEYS, EXPECTED) == manifest
    assert read(raw, PUBLIC_KEYS, EXPECTED).identity == manifest.identity


async def test_every_changed_byte_is_refused(manifest: Manifest) -> None:
    raw = await manifest.signed(sign)
    for place in range(0, len(raw), 7):
        changed = bytearray(raw)
        changed[place] ^= 1
        assert why(bytes(changed)) in set(Refusal) - {Refusal.OLD, Refusal.REORDERED}


async def test_every_way_to_cut_it_off_is_refused(manifest: Manifest) -> None:
    raw = await manifest.signed(sign)
    for length in range(0, len(raw), 7):
        assert why(raw[:length]) in (Refusal.TRUNCATED, Refusal.UNSIGNED)


async def test_one_without_signature_is_refused(manifest: Manifest) -> None:
    statement = (await manifest.signed(sign)).split(b"\n")[0]

    assert why(statement + b"\n") is Refusal.UNSIGNED
    assert why(statement + b"\n{}\n") is Refusal.UNSIGNED
    assert why(statement + b'\n{"keyVersion":3,"signature":""}\n') is Refusal.EDITED


async def test_one_signed_by_another_key_is_refused(manifest: Manifest) -> None:
    stranger = Ed25519PrivateKey.generate()

    async def by_stranger(version: int) -> bytes:
        async def signing(message: bytes) -> tuple[int, bytes]:
            return version, stranger.sign(message)

        return await manifest.signed(signing)

    assert why(await by_stranger(4)) is Refusal.UNKNOWN_KEY
    assert why(await by_stranger(3)) is Refusal.EDITED


def test_one_that_nobody_signed_is_not_parsed() -> None:
    """8 MiB of it would become some hundred."""
    many = b"{}," * (8 << 20 >> 2)
    said = b'{"backup":"%s","bytes":[%s{}],"tenant":"%s"}' % (str(BACKUP).encode(), many, str(TENANT).encode())
    signature = b64encode(bytes(64))
    tracemalloc.start()
    try:
        found = why(said + b'\n{"keyVersion":3,"signature":"%s"}\n' % signature)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert found is Refusal.EDITED
    assert most < 64 << 20


async def test_one_of_another_tenant_or_backup_is_refused(manifest: Manifest) -> None:
    raw = await manifest.signed(sign)

    assert why(raw, Expected(tenant=OTHER_TENANT)) is Refusal.FOREIGN
    assert why(raw, Expected(tenant=TENANT, backup=OTHER_TENANT)) is Refusal.FOREIGN


async def test_a_signature_moved_to_another_manifest_is_refused(manifest: Manifest) -> None:
    other = replace(manifest, about=replace(manifest.about, tenant=OTHER_TENANT))
    raw = (await other.signed(sign)).split(b"\n")[0] + b"\n" + (await manifest.signed(sign)).split(b"\n")[1] + b"\n"

    assert why(raw, Expected(tenant=OTHER_TENANT)) is Refusal.EDITED


async def test_an_older_one_than_is_known_is_refused(manifest: Manifest) -> None:
    raw = await manifest.signed(sign)

    assert why(raw, replace(EXPECTED, number=2)) is Refusal.OLD
    assert why(raw, replace(EXPECTED, generation=2)) is Refusal.OLD
    assert read(raw, PUBLIC_KEYS, replace(EXPECTED, number=1, identity=manifest.identity))


async def test_one_that_is_not_the_known_one_of_its_number_is_refused(manifest: Manifest) -> None:
    other = replace(manifest, about=replace(FIRST, created=datetime(2026, 1, 1, tzinfo=UTC)))

    assert why(await other.signed(sign), replace(EXPECTED, identity=manifest.identity)) is Refusal.REORDERED


async def test_a_repair_keeps_the_identity_and_any_other_change_does_not(manifest: Manifest) -> None:
    assert manifest.moved(("file:///a",) * 6).identity == manifest.identity
    assert replace(manifest, tables={"customers": 1}).identity != manifest.identity


async def test_backups_out_of_order_are_refused(yard: Yard, manifest: Manifest) -> None:
    after = await yard.write(some_records(seed=2), second(manifest))
    forged = replace(after, about=replace(after.about, previous="0" * 64))
    later = replace(after, about=replace(after.about, number=4))

    require_order([manifest, after])
    require_order([manifest, later])  # retention has taken two of them
    for wrong in ([after, manifest], [manifest, forged], [manifest, manifest]):
        with pytest.raises(ManifestRefused) as refused:
            require_order(wrong)
        assert refused.value.why is Refusal.REORDERED


@pytest.mark.parametrize(
    "change",
    [
        {"chunks": 0},
        {"chunks": -1},
        {"chunks": 10**9},
        {"sealedBytes": 1},
        {"stripes": 0},
        {"chunkBytes": 2048},
        {"chunks": 1.5},
        {"chunks": True},
        {"places": []},
        {"checks": []},
        {"tables": {"customers": -1}},
        {"previous": "x"},
        {"kind": "é"},
        {"format": "coffer.backup.v2"},
        {"more": 1},
        {"coding": "rs:9"},
        {"created": "yesterday"},
        {"number": 0},
        {"opening": "00"},
    ],
)
async def test_one_that_says_what_can_not_be_is_refused_though_signed(
    manifest: Manifest, change: dict[str, Any]
) -> None:
    said = orjson.loads((await manifest.signed(sign)).split(b"\n")[0])
    assert read(signed_as(said), PUBLIC_KEYS, EXPECTED)

    assert why(signed_as(said | change)) is Refusal.EDITED


async def test_no_backup_a_store_away_and_only_refused_ones_are_told_apart(yard: Yard) -> None:
    with pytest.raises(BackupUnknown):
        await yard.find()
    yard.unmount(*range(6))
    with pytest.raises(StoreAway):
        await yard.find()
    yard.mount(*range(6))
    await yard.write(some_records())
    for store in range(6):
        for path in yard.manifests(store):
            path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ManifestRefused) as refused:
        await yard.find()
    assert refused.value.why is Refusal.TRUNCATED


async def test_one_store_of_six_is_enough_to_find_it(yard: Yard, manifest: Manifest) -> None:
    yard.unmount(0, 1)
    yard.lose(2, 3)
    (path,) = yard.manifests(4)
    path.write_bytes(b"no manifest")

    found = await yard.find()

    assert found.manifest.identity == manifest.identity
    urls = [store.url for store in yard.stores]
    assert (found.away, found.missing) == (urls[0:2], urls[2:4])
    assert found.refused == {urls[4]: Refusal.TRUNCATED}
