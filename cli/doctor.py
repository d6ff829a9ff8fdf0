"""`coffer doctor`: looks at all that Coffer stands on, and says a line each: well, or what to do.

It holds no SQL and makes nothing but small objects: on each store of backups one that is deleted again, and one in the
second place of the audit log, which proves that none is overwritten: what a policy must refuse is asked for in a form
that could not succeed.
"""

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from sqlalchemy.exc import DBAPIError

import settings as environment
from cli.commands import refusal
from cli.parts import Parts, opened, provisioner_keys
from crypto.errors import CofferError, KeyRefused
from domain.rotations import STUCK_AFTER
from jobs.backups.stores import Store
from settings import Settings
from tenants import catalogue, inspections, tenants
from tenants.audit.store import CheckpointStore
from tenants.database import Database
from tenants.errors import DatabaseUnavailable, StoreUnavailable
from tenants.keys import proving

_SKEW_SECONDS = 5
_STORE_SECONDS = 20.0  # longer than its client tries
# Of all tenants' keys: what the API's policy must refuse, by the path below the transit mount.
_BEYOND_THE_API = {
    "keys": "create keys",
    "datakey/wrapped": "make data keys",
    "datakey/plaintext": "make data keys in clear",
    "encrypt": "encrypt",
}


async def examine(settings: Settings) -> list[tuple[str, list[str]]]:
    """Each check by its name, with a sentence for each thing that is to be mended."""
    others = {"recorder": Database(settings.recorder_database_url, pool_size=1)}
    if settings.owner_database_url is not None:
        others["owner"] = Database(settings.owner_database_url, pool_size=1)
    try:
        async with opened(settings) as parts:
            return [(name, await _or_told(check)) for name, check in _checks(parts, others)]
    finally:
        for database in others.values():
            await database.close()


def _checks(parts: Parts, others: dict[str, Database]) -> list[tuple[str, Coroutine[Any, Any, list[str]]]]:
    settings = parts.settings
    databases = {"serving": parts.database, "platform": parts.platform, **others}
    checks: list[tuple[str, Coroutine[Any, Any, list[str]]]] = [
        *((f"TLS to Postgres, {name} role", _encrypted(database)) for name, database in databases.items()),
        ("database roles, rights and row-level security", catalogue.problems(parts.database, catalogue.APP)),
        ("database, platform role", catalogue.problems(parts.platform, catalogue.PLATFORM)),
        ("database, recorder role", catalogue.problems(others["recorder"], catalogue.RECORDER)),
        ("columns that a data key's rotation reads", _unobstructed(parts.database)),
        ("rotations of keys", _turning(parts)),
        ("broker", _reached(settings)),
        ("clock", _skewed(parts.database)),
        ("TLS to Vault", _vault_encrypted(settings)),
        ("Vault health", _healthy(parts)),
        ("Vault policy of the API", _api_policy(parts)),
        ("Vault policy of the provisioner", _provisioner_policy(parts)),
        ("second place of the audit log", _kept_apart(settings)),
        *((f"store {number} of backups", _stores(url)) for number, url in enumerate(settings.backup_stores, 1)),
    ]
    if settings.owner_database_url is not None:
        checks.append(("migrations", _drifted(settings.owner_database_url)))
    return checks


async def _stores(url: str) -> list[str]:
    """A tiny object is put, read and deleted."""
    store, name, content = Store(url), f"doctor/{uuid4()}", b"coffer"
    try:
        async with asyncio.timeout(_STORE_SECONDS):
            await store.put(name, content)
            found = await store.get(name, 0, len(content))
            await store.delete(name)
            left = await store.sizes("doctor")
    except TimeoutError:
        return ["it does not answer; check its address, the network, and the credentials in the environment."]
    except CofferError as error:
        return [f"{error.code}: {error.message} Check its address, its space, and the credentials in the environment."]
    if found != content or name in left:
        return ["it does not give back what was put, or keeps what was deleted; no backup can be trusted to it."]
    return []


async def _reached(settings: Settings) -> list[str]:
    from jobs.brokers import close_broker, open_broker, reach  # so do the clients of brokers

    broker = open_broker(settings.broker_url, queue=settings.broker_queue, ca_file=settings.broker_ca_file)
    try:
        await asyncio.to_thread(reach, broker)
    except Exception as error:  # each broker's client has errors of its own; their messages might hold the password
        return [f"it does not answer ({type(error).__name__}); check COFFER_BROKER_URL and that the broker runs"]
    finally:
        await asyncio.to_thread(close_broker, broker)
    return []


async def _or_told(check: Coroutine[Any, Any, list[str]]) -> list[str]:
    try:
        return await check
    except CofferError as error:
        return [error.message]
    except DBAPIError as error:
        return [refusal(error)]


