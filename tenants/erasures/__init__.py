"""The ledger of erasures: which subjects were forgotten, in order; copies of it outlive the database.

A row is added once and never changed; the certificate follows when the erasure is finished. Each row's head is the
SHA-256 over ``join(previous head, number as u64 BE, subject, at as microseconds since 1970-01-01 UTC, i64 BE)``; before
the first row the head is 32 zero bytes. So two ledgers of one tenant with the same head are the same.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    Row,
    SmallInteger,
    Text,
    UniqueConstraint,
    Uuid,
    bindparam,
    func,
    insert,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlalchemy.orm import Mapped

from crypto.encoding import join
from tenants.errors import LedgerBroken
from tenants.ids import new_id
from tenants.owned import Backup, TenantOwned, clear
from tenants.unit import Unit

NO_HEAD = bytes(32)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_AT_ONCE = 1000


class ErasureCause(StrEnum):
    """Why somebody was forgotten."""

    REQUEST = "REQUEST"
    CONSENT_WITHDRAWN = "CONSENT_WITHDRAWN"
    NO_LONGER_NEEDED = "NO_LONGER_NEEDED"
    UNLAWFUL = "UNLAWFUL"


class Erasure(TenantOwned, backup=Backup.NEVER, rights="SELECT INSERT"):
    """`destroyed` counts what went with the subject, by table. A row taken over from a key file has no cause, no
    ticket, no principal and no counts.
    """

    __tablename__ = "erasures"
    __table_args__ = (
        UniqueConstraint("tenant_id", "number"),
        UniqueConstraint("tenant_id", "subject"),
        CheckConstraint("octet_length(head) = 32", name="head"),
        CheckConstraint("number > 0", name="number"),
    )

    id: Mapped[UUID] = clear("made at random", primary_key=True)
    number: Mapped[int] = clear("its place in the ledger, from 1", BigInteger)
    subject: Mapped[UUID] = clear("the random id of whom nothing is left", Uuid)
    at: Mapped[datetime] = clear("when it was erased", TIMESTAMP(timezone=True))
    principal: Mapped[UUID | None] = clear("a member's random id", Uuid, nullable=True)
    cause: Mapped[str | None] = clear("a code", Text, nullable=True)
    ticket: Mapped[str | None] = clear("a code, never free text", Text, nullable=True)
    destroyed: Mapped[Any] = clear("counts by table", JSONB, nullable=True)
    head: Mapped[bytes] = clear("a hash of random ids and moments", LargeBinary)


class ErasureCertificate(TenantOwned, backup=Backup.NEVER, rights="SELECT INSERT"):
    """That an erasure is finished: no store lists a key file before `generation` any more. The id is the erasure's."""

    __tablename__ = "erasure_certificates"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "id"], ["erasures.tenant_id", "erasures.id"]),
        Index("ix_erasure_certificates_finished", "tenant_id", "finished_at", "id"),
    )

    id: Mapped[UUID] = clear("the erasure's", primary_key=True)
    generation: Mapped[int] = clear("of the first key file without the subject", BigInteger)
    finished_at: Mapped[datetime] = clear("when the last old key file was gone", TIMESTAMP(timezone=True))
    certificate: Mapped[Any] = clear("ids, counts, codes and moments", JSONB)
    key_version: Mapped[int] = clear("of the key that signed", SmallInteger)
    signature: Mapped[str] = clear("of the certificate, base64", Text)


@dataclass(frozen=True, slots=True)
class Erased:
    """One row of the ledger; `head` is 32 bytes."""

    number: int
    subject: UUID
    at: datetime
    head: bytes


