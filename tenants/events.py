"""Events: past facts, written with the change they tell of; names of fields, never values.

The catalogue is what is declared with `EventKind`: a type that nobody declared can't be published.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import BigInteger, Index, SmallInteger, Text, Uuid, select, text
from sqlalchemy.dialects.postgresql import ARRAY, TIMESTAMP
from sqlalchemy.orm import Mapped

from tenants.owned import Backup, TenantOwned, clear

if TYPE_CHECKING:
    from tenants.unit import Unit

KEPT = timedelta(days=30)
_kinds: dict[str, "EventKind"] = {}
KINDS: Mapping[str, "EventKind"] = MappingProxyType(_kinds)


@dataclass(frozen=True, slots=True)
class EventKind:
    """A type of event, such as ``customer.updated``; its name and the meaning of a `version` never change.

    `subject` is the GraphQL type of what changed, `fields` the names that may stand in an event's `fields`.
    """

    name: str
    subject: str
    meaning: str
    fields: frozenset[str] = field(default_factory=frozenset)
    version: int = 1

    def __post_init__(self) -> None:
        if self.name in _kinds:
            raise TypeError(f"the event {self.name} is declared twice")
        _kinds[self.name] = self


class Event(TenantOwned, backup=Backup.NEVER, rights="SELECT INSERT DELETE", fleet="tenant_id id xid"):
    """`xid` is the transaction that wrote it: what ended before the oldest one still running is complete."""

    __tablename__ = "events"
    __table_args__ = (
        Index(
            "ix_events_feed", "xid", "id", info={"fleet": "one reader per process follows the events of all tenants"}
        ),
        Index("ix_events_at", "tenant_id", "at"),
        Index("ix_events_relay", "tenant_id", "xid", "id"),
    )

    id: Mapped[UUID] = clear("made at random", primary_key=True)
    xid: Mapped[int] = clear(
        "orders events by commit", BigInteger, server_default=text("pg_current_xact_id()::text::bigint")
    )
    at: Mapped[datetime] = clear("when it happened", TIMESTAMP(timezone=True))
    type: Mapped[str] = clear("a name of the catalogue", Text)
    version: Mapped[int] = clear("of the type's schema", SmallInteger)
    subject: Mapped[UUID] = clear("a random id")
    fields: Mapped[list[str]] = clear("names of fields, never values", ARRAY(Text))
    actor: Mapped[UUID | None] = clear("a member's random id", Uuid, nullable=True)
    request_id: Mapped[str | None] = clear("finds the request in logs", Text, nullable=True)


async def find(unit: "Unit", event: UUID) -> Event | None:
    """None for another tenant's, or one that was forgotten by now."""
    found = await unit.scalars(select(Event).where(Event.tenant_id == unit.tenant.id, Event.id == event))
    return next(iter(found), None)


def checked(kind: EventKind, fields: Iterable[str]) -> list[str]:
    """The fields in order. Raises TypeError for a name that is not of the kind: values can't slip in as names."""
    names = sorted(set(fields))
    if unknown := set(names) - kind.fields:
        raise TypeError(f"{kind.name} declares no field {sorted(unknown)[0]!r}")
    return names
