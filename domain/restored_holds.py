"""What a restore leaves exactly as it is, because of a legal hold; and what nobody else can have meanwhile."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import Select, and_, select

from domain import tags
from domain.customers.fields import FIELDS
from domain.customers.rows import Customer, CustomerToken
from domain.holds import LegalHold
from domain.tags import CustomerTag, Tag
from tenants.backups.loading import Row, Target
from tenants.unit import Unit

_UNIQUE = frozenset(known.index.name for known in FIELDS.values() if known.index is not None and known.index.is_unique)
_WHY = "to see whether a backup has a tag of that name"


@dataclass(frozen=True, slots=True)
class Kept:
    """Customers under a legal hold, their tags, and so many of those links."""

    customers: frozenset[UUID] = frozenset()
    tags: frozenset[UUID] = frozenset()
    links: int = 0

    def named(self, target: Target) -> tuple[str, frozenset[UUID]]:
        """The column by which rows of that table are kept, and what it holds in them."""
        found = {
            Customer.__tablename__: ("id", self.customers),
            Tag.__tablename__: ("id", self.tags),
            CustomerTag.__tablename__: ("customer_id", self.customers),
        }
        return found.get(target.name, ("id", frozenset()))

    def others(self, target: Target, rows: list[Row]) -> list[Row]:
        """Those rows of a backup that do not speak of what is kept."""
        column, ids = self.named(target)
        return [row for row in rows if UUID(row[column]) not in ids] if ids else rows

    def count(self, target: Target) -> int:
        return self.links if target.table is CustomerTag.__table__ else len(self.named(target)[1])


@dataclass(frozen=True, slots=True)
class Taken:
    """What only one may have, by who was kept and has it: tokens of unique values, and names of tags."""

    tokens: Mapping[bytes, UUID] = field(default_factory=dict)
    names: Mapping[str | None, UUID] = field(default_factory=dict, repr=False)


async def held(unit: Unit) -> Kept:
    """Customers under a legal hold that there are, and all they bear."""
    borne = (CustomerTag.tenant_id == unit.tenant.id, CustomerTag.customer_id.in_(_held(unit)))
    found = await unit.scalars(select(CustomerTag.tag_id).where(*borne))
    return Kept(frozenset(await unit.scalars(_held(unit))), frozenset(found), len(found))


async def taken(unit: Unit) -> Taken:
    """By those whom `held` finds; of a tag's bearers one."""
    mine = (CustomerToken.tenant_id == unit.tenant.id, CustomerToken.index.in_(_UNIQUE))
    tokens = select(CustomerToken.token, CustomerToken.customer_id).where(
        *mine, CustomerToken.customer_id.in_(_held(unit))
    )
    borne = select(CustomerTag.tag_id, CustomerTag.customer_id).where(
        CustomerTag.tenant_id == unit.tenant.id, CustomerTag.customer_id.in_(_held(unit))
    )
    bearers = {row.tag_id: row.customer_id for row in await unit.rows(borne)}
    named = [tag for tag in await tags.get_many(unit, list(bearers)) if tag is not None] if bearers else []
    names = {tag.document("name", _WHY).name: bearers[tag.id] for tag in named}
    return Taken({bytes(row.token): row.customer_id for row in await unit.rows(tokens)}, names)


def is_unique(token: Mapping[str, Any]) -> bool:
    """Whether no two customers may have it; a row of `CustomerToken`."""
    return token["index"] in _UNIQUE


def _held(unit: Unit) -> Select[Any]:
    of_them = and_(LegalHold.tenant_id == Customer.tenant_id, LegalHold.customer_id == Customer.id)
    mine = (LegalHold.tenant_id == unit.tenant.id, LegalHold.lifted_at.is_(None))
    return select(LegalHold.customer_id).join(Customer, of_them).where(*mine).distinct()
