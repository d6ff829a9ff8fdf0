"""Checkpoints in an S3-compatible store over TLS, with the certificates and credentials of `deploy/secrets.sh`."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from tenants.audit.store import CheckpointStore
from tenants.errors import StoreUnavailable
from tests.cli.test_cli import coffer, environment

__all__ = ["environment"]  # the fixture
URL = "s3://coffer-audit/main"


@pytest.fixture(scope="module")
def store_variables(secrets: Path) -> Iterator[dict[str, str]]:
    """As docker-compose.yml sets them, for a server in this process with a bucket."""
    tls = (str(secrets / "store.pem"), str(secrets / "store.key"))
    server = make_server(
        "127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=True, ssl_context=tls
    )
    running = threading.Thread(target=server.serve_forever)
    running.start()
    made = {
        "AWS_ENDPOINT_URL": f"https://localhost:{server.server_port}",
        "AWS_REGION": "us-east-1",
        "AWS_CHECKSUM_ALGORITHM": "sha256",
        "SSL_CERT_FILE": str(secrets / "ca.pem"),
        **dict(line.split("=", 1) for line in (secrets / "store.env").read_text().split()),
    }
    try:
        client(made).create_bucket(Bucket="coffer-audit")
        yield made
    finally:
        server.shutdown()
        running.join()
        server.server_close()


def client(variables: dict[str, str]) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=variables["AWS_ENDPOINT_URL"],
        region_name=variables["AWS_REGION"],
        aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
        verify=variables["SSL_CERT_FILE"],
    )


@pytest.fixture
def variables(store_variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    for name, value in {**store_variables, "NO_PROXY": "localhost"}.items():
        monkeypatch.setenv(name, value)
    return store_variables


async def test_a_copy_is_put_once_and_read_back_over_tls(variables: dict[str, str]) -> None:
    store, mine, other = CheckpointStore(URL), uuid4(), uuid4()
    assert await store.put(mine, 7, b"first")
    assert not await store.put(mine, 7, b"second")
    assert await store.put(other, 7, b"other")
    found = [each async for some in store.read(mine) for each in some]
    assert found == [(f"audit/{mine}/{7:020}.json", b"first")]


async def test_a_store_that_another_ca_vouches_for_is_not_spoken_to(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(StoreUnavailable):
        await CheckpointStore(URL).put(uuid4(), 1, b"one")


async def test_no_variable_takes_it_out_of_tls(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", variables["AWS_ENDPOINT_URL"].replace("https:", "http:"))
    with pytest.raises(StoreUnavailable):
        await CheckpointStore(URL).put(uuid4(), 1, b"one")


async def test_the_probe_finds_that_nothing_is_overwritten(variables: dict[str, str]) -> None:
    assert await CheckpointStore(URL).keeps()
    assert await CheckpointStore(URL).keeps()  # its object is there already


async def test_the_doctor_finds_the_store_well(variables: dict[str, str], environment: dict[str, str]) -> None:
    done = await coffer("doctor", environment=environment | variables | {"COFFER_AUDIT_STORE": URL})
    assert "ok   second place of the audit log" in done.stdout.splitlines(), done.stdout + done.stderr
    assert done.returncode == 0


async def test_the_doctor_tells_of_a_bucket_that_is_not_there(
    variables: dict[str, str], environment: dict[str, str]
) -> None:
    done = await coffer("doctor", environment=environment | variables | {"COFFER_AUDIT_STORE": "s3://nowhere/main"})
    assert "FIX  second place of the audit log: no such bucket or folder; make it" in done.stdout
    assert done.returncode == 1
