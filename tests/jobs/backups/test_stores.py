"""A name is there when its object is whole; what goes wrong is told as what it is."""

import http.server
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.backups import finding
from jobs.backups.errors import StoreAway, StoreFull
from jobs.backups.stores import Store
from telemetry.metrics import Metrics
from tests.deploy.conftest import secrets
from tests.deploy.test_store import client, store_variables, variables
from tests.jobs.backups.yards import BACKUP, TENANT, Yard, some_records

__all__ = ["secrets", "store_variables", "variables"]  # the fixtures
MIB = 1 << 20


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(f"file://{tmp_path}")


@pytest.fixture
def bucket(variables: dict[str, str]) -> Store:
    return Store("s3://coffer-audit/backups")


def sizes_of_shards(folder: Path) -> set[int]:
    """And of half-written ones, if there are."""
    return {path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.name != "other"}


class Full(http.server.BaseHTTPRequestHandler):
    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(507, "Insufficient Storage")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def full_server(secrets: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Full)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(secrets / "store.pem", secrets / "store.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    running = threading.Thread(target=server.serve_forever)
    running.start()
    yield f"https://localhost:{server.server_port}"
    server.shutdown()
    running.join()
    server.server_close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Of 1 MiB, where we may mount."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = shutil.which("mount") or "mount"
    mounted = subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=False)
    if mounted.returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run([shutil.which("umount") or "umount", str(folder)], check=True)


@pytest.mark.parametrize(
    "url", ["/srv/backups", "https://host/x", "s3://key:secret@bucket", "s3://bucket?x=1", "file:///a#b", "memory://"]
)
def test_a_url_that_is_no_store_or_would_tell_a_secret_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="credentials") as refused:
        Store(url)
    assert url not in str(refused.value)


@pytest.mark.parametrize("kind", ["store", "bucket"])
async def test_an_object_is_put_read_in_parts_listed_and_deleted(kind: str, request: pytest.FixtureRequest) -> None:
    store = request.getfixturevalue(kind)
    await store.put("a/b/one", b"0123456789")

    assert await store.get("a/b/one", 2, 3) == b"234"
    assert await store.get("a/b/one", 8, 9) == b"89"
    assert [await store.get("a/b/one", start, 1) for start in (10, 11)] == [None, None]
    assert await store.get("a/b/two", 0, 1) is None
    assert await store.sizes("a/b") == await store.sizes("a") == {"a/b/one": 10}
    await store.delete("a/b/one")
    await store.delete("a/b/one")
    assert await store.sizes("a") == {}


@pytest.mark.parametrize("kind", ["store", "bucket"])
async def test_an_object_is_not_there_before_it_is_whole(kind: str, request: pytest.FixtureRequest) -> None:
    store = request.getfixturevalue(kind)
    async with store.writing("a/long") as write:
        for _ in range(12):
            await write(bytes(MIB))
        assert await store.sizes("a") == {}

    assert await store.sizes("a") == {"a/long": 12 * MIB}
    await store.delete("a/long")


@pytest.mark.parametrize("kind", ["store", "bucket"])
async def test_one_that_is_given_up_leaves_nothing_and_keeps_what_was_there(
    kind: str, request: pytest.FixtureRequest
) -> None:
    store = request.getfixturevalue(kind)
    await store.put("a/one", b"old")
    with pytest.raises(ConnectionResetError, match="mine"):
        async with store.writing("a/one") as write:
            await write(bytes(6 * MIB))
            raise ConnectionResetError("mine")

    assert await store.get("a/one", 0, 9) == b"old"
    await store.delete("a/one")


async def test_a_given_up_upload_is_aborted(bucket: Store, variables: dict[str, str]) -> None:
    with pytest.raises(KeyError):
        async with bucket.writing("a/one") as write:
            await write(bytes(12 * MIB))
            raise KeyError

    assert client(variables).list_multipart_uploads(Bucket="coffer-audit").get("Uploads", []) == []


