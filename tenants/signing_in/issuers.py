"""Whose tokens are whose: each issuer and audience belongs to one provider of one tenant on the whole platform.

The platform's role reads it, to tell from a token which tenant to enter; a tenant's unit claims and gives back its own.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Boolean, Column, Index, Table, Text, Uuid, delete, insert, select
from sqlalchemy.exc import IntegrityError

from tenants.database import Database
from tenants.errors import IssuerTaken
from tenants.owned import TenantOwned
from tenants.unit import Unit
from tenants.viewers import TenantId

_KNOWN = 10_000
_FRESH = 5.0  # seconds
_LONGEST = 512


def _clear(why: str) -> dict[str, str]:
    return {"clear": why}


issuers = Table(
    "issuers",
    TenantOwned.metadata,
    Column("issuer", Text, primary_key=True, info=_clear("a public address; tells whose token it is before any key")),
    Column("audience", Text, primary_key=True, info=_clear("stands in tokens, before any key")),
    Column("tenant_id", Uuid, nullable=False, info=_clear("whose provider it is; row-level security stands on it")),
    Column("provider_id", Uuid, nullable=False, info=_clear("a random id")),
    Column("is_for_services", Boolean, nullable=False, info=_clear("whether bearer tokens are taken for it")),
    Index("ix_issuers_tenant", "tenant_id", "provider_id"),
)


@dataclass(frozen=True, slots=True)
class Claim:
    tenant: TenantId
    provider: UUID


async def claim(unit: Unit, provider: UUID, issuer: str, *, client: str, audience: str | None) -> None:
    """Take (issuer, client) and, for services, (issuer, audience) in place of what the provider had.

    Raises `IssuerTaken` where another provider, whoever's, has one of them.
    """
    await give_back(unit, provider)
    rows = [
        {
            "issuer": issuer,
            "audience": name,
            "tenant_id": unit.tenant.id,
            "provider_id": provider,
            "is_for_services": name == audience,
        }
        for name in sorted({client} | ({audience} if audience else set()))
    ]
    try:
        async with unit.savepoint():
            await unit.run(insert(issuers), rows)
    except IntegrityError as error:
        raise IssuerTaken from error


async def give_back(unit: Unit, provider: UUID) -> None:
    await unit.run(delete(issuers).where(issuers.c.tenant_id == unit.tenant.id, issuers.c.provider_id == provider))


async def is_ours(unit: Unit, issuer: str, audiences: Collection[str]) -> bool:
    """Whether a provider of the unit's own tenant has one of them."""
    where = (issuers.c.tenant_id == unit.tenant.id, issuers.c.issuer == issuer, issuers.c.audience.in_(audiences))
    return bool(await unit.rows(select(issuers.c.provider_id).where(*where)))


class Claims:
    """Asks the platform once in 5 s for what is known and for what is not: a flood of made-up issuers costs little."""

    def __init__(self, platform: Database, clock: Callable[[], float] = time.monotonic) -> None:
        self._platform = platform
        self._clock = clock
        self._known: OrderedDict[tuple[str, str], tuple[float, Claim | None]] = OrderedDict()

    async def find(self, issuer: str, audience: str) -> Claim | None:
        """Who takes bearer tokens of that issuer for that audience."""
        key = (issuer, audience)
        known = self._known.get(key)
        if known is not None and known[0] > self._clock():
            return known[1]
        found = await self._read(issuer, audience) if _is_storable(key) else None
        self._known[key] = (self._clock() + _FRESH, found)
        self._known.move_to_end(key)
        while len(self._known) > _KNOWN:
            self._known.popitem(last=False)
        return found

    async def _read(self, issuer: str, audience: str) -> Claim | None:
        where = (issuers.c.issuer == issuer, issuers.c.audience == audience, issuers.c.is_for_services)
        async with self._platform.statements() as connection:
            row = (await connection.execute(select(issuers).where(*where))).one_or_none()
        return None if row is None else Claim(TenantId(row.tenant_id), row.provider_id)


def _is_storable(texts: Iterable[str]) -> bool:
    return all(len(text) <= _LONGEST and "\0" not in text for text in texts)
