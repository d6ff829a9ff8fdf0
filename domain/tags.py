"""Tags: a tenant's own words for groups of its customers; the words are sealed, because they may say a lot."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKeyConstraint, Index, Row, func, select
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.orm import Mapped

from crypto.keyring import SealedCell
from crypto.values import Secret
from domain import normalise, required
from domain.errors import Forbidden, Refused, UserError
from tenants.access import Level, Relation, Sensitivity
from tenants.documents import Document, Mask, personal
from tenants.ids import new_id
from tenants.owned import Backup, TenantOwned, clear, places, sealed
from tenants.unit import GUARD, Unit

MOST_TAGS = 500


class TagName(Document):
    name: str | None = personal(Sensitivity.IDENTITY, Mask.TEXT)


class Tag(TenantOwned, backup=Backup.DATA, rights="SELECT INSERT UPDATE DELETE"):
    __tablename__ = "tags"

    id: Mapped[UUID] = clear("made at random", primary_key=True)
    name: Mapped[Any] = sealed(TagName, place="tags.name", subject="tenant_id")
    created_at: Mapped[datetime] = clear("when the tag came", TIMESTAMP(timezone=True))


class CustomerTag(TenantOwned, backup=Backup.DATA, rights="SELECT INSERT DELETE"):
    __tablename__ = "customer_tags"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "customer_id"], ["customers.tenant_id", "customers.id"], ondelete="CASCADE"),
        ForeignKeyConstraint(["tenant_id", "tag_id"], ["tags.tenant_id", "tags.id"], ondelete="CASCADE"),
        Index("ix_customer_tags_tag", "tenant_id", "tag_id", "customer_id"),
    )

    customer_id: Mapped[UUID] = clear("who bears the tag", primary_key=True)
    tag_id: Mapped[UUID] = clear("which tag; its name is sealed", primary_key=True)


class TagView:
    """One tag as read; its name stays sealed until a rule lets it out."""

    __slots__ = ("_row", "_unit")
    relation = Relation.NONE

    def __init__(self, row: Row[Any] | Tag, unit: Unit) -> None:
        self._row = row
        self._unit = unit

    @property
    def id(self) -> UUID:
        return self._row.id

    def document(self, _column: str, why: str) -> TagName:
        if why == GUARD:
            self._unit.disclose("Tag", [self.id])
        tenant = self._unit.tenant.id
        cell = SealedCell(self._row.name, self._unit.subject_secret(tenant), tenant, self._row.id)
        opened: TagName = self._unit.open(places(Tag)["name"], [cell], why)[0]
        return opened


async def every(unit: Unit) -> list[TagView]:
    """All tags of the tenant, oldest first; there are at most 500."""
    return await _read(unit, select(Tag.id, Tag.name).where(Tag.tenant_id == unit.tenant.id).order_by(Tag.id))


async def get_many(unit: Unit, tags: Sequence[UUID]) -> list[TagView | None]:
    statement = select(Tag.id, Tag.name).where(Tag.tenant_id == unit.tenant.id, Tag.id.in_(set(tags)))
    found = {tag.id: tag for tag in await _read(unit, statement)}
    return [found.get(tag) for tag in tags]


async def of_customers(unit: Unit, customers: Sequence[UUID]) -> list[list[TagView]]:
    """The tags of each customer, in the order asked for; one statement."""
    await unit.load_subjects([unit.tenant.id])
    statement = (
        select(CustomerTag.customer_id, Tag.id, Tag.name)
        .join(Tag, (Tag.tenant_id == CustomerTag.tenant_id) & (Tag.id == CustomerTag.tag_id))
        .where(CustomerTag.tenant_id == unit.tenant.id, CustomerTag.customer_id.in_(set(customers)))
        .order_by(Tag.id)
    )
    found: dict[UUID, list[TagView]] = {customer: [] for customer in customers}
    for row in await unit.rows(statement):
        found[row.customer_id].append(TagView(row, unit))
    return [found[customer] for customer in customers]


async def create(unit: Unit, name: str) -> TagView:
    """Raises `Forbidden` where the viewer sees no names, as one that is taken would be told; and `Refused`:
    REQUIRED, INVALID, TAKEN, TOO_MANY.
    """
    if unit.viewer.principal and unit.viewer.levels(TagName.fields["name"])[Relation.NONE] is not Level.PLAIN:
        raise Forbidden("Only who sees the names of tags may make one.")
    kept = required.one(("name",), name, normalise.name)
    await unit.rows(select(func.pg_advisory_xact_lock(func.hashtextextended(f"tags {unit.tenant.id}", 0))))
    present = await every(unit)
    if len(present) >= MOST_TAGS:
        raise Refused([UserError("TOO_MANY", ("name",), f"A tenant has at most {MOST_TAGS} tags.")])
    if any(tag.document("name", "to compare it with a new one").name == kept for tag in present):
        raise Refused([UserError("TAKEN", ("name",), "A tag of that name exists already.")])
    await unit.load_subjects([unit.tenant.id])
    row = Tag(tenant_id=unit.tenant.id, id=new_id(), name=Secret(TagName(name=kept)), created_at=unit.now)
    unit.add(row)
    await unit.flush()
    unit.audit("tag.created", subject_type="Tag", subjects=[row.id])
    return TagView(row, unit)


async def _read(unit: Unit, statement: Any) -> list[TagView]:
    await unit.load_subjects([unit.tenant.id])
    return [TagView(row, unit) for row in await unit.rows(statement)]
