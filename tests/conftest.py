"""The real Postgres and the real OpenBao that a whole test session shares."""

import os
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from local.openbao import Credentials, OpenBao, OpenBaoServer, configure, running_server
from local.postgres import Postgres, postgres

if TYPE_CHECKING:
    from tests.house import House


_LONG = frozenset({"local", "jobs", "cli", "deploy", "leaks", "invariants", "webhooks"})


@dataclass(frozen=True, slots=True)
class Vault:
    """A configured OpenBao; `server` may be stopped by a test that starts it again."""

    server: OpenBaoServer
    bao: OpenBao
    credentials: Credentials


def pytest_configure() -> None:
    # `timeout` and CI end us by SIGTERM; as Ctrl-C it still stops the servers we started
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Folders whose files take long go first, so that no worker is left alone with one of them at the end."""
    items.sort(key=lambda item: item.path.parent.name not in _LONG)  # stable


@pytest.fixture(scope="session")
def service_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="coffer-test-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def postgres_server(service_folder: Path) -> Iterator[Postgres]:
    """Our own server, or the one whose superuser's URL stands in COFFER_TEST_DATABASE_URL."""
    elsewhere = os.environ.get("COFFER_TEST_DATABASE_URL")
    if elsewhere:
        yield Postgres(elsewhere)
        return
    with postgres(service_folder / "postgres", durable=False) as server:
        yield server


@pytest.fixture(scope="session")
def vault(service_folder: Path) -> Iterator[Vault]:
    with running_server(service_folder / "openbao") as server:
        bao = server.start()
        yield Vault(server, bao, configure(bao))


@pytest.fixture(scope="session")
async def house(postgres_server: Postgres, vault: Vault) -> "AsyncIterator[House]":
    """Two tenants, acme and globex, each with a member of every role; tests make customers of their own."""
    from tests.house import house as built

    async with built(postgres_server, vault, f"coffer_test_{os.getpid()}") as made:
        yield made
