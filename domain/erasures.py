"""Erasures of customers: all of one goes at once, the ledger keeps that, and a certificate says when it is over.

An erasure is finished when no store lists a key file any more that has the customer's secret: until then somebody who
holds the stores and the tenant's keys could still open an old backup's copy.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, func, insert, select

from domain import backups, holds, step_ups
from domain.customers.changing import NOT_THERE, lock_many
from domain.customers.reach import check, is_everything
from domain.customers.rows import Customer
from domain.errors import NotFound, Refused, UserError
from domain.paging import Page, Window, cut, windowed
from domain.reveals import ticket_errors
from tenants import erasures as ledger
from tenants.access import Permission
from tenants.backups import BackupRow, freezes
from tenants.erasures import Erasure, ErasureCause, ErasureCertificate, certificates
from tenants.erasures.certificates import SIGNER as SIGNER
from tenants.erasures.certificates import Signed
from tenants.errors import LedgerBroken
from tenants.events import EventKind
from tenants.jobs import JobKind, Priority
from tenants.keys import key_files
from tenants.members import Member
from tenants.subjects import Subject
from tenants.unit import Unit

ERASED = EventKind("customer.erased", "Customer", "A customer was erased for ever; only its id is left.")
FINISHED = EventKind(
    "customer.erasure_finished", "Customer", "No key file lists the erased customer any more; a certificate says so."
)
_AT_ONCE = 500
_JOINED = (
    *(Erasure.id, Erasure.number, Erasure.subject, Erasure.at, Erasure.principal, Erasure.cause, Erasure.ticket),
    *(Erasure.destroyed, Erasure.head, ErasureCertificate.generation, ErasureCertificate.finished_at),
    *(ErasureCertificate.certificate, ErasureCertificate.key_version, ErasureCertificate.signature),
)


# What of a customer may still lie somewhere. What doesn't open lacks the secret, which is in no key file any more.
_BACKUPS = {"where": "backups", "opens": False, "until": "retention keeps none of them"}
_FORMER = {"where": "former stores", "opens": True, "until": "they answer, or the operator deletes them"}
_ELSEWHERE = (
    {"where": "dead rows of tables", "opens": True, "until": "the database has vacuumed them"},
    {"where": "write-ahead log", "opens": True, "until": "the operator's archive is recycled"},
    {"where": "replicas", "opens": False, "until": "they have replayed the erasure"},
    {"where": "database backups", "opens": True, "until": "the operator deletes them; recovery erases again"},
    {"where": "versions of objects in stores", "opens": True, "until": "the store's rule deletes old versions"},
    {"where": "audit log", "opens": True, "until": "for ever: ids, names of fields and codes, no value"},
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which erasure is to be finished."""

    erasure: UUID


FINISH_ERASURE = JobKind(
    "finish_erasure", Wanted, "Take erased people out of the key files, and certify it.", priority=Priority.URGENT
)


@dataclass(frozen=True, slots=True)
class ErasureView:
    """A row of the ledger; the parts of a certificate are None until it is finished. `destroyed` counts by table."""

    id: UUID
    number: int
    subject: UUID
    at: datetime
    principal: UUID | None
    cause: str | None
    ticket: str | None
    destroyed: Mapping[str, int] | None
    head: bytes
    generation: int | None
    finished_at: datetime | None
    certificate: Mapping[str, Any] | None
    key_version: int | None
    signature: str | None

    @property
    def signed(self) -> Signed | None:
        if self.certificate is None or self.key_version is None or self.signature is None:
            return None
        return Signed(self.certificate, self.key_version, self.signature)


