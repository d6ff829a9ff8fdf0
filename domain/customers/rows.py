"""The tables of customers and of their tokens and tags, and how rows read together are opened together."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKeyConstraint, Index, Integer, LargeBinary, SmallInteger, Text, text
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.orm import Mapped

from crypto.keyring import SealedCell
from domain.customers.fields import ExternalId, Guarded, Note, Profile
from tenants.access import Permission, Relation
from tenants.documents import Document
from tenants.owned import Backup, TenantOwned, clear, places, sealed
from tenants.unit import GUARD, Unit
from tenants.viewers import Viewer


class Customer(TenantOwned, backup=Backup.DATA, rights="SELECT INSERT UPDATE DELETE"):
    __tablename__ = "customers"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "owner_id"], ["members.tenant_id", "members.id"]),
        Index("ix_customers_created", "tenant_id", "created_at", "id"),
        Index("ix_customers_updated", "tenant_id", "updated_at", "id"),
        Index("ix_customers_owner", "tenant_id", "owner_id", "created_at", "id"),
    )

    id: Mapped[UUID] = clear("made at random", primary_key=True)
    profile: Mapped[Any] = sealed(Profile, place="customers.profile")
    guarded: Mapped[Any] = sealed(Guarded, place="customers.guarded")
    note: Mapped[Any] = sealed(Note, place="customers.note")
    external_id: Mapped[Any] = sealed(ExternalId, place="customers.external_id")
    stage: Mapped[str] = clear("filtered and counted by; tells of a relation, not of a person", Text)
    owner_id: Mapped[UUID | None] = clear("filtered by; a member's random id", nullable=True)
    language: Mapped[str | None] = clear("filtered by; shared by millions", Text, nullable=True)
    source: Mapped[str | None] = clear("filtered by; names a channel, not a person", Text, nullable=True)
    region: Mapped[str | None] = clear("filtered by; a country or state, shared by many", Text, nullable=True)
    created_at: Mapped[datetime] = clear("sorted by", TIMESTAMP(timezone=True))
    updated_at: Mapped[datetime] = clear("sorted by", TIMESTAMP(timezone=True))
    archived_at: Mapped[datetime | None] = clear("filtered by", TIMESTAMP(timezone=True), nullable=True)
    version: Mapped[int] = clear("refuses changes made from an old reading", Integer)


class CustomerToken(TenantOwned, backup=Backup.NEVER, rights="SELECT INSERT DELETE"):
    """The blind index: one row per stored key of an indexed value, written with the value."""

    __tablename__ = "customer_tokens"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "customer_id"], ["customers.tenant_id", "customers.id"], ondelete="CASCADE"),
        Index("ix_customer_tokens_customer", "tenant_id", "customer_id"),
        Index(
            "uq_customer_tokens_external_id",
            "tenant_id",
            "token",
            "bik_version",
            unique=True,
            postgresql_where=text("index = 'external_id'"),
        ),
        CheckConstraint("octet_length(token) = 16", name="token"),
    )

    index: Mapped[str] = clear("which field the token stands for", Text, primary_key=True)
    token: Mapped[bytes] = clear("keyed hash, random without the index key", LargeBinary, primary_key=True)
    customer_id: Mapped[UUID] = clear("whose value it is", primary_key=True)
    bik_version: Mapped[int] = clear("which index key made it", SmallInteger, primary_key=True)


class CustomerRow(Protocol):
    """What a reading gives of a customer; a sealed column that was not asked for is absent."""

    id: UUID
    stage: str
    owner_id: UUID | None
    language: str | None
    source: str | None
    region: str | None
    created_at: datetime
    updated_at: datetime
    archived_at: datetime | None
    version: int


class CustomerView:
    """One customer as read: its clear columns on `row`, its sealed documents through the batch it was read with."""

    __slots__ = ("batch", "position", "relation", "row")

    def __init__(self, row: CustomerRow, batch: "Batch", position: int, relation: Relation) -> None:
        self.row = row
        self.batch = batch
        self.position = position
        self.relation = relation

    @property
    def id(self) -> UUID:
        return self.row.id

    @property
    def is_within_reach(self) -> bool:
        """Whether the viewer may read it: what was changed just now can have gone out of reach by that."""
        viewer = self.batch.viewer
        return viewer.principal is None or Permission.CUSTOMERS_READ in viewer.on(self.relation).permissions

    def __getattr__(self, name: str) -> Any:
        """The clear columns by their own names."""
        return getattr(self.row, name)

    def document(self, column: str, why: str) -> Document | None:
        """The opened document of a sealed column. Opening it opens those of the batch in the same relation, once."""
        return self.batch.documents(column, self.relation, why)[self.position]


class Batch:
    """Customers that were read together. Each sealed column of those in one relation to the viewer is opened at most
    once, and not before one of them is asked for: what is hidden in a relation stays sealed there.
    """

    __slots__ = ("_disclosed", "_opened", "_rows", "_unit", "views")

    def __init__(self, unit: Unit, rows: Sequence[Any]) -> None:
        self._unit = unit
        self._rows = rows
        self._opened: dict[tuple[str, Relation], list[Document | None]] = {}
        self._disclosed: set[Relation] = set()
        relation = unit.viewer.relation
        self.views = [CustomerView(row, self, place, relation(row.owner_id)) for place, row in enumerate(rows)]

    @property
    def viewer(self) -> Viewer:
        return self._unit.viewer

    def documents(self, column: str, relation: Relation, why: str) -> list[Document | None]:
        """By place in the batch; None also for rows in another relation."""
        if why == GUARD and relation not in self._disclosed:
            self._disclosed.add(relation)
            records = [view.id for view in self.views if view.relation is relation]
            self._unit.disclose("Customer", records, relation=relation)
        opened = self._opened.get((column, relation))
        if opened is None:
            opened = self._opened[column, relation] = self._open(column, relation, why)
        return opened

    def know(self, column: str, documents: list[Document | None]) -> None:
        """Take over documents that were just sealed in this unit."""
        for relation in {view.relation for view in self.views}:
            self._opened[column, relation] = documents

    def _open(self, column: str, relation: Relation, why: str) -> list[Document | None]:
        filled = [
            (view.position, value)
            for view in self.views
            if view.relation is relation and (value := getattr(view.row, column)) is not None
        ]
        cells = [
            SealedCell(value, self._rows[n].subject_secret, self._rows[n].id, self._rows[n].id) for n, value in filled
        ]
        documents: list[Document | None] = [None] * len(self._rows)
        for (n, _), document in zip(filled, self._unit.open(_PLACES[column], cells, why), strict=True):
            documents[n] = document
        return documents


_PLACES = places(Customer)