async def test_a_folder_that_is_not_mounted_is_away_and_not_made(tmp_path: Path) -> None:
    store = Store(f"file://{tmp_path}/nowhere")
    for act in (store.put("a", b"x"), store.get("a", 0, 1), store.sizes("a"), store.delete("a")):
        with pytest.raises(StoreAway):
            await act
    assert not (tmp_path / "nowhere").exists()


async def test_a_folder_that_comes_back_works_at_once(tmp_path: Path) -> None:
    store = Store(f"file://{tmp_path}/mount")
    with pytest.raises(StoreAway):
        await store.sizes("a")
    (tmp_path / "mount").mkdir()
    await store.put("a/b", b"x")
    assert await store.get("a/b", 0, 1) == b"x"
    (tmp_path / "mount").rename(tmp_path / "other")
    with pytest.raises(StoreAway):
        await store.get("a/b", 0, 1)
    (tmp_path / "other").rename(tmp_path / "mount")

    assert await store.get("a/b", 0, 1) == b"x"


async def test_a_bucket_that_is_not_there_is_away(variables: dict[str, str]) -> None:
    store = Store("s3://nowhere/backups")
    with pytest.raises(StoreAway):
        await store.put("a", b"x")


async def test_a_bucket_is_not_spoken_to_in_clear(
    bucket: Store, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", variables["AWS_ENDPOINT_URL"].replace("https:", "http:"))
    with pytest.raises(StoreAway):
        await bucket.put("a", b"x")


async def test_a_bucket_without_space_is_full(
    full_server: str, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", full_server)
    with pytest.raises(StoreFull):
        await Store("s3://coffer-audit/full").put("a", b"x")


async def test_a_backup_in_buckets_and_folders_is_written_read_and_repaired(
    yard: Yard, variables: dict[str, str]
) -> None:
    yard.stores[1::2] = [Store(f"s3://coffer-audit/{number}") for number in range(3)]
    manifest = await yard.write(some_records())
    for name in await yard.stores[3].sizes(str(TENANT)):
        await yard.stores[3].delete(name)
    yard.lose(0)

    assert await yard.read(manifest) == some_records()
    assert (await yard.repair()).rewritten == 2 * manifest.layout.segments
    assert await yard.faults(manifest) == []


async def test_a_full_disk_is_told_and_leaves_nothing_half_done(yard: Yard, small_disk: Path) -> None:
    yard.stores[4] = Store(f"file://{small_disk}")
    (small_disk / "other").write_bytes(bytes(MIB - 10 * 4096))
    records = some_records(600)
    with pytest.raises(StoreFull):
        await yard.write(records)
    assert sizes_of_shards(small_disk) == {6 * 36 * 4 + 4 * 256}
    assert not await finding.is_finished(yard.stores, TENANT, BACKUP)
    (small_disk / "other").unlink()

    manifest = await yard.write(records)

    assert await yard.read(manifest) == records


async def test_a_disk_that_fills_up_during_a_repair_harms_nothing(yard: Yard, small_disk: Path) -> None:
    manifest = await yard.write(some_records(600))
    yard.lose(4)
    yard.stores[4] = Store(f"file://{small_disk}")
    (small_disk / "other").write_bytes(bytes(MIB - 10 * 4096))
    with pytest.raises(StoreFull):
        await yard.repair()
    assert (await yard.find()).manifest == manifest
    assert await yard.read(manifest) == some_records(600)
    (small_disk / "other").unlink()

    repaired = await yard.repair()

    assert 0 < repaired.rewritten < manifest.layout.segments  # those from before the disk was full were kept
    assert await yard.faults(repaired.manifest) == []


async def test_who_asks_whether_a_store_is_there_is_told(tmp_path: Path) -> None:
    metrics = Metrics()
    stores = [Store(f"file://{tmp_path}"), Store(f"file://{tmp_path / 'away'}"), Store("s3://nowhere")]
    metrics.watch_stores([store.answers for store in stores])
    shown = (await metrics.scrape()).decode()

    wanted = [f'coffer_backup_store_up{{store="{number}"}} {is_up}' for number, is_up in enumerate((1.0, 0.0, 0.0))]
    assert [line for line in shown.splitlines() if line.startswith("coffer_backup_store_up{")] == wanted
