"""A whole Coffer for tests: a migrated database, two tenants with a member of every role, and the API in process."""

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import orjson

from api.app import Api
from local.postgres import Postgres, create_roles_and_database
from migrations.apply import upgrade
from settings import AppRole, Mode, Settings
from tenants import members
from tenants.access import Role, RoleSpec
from tenants.ids import new_id
from tenants.provisioning import Provisioning
from tenants.roles import MemberOwnRole, OwnRole, Team, TeamMember
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
        member: Credential | None = None,
        headers: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        """The parsed body; it may hold errors. `member` asks instead of the tenant's member of that role."""
        response = await self.post(document, variables, role=role, tenant=tenant, member=member, headers=headers)
        answer: dict[str, Any] = response.json()
        return answer

    async def post(
        self,
        document: str,
        variables: dict[str, Any] | None = None,
        *,
        role: Role | None = Role.OWNER,
        tenant: str = "acme",
        member: Credential | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        sent = {"accept": "application/json", "content-type": "application/json", **(headers or {})}
        asking = member or (None if role is None else self.members[tenant][role])
        if asking is not None:
            sent["authorization"] = f"Bearer {await self.token(asking)}"
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

    async def add_member(self, *specs: RoleSpec, roles: Iterable[Role] = (), tenant: str = "acme") -> Credential:
        """A new member with these built-in roles, and a new role of the tenant's own for each spec."""
        acme = self.tenants[tenant].id
        async with self.api.units.enter(acme, None, write=True) as unit:
            email = f"{new_id().hex}@{tenant}.example.org"
            made = await members.add(unit, email=email, name="Scoped", password_hash=_hash[0], roles=roles)
            for spec in specs:
                role = new_id()
                named = {"name": f"Role {role}", "description": "", "spec": spec.dump()}
                moments = {"created_at": unit.now, "updated_at": unit.now}
                unit.add(OwnRole(tenant_id=acme, id=role, **named, version=1, **moments))
                await unit.flush()
                unit.add(MemberOwnRole(tenant_id=acme, member_id=made, role_id=role))
        return Credential(acme, MemberId(made))

    async def forget_jobs(self) -> None:
        """What earlier tests left undone would keep a worker busy; at once for those who are about to start one."""
        connection = await asyncpg.connect(self.superuser_url)
        try:
            await connection.execute("DELETE FROM jobs; DELETE FROM schedules")
        finally:
            await connection.close()

    async def add_team(self, *mates: Credential, tenant: str = "acme") -> UUID:
        """A new team of these members."""
        acme, team = self.tenants[tenant].id, new_id()
        async with self.api.units.enter(acme, None, write=True) as unit:
            unit.add(Team(tenant_id=acme, id=team, name=f"Team {team}", created_at=unit.now))
            await unit.flush()
            unit.add(*(TeamMember(tenant_id=acme, team_id=team, member_id=mate.principal) for mate in mates))
        return team

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


def backup_stores(database: str) -> tuple[str, ...]:
    """Six folders, made by whoever first asks; `house` takes them away."""
    folders = [Path(tempfile.gettempdir(), f"{database}-backups", str(n)) for n in range(6)]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    return tuple(f"file://{folder}" for folder in folders)


def settings_for(server: Postgres, database: str, vault: Vault, **changes: Any) -> Settings:
    roles = {name: getattr(vault.credentials, name) for name in ("api", "provisioner", "rotator", "backup")}
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
        "rotator_role": AppRole(roles["rotator"].role_id, roles["rotator"].secret_id),
        "backup_role": AppRole(roles["backup"].role_id, roles["backup"].secret_id),
        "backup_stores": backup_stores(database),
        "issuer": "http://127.0.0.1:8000",
        "host": "127.0.0.1",
        "port": 8000,
        "cors_origins": (),
        "pool_size": 10,
        "key_ttl_seconds": 300,
        "log_level": "INFO",
        "rate_percent": 1_000,  # tests of everything else ask as fast as they can
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
        shutil.rmtree(Path(tempfile.gettempdir(), f"{database}-backups"), ignore_errors=True)


def prepare(server: Postgres, vault: Vault, database: str) -> Settings:
    create_roles_and_database(server, database)
    settings = settings_for(server, database, vault)
    assert settings.owner_database_url is not None
    upgrade(settings.owner_database_url)
    return settings
