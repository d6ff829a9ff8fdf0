"""The parts that a command acts with: databases, keys and units, without HTTP and GraphQL."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import settings as environment
from crypto.cache import KeyringCache
from crypto.transit import TransitKeys
from domain import tables
from settings import AppRole, Settings, SettingsError
from tenants.database import Database
from tenants.units import Units

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Parts:
    """`units` are entered by the house itself: a command shows nobody's values."""

    settings: Settings
    database: Database
    platform: Database
    keys: TransitKeys
    keyrings: KeyringCache
    units: Units


def with_parts(act: Callable[[Parts], Coroutine[Any, Any, T]]) -> T:
    settings = environment.read()

    async def run() -> T:
        async with opened(settings) as parts:
            return await act(parts)

    return asyncio.run(run())


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Parts]:
    """With every table known: what counts, proves or purges goes by what is declared."""
    tables.load()
    database = Database(settings.database_url, pool_size=settings.pool_size)
    platform = Database(settings.platform_database_url, pool_size=2)
    keys = keys_as(settings.api_role, settings)
    keyrings = KeyringCache(ttl=settings.key_ttl_seconds)
    try:
        yield Parts(settings, database, platform, keys, keyrings, Units(database, keys, keyrings))
    finally:
        await keys.close()
        await database.close()
        await platform.close()


def keys_as(role: AppRole, settings: Settings) -> TransitKeys:
    return TransitKeys(
        settings.vault_address,
        role.role_id,
        role.secret_id,
        ca_file=settings.vault_ca_file,
        mount=settings.transit_mount,
    )


@asynccontextmanager
async def provisioner_keys(settings: Settings) -> AsyncIterator[TransitKeys]:
    """The key store as the provisioner; raises `SettingsError` where no such role is set."""
    role = settings.provisioner_role
    if role is None:
        names = ("COFFER_VAULT_PROVISIONER_ROLE_ID", "COFFER_VAULT_PROVISIONER_SECRET_ID")
        raise SettingsError("\n".join(f"{name} is missing; see README, Settings." for name in names))
    keys = keys_as(role, settings)
    try:
        yield keys
    finally:
        await keys.close()
