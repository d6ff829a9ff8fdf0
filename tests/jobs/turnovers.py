"""All of a tenant's keys turn over in a test, so that nothing from before opens any more."""

import asyncpg

from crypto.keys import KeyState, Purpose, wrapping_context
from crypto.transit import TransitKeys
from jobs.key_files.files import KeyFiles
from tenants.keys import key_files as rows
from tenants.keys import new_keys
from tenants.viewers import TenantId
from tests.house import House

GONE = (
    "UPDATE data_keys SET state = 'DESTROYED', wrapped = '' WHERE tenant_id = $1 AND version = 1 AND purpose <> 'AUD'"
)


async def replace_keys(house: House, tenant: TenantId, superuser: asyncpg.Connection) -> None:
    """Another data key and another index key are in force; nothing that was sealed is sealed anew."""
    await superuser.execute(GONE, tenant)
    for purpose in (Purpose.DEK, Purpose.BIK):
        maker = house.provisioning._maker
        made = await new_keys.make(maker, house.api.keys, tenant, purpose, 2, KeyState.ACTIVE)
        await superuser.execute(
            "INSERT INTO data_keys (tenant_id, id, purpose, version, wrapped, check_value, state, created_at)"
            " VALUES ($1, $2, $3, 2, $4, $5, 'ACTIVE', now())",
            *(tenant, made.id, purpose.value, made.wrapped, made.check_value),
        )
    await superuser.execute("UPDATE tenants SET key_epoch = key_epoch + 1 WHERE id = $1", tenant)


async def replace_wrapping(
    house: House, tenant: TenantId, superuser: asyncpg.Connection, key_files: KeyFiles, rotator: TransitKeys
) -> None:
    """What was wrapped before opens no more; all that the database and the stores have was wrapped anew."""
    version = await rotator.rotate(tenant)
    async with house.api.units.enter(tenant, None, write=False) as unit:
        wrapped = (await rows.contents(unit)).data_keys
    pairs = [(each.wrapped, wrapping_context(tenant, each.id, each.purpose)) for each in wrapped]
    for each, text in zip(wrapped, await rotator.rewrap(tenant, pairs), strict=True):
        await superuser.execute("UPDATE data_keys SET wrapped = $1 WHERE id = $2", text, each.id)
    await key_files.rewrap(tenant, rotator)
    await rotator.raise_floor(tenant, version)
