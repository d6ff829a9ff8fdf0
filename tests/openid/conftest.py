"""A provider, and a house of our own that may reach it although it is inside: it makes members and gives them roles."""

import dataclasses
import os
from collections.abc import AsyncIterator

import httpx
import pytest

from api.app import Api
from local.postgres import Postgres
from tests.conftest import Vault
from tests.house import House, settings_for
from tests.house import house as built
from tests.openid.keys import signing_key
from tests.openid.provider import Browser, OpenIdProvider, running

ACCOUNTS = {
    "ada": {"email": "ada@login.example.org", "email_verified": True, "name": "Ada Example", "groups": ["crm-agents"]},
    "bob": {"email": "agent@acme.example.org", "email_verified": True, "name": "Bob Example", "groups": ["crm-agents"]},
    "nobody": {"groups": ["elsewhere"]},
    "sync-service": {"groups": ["crm-sync"]},
}


@pytest.fixture(scope="session")
async def house(postgres_server: Postgres, vault: Vault) -> AsyncIterator[House]:
    async with built(postgres_server, vault, f"coffer_openid_{os.getpid()}") as made:
        yield made


@pytest.fixture(scope="session")
async def provider() -> AsyncIterator[OpenIdProvider]:
    async with running(signing_key("RS256", "first"), id_tokens="RS256", accounts=ACCOUNTS) as made:
        yield made


@pytest.fixture
async def signed_on(house: House, provider: OpenIdProvider) -> AsyncIterator[House]:
    """The house by a process of its own, which knows of no provider yet."""
    async with reaching(house, provider) as made:
        yield made


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    made = Browser()
    yield made
    await made.close()


def reaching(house: House, *providers: OpenIdProvider) -> "_Reaching":
    return _Reaching(house, providers)


class _Reaching:
    def __init__(self, house: House, providers: tuple[OpenIdProvider, ...]) -> None:
        self._house = house
        self._allowed = frozenset(each.place for each in providers)

    async def __aenter__(self) -> House:
        house = self._house
        changes = {"egress_allow": self._allowed, "cors_origins": ("https://portal.example.org",)}
        self._api = Api(settings_for(house.server, house.database, house.vault, **changes))
        transport = httpx.ASGITransport(app=self._api.app)
        self._client = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000", timeout=60)
        return dataclasses.replace(house, api=self._api, client=self._client)

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()
        await self._api.close()
