"""How a tenant comes to life: its row, its Transit key, its data keys, its own subject; each step can be repeated."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.types import Uuid

from crypto.keys import Purpose, check_value, wrapping_context
from crypto.transit import TransitKeys
from tenants import tenants
from tenants.database import Database
from tenants.ids import new_id
from tenants.keys import DataKeyRow
from tenants.subjects import Subject, fresh_secret
from tenants.tenants import Tenant
from tenants.viewers import TenantId

_SCOPE = text("SELECT coffer_enter(:tenant, NULL, true)").bindparams(bindparam("tenant", type_=Uuid))


class Provisioning:
    """`maker` may create keys and open none; `opener` opens what was made, to check it in with a check value."""

    def __init__(self, platform: Database, app: Database, maker: TransitKeys, opener: TransitKeys) -> None:
        self._platform = platform
        self._app = app
        self._maker = maker
        self._opener = opener

    async def provision(self, slug: str, name: str, *, region: str = "US", language: str = "en") -> Tenant:
        """The tenant of that slug, ACTIVE with one active key of each purpose, however many ask at once.

        Cut off anywhere, it is finished by asking again. Raises `SlugRefused`, `KeyUnavailable`, `KeyRefused`.
        """
        tenant = await tenants.create(self._platform, slug, name, region=region, language=language)
        if tenant.status != "PENDING":
            return tenant
        await self._maker.create_tenant_key(tenant.id)
        made = [await self._make(tenant.id, purpose) for purpose in Purpose]
        await self._check_in(tenant.id, made)
        return await tenants.activate(self._platform, slug)

    async def _make(self, tenant: TenantId, purpose: Purpose) -> dict[str, Any]:
        key_id = new_id()
        context = wrapping_context(tenant, key_id, purpose)
        wrapped = await self._maker.make_data_key(tenant, context)
        (secret,) = await self._opener.unwrap(tenant, [(wrapped, context)])
        return {
            "tenant_id": tenant,
            "id": key_id,
            "purpose": purpose.value,
            "version": 1,
            "wrapped": wrapped,
            "check_value": check_value(tenant, key_id, purpose, secret),
            "state": "ACTIVE",
            "created_at": datetime.now(UTC),
        }

    async def _check_in(self, tenant: TenantId, keys: list[dict[str, Any]]) -> None:
        """The first to commit wins; the keys of the others were never used and are dropped."""
        subject = {"tenant_id": tenant, "id": tenant, "secret": fresh_secret(), "created_at": datetime.now(UTC)}
        async with self._app.session(write=True) as session:
            await session.execute(_SCOPE, {"tenant": tenant})
            await session.execute(insert(DataKeyRow).values(keys).on_conflict_do_nothing())
            await session.execute(insert(Subject).values(subject).on_conflict_do_nothing())