def head_after(head: bytes, number: int, subject: UUID, at: datetime) -> bytes:
    """32 bytes: the head of the ledger once this row stands behind `head`."""
    moment = ((at - _EPOCH) // timedelta(microseconds=1)).to_bytes(8, "big", signed=True)
    return hashlib.sha256(join(head, number.to_bytes(8, "big"), subject.bytes, moment)).digest()


def check_chain(ledger: Sequence[Erased]) -> None:
    """Raises `LedgerBroken` unless these are rows 1, 2, … with the heads that follow from them."""
    head = NO_HEAD
    for place, row in enumerate(ledger, 1):
        head = head_after(head, row.number, row.subject, row.at)
        if row.number != place or row.head != head:
            raise LedgerBroken


async def ledger(unit: Unit) -> list[Erased]:
    """All rows, the first one first."""
    columns = select(Erasure.number, Erasure.subject, Erasure.at, Erasure.head)
    rows = await unit.rows(columns.where(Erasure.tenant_id == unit.tenant.id).order_by(Erasure.number))
    return [Erased(row.number, row.subject, row.at.astimezone(UTC), bytes(row.head)) for row in rows]


async def last(unit: Unit) -> Erased | None:
    """The newest row: its number and head are the ledger's."""
    columns = select(Erasure.number, Erasure.subject, Erasure.at, Erasure.head)
    mine = columns.where(Erasure.tenant_id == unit.tenant.id).order_by(Erasure.number.desc()).limit(1)
    return next((Erased(row.number, row.subject, row.at, bytes(row.head)) for row in await unit.rows(mine)), None)


async def erased(unit: Unit) -> set[UUID]:
    """Every subject that was forgotten."""
    return set(await unit.scalars(select(Erasure.subject).where(Erasure.tenant_id == unit.tenant.id)))


async def enter(unit: Unit, subject: UUID, cause: ErasureCause, ticket: str | None, counts: dict[str, int]) -> UUID:
    """Write the ledger's next row; its id. All rows up to it have committed once it has."""
    await hold(unit)
    row = _row(unit, subject) | {"principal": unit.viewer.principal, "cause": cause.value, "ticket": ticket}
    return await _append(unit, await last(unit), row | {"destroyed": counts})


async def hold(unit: Unit) -> None:
    """Nobody else writes the ledger or its certificates until this unit ends."""
    await unit.rows(select(func.pg_advisory_xact_lock(func.hashtextextended(f"erasures {unit.tenant.id}", 0))))


async def replay(unit: Unit, known: Sequence[Erased]) -> int:
    """Forget anew whom this ledger or the database's own names, and take over rows that the database lacks.

    For a database that came back as it was before: idempotent. How many rows were taken over. Raises `LedgerBroken`
    where `known` is no whole ledger, or another one than the database's.
    """
    check_chain(known)
    await hold(unit)
    own = await ledger(unit)
    check_chain(own)
    if own[: len(known)] != [*known[: len(own)]]:
        raise LedgerBroken
    before = own[-1] if own else None
    for row in known[len(own) :]:
        await _append(unit, before, _row(unit, row.subject) | {"at": row.at})
        before = row
    await forget(unit, [row.subject for row in (own if len(own) > len(known) else known)])
    return max(0, len(known) - len(own))


async def forget(unit: Unit, subjects: Iterable[UUID]) -> dict[str, int]:
    """Delete these subjects, and all rows that hold something of them. How many went, by table."""
    ids, gone = list(subjects), dict.fromkeys(_GOING, 0)
    for start in range(0, len(ids), _AT_ONCE):
        for table, statement in _GOING.items():
            found = statement.bindparams(tenant=unit.tenant.id, subjects=ids[start : start + _AT_ONCE])
            gone[table] += len(await unit.rows(found))
    return gone


async def left_behind(unit: Unit) -> dict[str, int]:
    """How many rows there still are of subjects that were forgotten, by table; empty where the ledger is kept."""
    tables = {}
    for table, statement in _LEFT.items():
        (row,) = await unit.rows(statement.bindparams(tenant=unit.tenant.id))
        tables[table] = int(row.left_behind)
    return {table: count for table, count in tables.items() if count}


def _deleting(table: str, column: str) -> Any:
    statement = text(
        f"DELETE FROM {table} WHERE tenant_id = :tenant AND {column} = ANY(:subjects) RETURNING 1 AS one"  # noqa: S608  # names of ours
    )
    return statement.bindparams(bindparam("tenant", type_=Uuid), bindparam("subjects", type_=ARRAY(Uuid)))


def _counting(table: str, column: str) -> Any:
    statement = text(
        f"SELECT count(*) AS left_behind FROM {table} t JOIN erasures e"  # noqa: S608  # as above
        f" ON e.tenant_id = t.tenant_id AND e.subject = t.{column} WHERE t.tenant_id = :tenant"
    )
    return statement.bindparams(bindparam("tenant", type_=Uuid))


# Whatever names a customer and holds something of it; the customer's row goes before its subject.
_OF_A_SUBJECT = {
    "customer_tokens": "customer_id",
    "customer_tags": "customer_id",
    "legal_holds": "customer_id",
    "customers": "id",
    "subjects": "id",
}
_GOING = {table: _deleting(table, column) for table, column in _OF_A_SUBJECT.items()}
_LEFT = {table: _counting(table, column) for table, column in _OF_A_SUBJECT.items()}


def _row(unit: Unit, subject: UUID) -> dict[str, Any]:
    return {"tenant_id": unit.tenant.id, "id": new_id(), "subject": subject, "at": unit.now}


async def _append(unit: Unit, before: Erased | Row[Any] | None, row: dict[str, Any]) -> UUID:
    number, head = (before.number + 1, before.head) if before else (1, NO_HEAD)
    row |= {"number": number, "head": head_after(head, number, row["subject"], row["at"])}
    await unit.run(insert(Erasure).values(row))
    made: UUID = row["id"]
    return made
