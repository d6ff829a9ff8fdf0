"""What tests of erasure and offboarding share: a tenant of their own, members who have just proved who they are."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from uuid import UUID, uuid4

import asyncpg

from crypto.transit import TransitKeys
from domain.erasures import FINISH_ERASURE
from jobs.backups.stores import Store
from jobs.erasures import finish_erasure_by
from jobs.handling import Handling
from jobs.key_files.files import KeyFiles
from tenants.access import Role
from tenants.ids import any_local_id
from tenants.jobs import JobId
from tenants.jobs.ledger import Ledger
from tenants.signing_in import sessions
from tenants.signing_in.sessions import Method
from tenants.tenants import Tenant
from tenants.viewers import Credential
from tests.house import House

ERRORS = "userErrors { code path message }"
ERASURE = """id number state customerId cause ticket erasedAt finishedAt certificate { json keyVersion signature }"""
ERASE = f"""mutation($id: ID!, $cause: ErasureCause! = REQUEST, $ticket: String) {{
  at: eraseCustomer(id: $id, cause: $cause, ticket: $ticket) {{ erasure {{ {ERASURE} }} {ERRORS} }} }}"""


@dataclass
class Leaver:
    """A tenant of its own, with key files on three folders."""

    house: House
    tenant: Tenant
    superuser: asyncpg.Connection
    backup_keys: TransitKeys
    stores: list[Store]

    @classmethod
    async def made(cls, house: House, root: Path) -> Self:
        tenant = await house.add_tenant(f"leaver-{uuid4().hex[:12]}")
        role = house.api.settings.backup_role
        assert role is not None
        keys = TransitKeys(house.api.settings.vault_address, role.role_id, role.secret_id)
        folders = [root / str(number) for number in range(3)]
        for folder in folders:
            folder.mkdir(parents=True)
        stores = [Store(f"file://{folder}") for folder in folders]
        return cls(house, tenant, await asyncpg.connect(house.superuser_url), keys, stores)

    async def close(self) -> None:
        await self.backup_keys.close()
        await self.superuser.close()

    def unmount(self, number: int) -> None:
        """As if that store were away."""
        folder = Path(self.stores[number].url.removeprefix("file://"))
        folder.rename(folder.with_name(f"away-{number}"))

    def mount(self, number: int) -> None:
        folder = Path(self.stores[number].url.removeprefix("file://"))
        folder.with_name(f"away-{number}").rename(folder)

    async def proven(self, role: Role) -> Credential:
        """That member, in a session that has just begun."""
        who = self.house.members[self.tenant.slug][role]
        async with self.house.api.units.enter(who.tenant, None, write=True, thaws=True) as unit:
            return await sessions.begin(unit, who.principal, Method.PASSWORD)

    @property
    def key_files(self) -> KeyFiles:
        return KeyFiles(self.house.api.units, self.house.api.keys, self.backup_keys, self.stores)

    async def customer(self, **fields: Any) -> str:
        given = {"givenName": "Ada", "familyName": "Lovelace", "emails": ["ada@example.org"], **fields}
        made: str = (await self.house.create(tenant=self.tenant.slug, **given))["id"]
        return made

    async def finish(self) -> list[str]:
        """Lead every waiting job that finishes an erasure: the states they came to."""
        ledger = Ledger(self.house.api.database, self.house.api.platform, "test")
        handlers = {FINISH_ERASURE: finish_erasure_by(self.key_files, self.house.api.keys)}
        handling = Handling(self.house.api.units, ledger, handlers)
        jobs = await self.fetch("SELECT id FROM jobs WHERE tenant_id = $1 AND kind = 'finish_erasure' ORDER BY id")
        for job in jobs:
            await handling.handle(self.tenant.id, JobId(UUID(str(job["id"]))))
        ended = await self.fetch("SELECT state FROM jobs WHERE tenant_id = $1 AND kind = 'finish_erasure' ORDER BY id")
        return [job["state"] for job in ended]

    async def fetch(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        """`$1` is the tenant."""
        rows: list[asyncpg.Record] = await self.superuser.fetch(query, self.tenant.id, *arguments)
        return rows

    async def count(self, table: str, where: str = "true", *arguments: Any) -> int:
        rows = await self.fetch(f"SELECT count(*) AS n FROM {table} WHERE tenant_id = $1 AND {where}", *arguments)
        return int(rows[0]["n"])


def local(text: str) -> UUID:
    found = any_local_id(text)
    assert found is not None
    return found[1]