async def _encrypted(database: Database) -> list[str]:
    link = await inspections.link(database)
    return [] if link.is_tls or link.is_local else ["not encrypted; end its URL in ?sslmode=verify-full"]


async def _unobstructed(app: Database) -> list[str]:
    return [
        f"{each.place} holds sealed values and nobody declared it, so no data key that sealed one can go; empty it"
        if each.is_readable
        else f"{each.place} can't be read, and each rotation of a data key stops there; drop it, or grant it to the API"
        for each in await proving.obstacles(app)
    ]


async def _turning(parts: Parts) -> list[str]:
    """Of all tenants: rotations that stand still."""
    found, last, now = [], "", datetime.now(UTC)
    while page := await tenants.page(parts.platform, after=last):
        last = page[-1].slug
        for tenant in page:
            for each in await inspections.open_rotations(parts.database, tenant.id):
                if now - each.moved_at >= STUCK_AFTER:
                    since, reason = each.moved_at.date(), each.reason or each.job_state or "no job"
                    found.append(
                        f"{tenant.slug}: that of the {each.purpose} is {each.state} since {since} ({reason}); "
                        "mend that and `coffer keys rotate` again, or see `coffer keys abandon`"
                    )
    return found


async def _skewed(database: Database) -> list[str]:
    before = datetime.now(UTC)
    clock = (await inspections.link(database)).clock
    after = datetime.now(UTC)
    seconds = max((before - clock).total_seconds(), (clock - after).total_seconds())
    return [f"Postgres' clock is {seconds:.0f} s away from ours; run NTP on both"] if seconds > _SKEW_SECONDS else []


async def _drifted(url: str) -> list[str]:
    from migrations.apply import drift  # alembic takes its time, and is needed here only

    try:
        found = await asyncio.to_thread(drift, url)
    except OSError as cause:
        raise DatabaseUnavailable from cause
    return [] if found is None else [f"{found.rstrip('.')}; run `coffer migrate` of the release that serves"]


async def _kept_apart(settings: Settings) -> list[str]:
    try:
        async with asyncio.timeout(_STORE_SECONDS):
            is_kept = await CheckpointStore(settings.audit_store).keeps()
    except TimeoutError:
        return [_STORE_ADVICE]
    except StoreUnavailable as error:
        return [_STORE_REFUSALS.get(type(error.__cause__).__name__, _STORE_ADVICE)]
    return [] if is_kept else ["it overwrites; COFFER_AUDIT_STORE needs a store that honours If-None-Match"]


_STORE_ADVICE = "it does not answer; check COFFER_AUDIT_STORE, AWS_ENDPOINT_URL (https://) and SSL_CERT_FILE"
_STORE_REFUSALS = {  # by the class of the store's error; its message might hold a name or a key
    "FileNotFoundError": "no such bucket or folder; make it, or mend COFFER_AUDIT_STORE",
    "PermissionDeniedError": "it refuses us; allow our AWS_ACCESS_KEY_ID to list, put and get there",
    "UnauthenticatedError": "it does not know us; check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
}


async def _vault_encrypted(settings: Settings) -> list[str]:
    parts = urlsplit(settings.vault_address)
    encrypted = parts.scheme == "https" or environment.is_loopback(parts.hostname)
    return [] if encrypted else ["not encrypted; give COFFER_VAULT_ADDR an https:// address"]


async def _healthy(parts: Parts) -> list[str]:
    await parts.keys.health()
    return []


async def _api_policy(parts: Parts) -> list[str]:
    await parts.keys.health()  # a Vault that is away would look like one that refuses
    again = "load deploy/vault/api.hcl again by deploy/vault/setup.sh"
    found = []
    try:
        await parts.keys.sign(parts.settings.signing_key, b"coffer doctor")
    except KeyRefused:
        found.append(f"it can't sign access tokens; {again}")
    for path, act in _BEYOND_THE_API.items():
        if await parts.keys.may(path):
            found.append(f"it may {act}; {again}")
    return found


async def _provisioner_policy(parts: Parts) -> list[str]:
    if parts.settings.provisioner_role is None:
        return []
    again = "load deploy/vault/provisioner.hcl again by deploy/vault/setup.sh"
    found, context = [], b"coffer doctor"
    async with provisioner_keys(parts.settings) as maker:
        await maker.health()
        if (tenant := await tenants.find_with_keys(parts.platform)) is not None:
            try:
                wrapped = await maker.make_data_key(tenant.id, context)
            except KeyRefused:
                return [f"it can't make data keys; {again}"]
            if await _is_allowed(maker.unwrap(tenant.id, [(wrapped, context)])):
                found.append(f"it may open data keys; {again}")
        if await _is_allowed(maker.sign(parts.settings.signing_key, context)):
            found.append(f"it may sign access tokens; {again}")
    return found


async def _is_allowed(act: Coroutine[Any, Any, object]) -> bool:
    try:
        await act
    except KeyRefused:
        return False
    return True
