"""The servers that stock clients talk to, and what the clients need."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

import pytest
import uvicorn

from api.app import Api
from settings import Mode, Settings
from tenants.access import Role
from tests.clients import node_packages
from tests.clients.node_packages import Run
from tests.house import PASSWORD, House, settings_for

TENANT = "clients"


@dataclass(frozen=True)
class Served:
    """A running server: its origin, and the sign-in of a member who may do everything there."""

    origin: str
    tenant: str = TENANT
    email: str = f"owner@{TENANT}.example.org"
    password: str = PASSWORD

    @property
    def url(self) -> str:
        return f"{self.origin}/graphql"


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.settled = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        finally:
            self.settled.set()


@contextmanager
def serving(settings: Settings) -> Iterator[str]:
    """The origin of an Api that a thread with a loop of its own serves, as `coffer serve` does, on a free port."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        app = Api(settings).app
        server = _Server(uvicorn.Config(app, lifespan="on", log_config=None, timeout_graceful_shutdown=5))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            assert server.settled.wait(30), "the server did not start within 30 seconds"
            assert server.started, "the server refused to start"
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)


@pytest.fixture(scope="session")
async def tenant(house: House) -> str:
    """A tenant that no other test counts the customers of."""
    await house.add_tenant(TENANT)
    return TENANT


@pytest.fixture(scope="session")
def production(house: House, tenant: str) -> Iterator[Served]:
    """As customers run it: no introspection for the anonymous, no GraphiQL."""
    settings = settings_for(house.server, house.database, house.vault, mode=Mode.PRODUCTION)
    with serving(settings) as origin:
        yield Served(origin, tenant)


@pytest.fixture(scope="session")
def development(house: House, tenant: str) -> Iterator[Served]:
    with serving(settings_for(house.server, house.database, house.vault)) as origin:
        yield Served(origin, tenant)


@pytest.fixture(scope="session")
async def token(house: House, tenant: str) -> str:
    return await house.token(house.members[tenant][Role.OWNER])


@pytest.fixture(scope="session")
def node() -> Run:
    """Runs a script of this folder."""
    node_packages.install()
    return node_packages.run


@pytest.fixture(scope="session")
def browser(node: Run) -> dict[str, str]:
    """Where the packaged Chromium, the libraries and the fonts that it needs lie."""
    if not node_packages.HAS_BROWSER:
        pytest.skip("the packaged Chromium is built for Linux on x86-64 only")
    return node_packages.browser()
