"""A whole Coffer for tests: a migrated database, two tenants with a member of every role, and the API in process."""

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson

from api.app import Api
from local.postgres import Postgres, create_roles_and_database
from migrations.apply import upgrade
from settings import AppRole, Mode, Settings
from tenants import members
from tenants.access import Role
from tenants.provisioning import Provisioning
from tenants.tenants import Tenant
from tenants.viewers import Credential, MemberId, TenantId
from tests.conftest import Vault

PASSWORD = "correct horse battery staple"
# Argon2id of PASSWORD by the product's own settings; made once, because each takes 100 ms.
_hash: list[str] = []


@dataclass
class House:
    """`members[slug][role]` is the credential of that member; `ask` runs a GraphQL document as one of them."""

    api: Api
    server: Postgres
    database: str
    vault: Vault
    provisioning: Provisioning
    client: httpx.AsyncClient
    tenants: dict[str, Tenant] = field(default_factory=dict)
    members: dict[str, dict[Role, Credential]] = field(default_factory=dict)
    tokens: dict[Credential, tuple[float, str]] = field(default_factory=dict)

    def url(self, role: str) -> str:
        return self.server.url(role, self.database)

    @property
    def superuser_url(self) -> str:
        return self.server.url("postgres", self.database)

    async def ask(
        self,
        document: str,
        variables: dict[str, Any] | None = None,
        *,
        role: Role | None = Role.OWNER,
        tenant: str = "acme",
        headers: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        """The parsed body; it may hold errors."""
        response = await self.post(document, variables, role=role, tenant=tenant, headers=headers)
        answer: dict[str, Any] = response.json()
        return answer

    async def post(
        self,
        document: str,
        variables: dict[str, Any] | None = None,
        *,
        role: Role | None = Role.OWNER,
        tenant: str = "acme",
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        sent = {"accept": "application/json", "content-type": "application/json", **(headers or {})}
        if role is not None:
            sent["authorization"] = f"Bearer {await self.token(self.members[tenant][role])}"
        body = orjson.dumps({"query": document, "variables": variables or {}}, default=str)
        return await self.client.post("/graphql", content=body, headers=sent)

    async def data(self, document: str, variables: dict[str, Any] | None = None, **who: Any) -> dict[str, Any]:
        """The data of an answer that must have no errors."""
        answer = await self.ask(document, variables, **who)
        assert "errors" not in answer, answer["errors"]
        data: dict[str, Any] = answer["data"]
        return data

    async def token(self, credential: Credential) -> str:
        """Made anew after a third of its life: a session of tests outlasts it."""
        issued, token = self.tokens.get(credential, (float("-inf"), ""))
        if time.monotonic() - issued > self.api.tokens.lifetime / 3:
            issued, token = time.monotonic(), await self.api.tokens.issue(credential)
            self.tokens[credential] = (issued, token)
        return token

    async def create(self, *, tenant: str = "acme", role: Role = Role.OWNER, **fields: Any) -> dict[str, Any]:
        """A new customer, by its fields as GraphQL spells them."""
        made = await self.data(
            "mutation($i: CustomerInput!) { createCustomer(input: $i)"
            " { customer { id version } userErrors { code path message } } }",
            {"i": fields},
            tenant=tenant,
            role=role,
        )
        assert made["createCustomer"]["userErrors"] == []
        customer: dict[str, Any] = made["createCustomer"]["customer"]
        return customer

    async def add_tenant(self, slug: str) -> Tenant:
        tenant = self.tenants[slug] = await self.provisioning.provision(slug, slug.title(), region="US")
        self.members[slug] = {}
        async with self.api.units.enter(TenantId(tenant.id), None, write=True) as unit:
            for role in Role:
                email = f"{role.value.lower()}@{slug}.example.org"
                name = role.value.title()
                made = await members.add(unit, email=email, name=name, password_hash=_hash[0], roles=[role])
                self.members[slug][role] = Credential(tenant.id, MemberId(made))
        return tenant


def settings_for(server: Postgres, database: str, vault: Vault, **changes: Any) -> Settings:
    roles = {name: getattr(vault.credentials, name) for name in ("api", "provisioner")}
    wanted: dict[str, Any] = {
        "mode": Mode.DEVELOPMENT,
        "database_url": server.url("coffer_app", database, scheme="postgresql+asyncpg"),
        "platform_database_url": server.url("coffer_platform", database, scheme="postgresql+asyncpg"),
        "recorder_database_url": server.url("coffer_recorder", database, scheme="postgresql+asyncpg"),
        "owner_database_url": server.url("coffer_owner", database, scheme="postgresql+asyncpg"),
        "vault_address": vault.bao.address,
        "vault_ca_file": None,
        "transit_mount": "transit",
        "signing_key": "coffer-access",
        "api_role": AppRole(roles["api"].role_id, roles["api"].secret_id),
        "provisioner_role": AppRole(roles["provisioner"].role_id, roles["provisioner"].secret_id),
        "issuer": "http://127.0.0.1:8000",
        "host": "127.0.0.1",
        "port": 8000,
        "cors_origins": (),
        "pool_size": 10,
        "key_ttl_seconds": 300,
        "log_level": "INFO",
        "audit_store": f"file://{tempfile.gettempdir()}/{database}-audit",
    }
    return Settings(**{**wanted, **changes})


@asynccontextmanager
async def house(
    server: Postgres, vault: Vault, database: str, *, slugs: tuple[str, ...] = ("acme", "globex")
) -> AsyncIterator[House]:
    """A fresh database of that name, migrated, with these tenants."""
    settings = await asyncio.to_thread(prepare, server, vault, database)
    api = Api(settings)
    maker = api.keys.__class__(
        settings.vault_address,
        settings.provisioner_role.role_id,  # type: ignore[union-attr]  # prepare gave one
        settings.provisioner_role.secret_id,  # type: ignore[union-attr]
    )
    if not _hash:
        _hash.append(await api.passwords.hash(PASSWORD))
    transport = httpx.ASGITransport(app=api.app, raise_app_exceptions=True)
    try:
        await api.check()
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000", timeout=60) as client:
            provisioning = Provisioning(api.platform, api.database, maker, api.keys)
            built = House(api, server, database, vault, provisioning, client)
            for slug in slugs:
                await built.add_tenant(slug)
            yield built
    finally:
        await maker.close()
        await api.close()
        shutil.rmtree(settings.audit_store.removeprefix("file://"), ignore_errors=True)


def prepare(server: Postgres, vault: Vault, database: str) -> Settings:
    create_roles_and_database(server, database)
    settings = settings_for(server, database, vault)
    assert settings.owner_database_url is not None
    upgrade(settings.owner_database_url)
    return settings
