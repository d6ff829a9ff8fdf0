"""Shreds a tenant whose offboarding is due: the order in which key, objects and rows go, so that it may be repeated."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from crypto.shredding import Shredder
from crypto.transit import TransitKeys
from jobs.backups.errors import StoreAway
from jobs.backups.stores import Store
from tenants import tenants
from tenants.database import Database
from tenants.erasures import certificates, shredding
from tenants.erasures.certificates import Signed
from tenants.tenants import Tenant
from tenants.viewers import TenantId


async def shred(
    tenant: Tenant, *, app: Database, platform: Database, keys: TransitKeys, shredder: Shredder, stores: Sequence[Store]
) -> Signed:
    """The certificate. Nobody enters the tenant from the first moment on; cut off anywhere, it goes on when repeated.

    Also what stores list that are configured no longer; of those one that is away stands in the certificate. Raises
    `OffboardingUnknown`, `OffboardingNotDue`, `OffboardingHeld`, `KeyRefused`, `KeyUnavailable` and `StoreAway`.
    """
    offboarding = await shredding.due(app, tenant.id, _now())
    if offboarding.signed is not None:
        return offboarding.signed
    await shredder.check(tenant.id)
    await shredding.begin(app, tenant.id, offboarding.id)
    await tenants.shut(platform, tenant.slug)
    await shredder.destroy(tenant.id)
    await shredding.note_shredded(app, tenant.id, offboarding.id, _now())
    urls = await shredding.note_places(app, tenant.id, offboarding.id, [store.url for store in stores])
    former = [Store(url) for url in sorted(urls - {store.url for store in stores})]
    emptying = _Emptying(app, tenant.id, offboarding.id)
    for store in stores:
        await emptying(store)
    await shredding.purge(app, tenant.id, offboarding.id)
    for store in stores:  # a job that ran until its row went may have written on
        await emptying(store)
    away = [store.url for store in former if not await emptying.tried(store)]
    gone = await shredding.due(app, tenant.id, _now())
    said = shredding.said(tenant.id, tenant.slug, gone, away, _now())
    signed = await certificates.sign(keys, tenant.id, said)
    await shredding.close(app, tenant.id, offboarding.id, signed, _now())
    return signed


@dataclass(frozen=True, slots=True)
class _Emptying:
    """Deletes all of the tenant from a store, and notes how much that was."""

    app: Database
    tenant: TenantId
    offboarding: UUID

    async def __call__(self, store: Store) -> None:
        folder = str(self.tenant)
        names = await store.sizes(folder)
        await self._note(store, len(names))
        for name in names:
            await store.delete(name)
        await store.sweep(folder)
        await self._note(store, 0)

    async def tried(self, store: Store) -> bool:
        """False where the store is away."""
        try:
            await self(store)
        except StoreAway:
            return False
        return True

    async def _note(self, store: Store, listed: int) -> None:
        await shredding.note_objects(self.app, self.tenant, self.offboarding, store.url, listed)


def _now() -> datetime:
    return datetime.now(UTC)