async def erase(unit: Unit, customer: UUID, cause: ErasureCause, ticket: str | None) -> ErasureView:
    """Delete the customer, its secret and all that is found by it, and enqueue what finishes the erasure.

    Also of one that a restore took away: old backups would bring it back. Raises `TenantFrozen` during a restore,
    `Forbidden`, and `Refused`: NOT_FOUND, INVALID, STEP_UP_REQUIRED, LEGAL_HOLD.
    """
    freezes.refuse_restoring(unit)
    check(unit, await _owner(unit, customer), Permission.CUSTOMERS_ERASE)
    if errors := ticket_errors(ticket):
        raise Refused(errors)
    await step_ups.require(unit)
    if kept := await holds.open_ones(unit, customer):
        sentence = f"Legal holds keep this customer: {kept}. `legalHolds` tells why, and who placed them."
        raise Refused([UserError("LEGAL_HOLD", ("id",), sentence)])
    destroyed = await ledger.forget(unit, [customer])
    erasure = await ledger.enter(unit, customer, cause, ticket, destroyed)
    codes = {"erasure": str(erasure), "cause": cause.value, **({"ticket": ticket} if ticket else {})}
    unit.publish(ERASED, [customer], details=codes)
    await unit.enqueue(FINISH_ERASURE, Wanted(erasure), by_house=True)
    return await _get(unit, erasure)


async def get(unit: Unit, erasure: UUID) -> ErasureView:
    """For whoever asked for it, and who reads the audit log. Raises `NotFound`."""
    for found in await get_many(unit, [erasure]):
        return found
    raise NotFound


async def get_many(unit: Unit, erasures: Sequence[UUID]) -> list[ErasureView]:
    """Those of them that the viewer may see."""
    rows = await unit.rows(_selected(unit).where(Erasure.id.in_(set(erasures))))
    viewer = unit.viewer
    return [_view(row) for row in rows if row.principal == viewer.principal or viewer.may(Permission.AUDIT_READ)]


async def page(unit: Unit, window: Window) -> Page[ErasureView]:
    """By their number, the newest first."""
    rows = await unit.rows(windowed(_selected(unit), (Erasure.number, Erasure.id), window, descending=True))
    kept, has_next, has_previous = cut(rows, window)
    return Page([_view(row) for row in kept], has_next, has_previous)


async def count(unit: Unit) -> int:
    statement = select(func.count()).select_from(Erasure).where(Erasure.tenant_id == unit.tenant.id)
    return int((await unit.scalars(statement))[0])


async def newest_unfinished(unit: Unit, erasure: UUID) -> int | None:
    """The ledger's newest number, if that erasure isn't finished: all up to it can be, by the next key file."""
    found = await _get(unit, erasure)
    newest = await ledger.last(unit)
    return None if found.certificate is not None or newest is None else newest.number


async def unfinished(unit: Unit, until: int, most: int) -> list[ErasureView]:
    """Up to that number, the oldest first; nobody else finishes any until this unit ends."""
    await ledger.hold(unit)
    waiting = _selected(unit).where(Erasure.number <= until, ErasureCertificate.id.is_(None))
    return [_view(row) for row in await unit.rows(waiting.order_by(Erasure.number).limit(most))]


async def said(
    unit: Unit, erasures: Sequence[ErasureView], generation: int, stores: Collection[str]
) -> list[dict[str, Any]]:
    """What the certificate of each says, once `generation` is the only key file on `stores`; 0 where none are kept.

    It names all backups that may lie anywhere, also those that are about to go: a snapshot has no moment that could be
    held against an erasure's.
    """
    lying = (BackupRow.tenant_id == unit.tenant.id, BackupRow.wrapped_key != "")
    numbers = await unit.scalars(select(BackupRow.number).where(*lying).order_by(BackupRow.number))
    kept, former = await backups.settings(unit), sorted(await key_files.places(unit) - set(stores))
    remains = [{"numbers": list(numbers), "retention": asdict(kept), **_BACKUPS}, *_ELSEWHERE]
    if former:
        remains.append({"stores": former, **_FORMER})
    return [{**_said(unit, erasure, generation), "mayRemain": remains} for erasure in erasures]


async def finish(unit: Unit, erasures: Sequence[ErasureView], generation: int, signed: Sequence[Signed]) -> None:
    """Keep the certificates, and tell."""
    rows = [
        {
            "tenant_id": unit.tenant.id,
            "id": erasure.id,
            "generation": generation,
            "finished_at": unit.now,
            "certificate": dict(each.said),
            "key_version": each.key_version,
            "signature": each.signature,
        }
        for erasure, each in zip(erasures, signed, strict=True)
    ]
    if rows:
        await unit.run(insert(ErasureCertificate), rows)
        unit.publish(FINISHED, [erasure.subject for erasure in erasures], details={"keyFile": generation})


@dataclass(frozen=True, slots=True)
class Verdict:
    """`problems` are sentences that name things; empty where all is as it was promised."""

    erasures: int
    certificates: int
    problems: Sequence[str]


async def verify(unit: Unit, public_keys: Mapping[int, bytes]) -> Verdict:
    """Of the whole ledger, the certificates and whatever is left; `public_keys` are `SIGNER`'s, by version."""
    problems = []
    try:
        ledger.check_chain(await ledger.ledger(unit))
    except LedgerBroken as broken:
        problems.append(broken.message)
    number, certified = 0, 0
    while found := [_view(row) for row in await unit.rows(_after(unit, number))]:
        number = found[-1].number
        certified += sum(each.signed is not None for each in found)
        problems += [_unfit(each) for each in found if not _fits(unit, each, public_keys)]
    left = await ledger.left_behind(unit)
    problems += [f"{count} rows of erased people are in {table}" for table, count in left.items()]
    return Verdict(number, certified, problems)


def _after(unit: Unit, number: int) -> Select[Any]:
    return _selected(unit).where(Erasure.number > number).order_by(Erasure.number).limit(_AT_ONCE)


def _fits(unit: Unit, erasure: ErasureView, public_keys: Mapping[int, bytes]) -> bool:
    """A certificate must be well signed, and of this very row."""
    signed = erasure.signed
    if signed is None:
        return True
    own = (signed.said.get("erasure"), signed.said.get("subject"), signed.said.get("ledgerHead"))
    is_own = own == (str(erasure.id), str(erasure.subject), erasure.head.hex())
    return is_own and certificates.fits(public_keys, unit.tenant.id, signed)


def _unfit(erasure: ErasureView) -> str:
    return f"the certificate of erasure {erasure.number} is not what was signed"


def _said(unit: Unit, erasure: ErasureView, generation: int) -> dict[str, Any]:
    return {
        "format": certificates.FORMAT,
        "kind": "erasure",
        "tenant": str(unit.tenant.id),
        "erasure": str(erasure.id),
        "number": erasure.number,
        "subject": str(erasure.subject),
        "askedBy": None if erasure.principal is None else str(erasure.principal),
        "cause": erasure.cause,
        "ticket": erasure.ticket,
        "erasedAt": certificates.moment(erasure.at),
        "destroyed": erasure.destroyed and dict(erasure.destroyed),
        "ledgerHead": erasure.head.hex(),
        "keyFile": generation or None,
        "finishedAt": certificates.moment(unit.now),
    }


async def _owner(unit: Unit, customer: UUID) -> UUID | None:
    """Of one in reach, which is locked; None also for whom a restore took away, where the viewer reaches everybody.

    Raises `Refused`: NOT_FOUND.
    """
    if row := (await lock_many(unit, [customer])).get(customer):
        return row.owner_id
    await ledger.hold(unit)  # of two at once the second finds nobody
    mine = (Subject.tenant_id == unit.tenant.id, Subject.id == customer, Subject.id != unit.tenant.id)
    others = [
        select(owned.id).where(owned.tenant_id == Subject.tenant_id, owned.id == Subject.id).exists()
        for owned in (Customer, Member)
    ]
    statement = select(Subject.id).where(*mine, *(~other for other in others))
    if not is_everything(unit) or not await unit.scalars(statement):
        raise Refused([NOT_THERE])
    return None


async def _get(unit: Unit, erasure: UUID) -> ErasureView:
    rows = await unit.rows(_selected(unit).where(Erasure.id == erasure))
    if not rows:
        raise NotFound
    return _view(rows[0])


def _selected(unit: Unit) -> Select[Any]:
    same = (ErasureCertificate.tenant_id == Erasure.tenant_id) & (ErasureCertificate.id == Erasure.id)
    return select(*_JOINED).outerjoin(ErasureCertificate, same).where(Erasure.tenant_id == unit.tenant.id)


def _view(row: Row[Any]) -> ErasureView:
    return ErasureView(**{**row._mapping, "head": bytes(row.head)})
