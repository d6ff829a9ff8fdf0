"""Access requests (GDPR, article 15): everything that is kept about one customer, for whoever sees all of it plain.

`request` decides, and leaves the audit entry with the document's hash in the operation's own transaction; no answer
goes out before that has committed.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import ColumnElement, Row, literal, select, tuple_

from crypto.keyring import SealedCell
from domain import step_ups
from domain.customers import DOCUMENTS, FIELDS
from domain.customers.inputs import input_path
from domain.customers.reach import check, readable
from domain.customers.reading import SEARCHED
from domain.customers.rows import Customer
from domain.errors import NotFound, Refused, UserError
from domain.holds import HoldReason, LegalHold
from domain.imports import ImportRow
from domain.reveals import purpose_errors
from domain.tags import CustomerTag, Tag, TagName
from tenants.access import Level, Permission, Relation
from tenants.audit.entries import DISCLOSED, REVEALED, AuditEntry
from tenants.erasures.certificates import moment
from tenants.owned import Place, places
from tenants.subjects import Subject
from tenants.unit import GUARD, Unit

FORMAT = "coffer.access_request.v1"
_CLEAR = ("stage", "owner_id", "language", "source", "region", "created_at", "updated_at", "archived_at", "version")
_TOLD = (
    *(AuditEntry.id, AuditEntry.at, AuditEntry.actor, AuditEntry.action, AuditEntry.fields),
    *(AuditEntry.outcome, AuditEntry.purpose),
)
_AT_ONCE = 20_000  # entries of the log, of which few are the customer's
_READINGS = (DISCLOSED, REVEALED)
_CHANGES_NOTHING = (*_READINGS, SEARCHED)


@dataclass(frozen=True, slots=True)
class Gathered:
    """All rows about one customer, sealed as they lie there; `secret` opens its own, `house` the tenant's."""

    customer: Row[Any]
    tags: Sequence[Row[Any]]
    holds: Sequence[Row[Any]]
    imports: Sequence[Row[Any]]
    entries: Sequence[Row[Any]]
    house: bytes


@dataclass(slots=True)
class AccessRequest:
    """What `request` decided to let out. Nobody else makes one."""

    customer: UUID
    unit: Unit
    purpose: str
    gathered: Gathered
    _text: list[str] = field(default_factory=list)

    def json(self, why: str) -> str:
        """Opens it, once: an object of UTF-8 JSON, keys sorted, with `FORMAT` as its format."""
        if not self._text:
            said = orjson.dumps(self._all(why), option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2)
            self._text.append(said.decode())
        return self._text[0]

    def sha256(self, why: str) -> str:
        """Hex, of the bytes of `json`."""
        return hashlib.sha256(self.json(why).encode()).hexdigest()

    def _all(self, why: str) -> dict[str, Any]:
        found, unit = self.gathered, self.unit
        return {
            "format": FORMAT,
            "tenant": {"id": str(unit.tenant.id), "name": unit.tenant.name},
            "customer": str(self.customer),
            "asked": {"at": moment(unit.now), "by": _id(unit.viewer.principal), "purpose": self.purpose},
            "record": {_spelled(name): _plain(getattr(found.customer, name)) for name in _CLEAR},
            "values": self._values(why),
            "tags": [{"id": str(row.id), "name": name} for row, name in self._named(why)],
            "holds": [self._hold(row, why) for row in found.holds],
            "imports": [{"job": str(row.job_id), "row": row.row} for row in found.imports],
            "read": [_told(row) for row in found.entries if row.action in _READINGS],
            "searched": [_told(row) for row in found.entries if row.action == SEARCHED],
            "changed": [_told(row) for row in found.entries if row.action not in _CHANGES_NOTHING],
        }

    def _values(self, why: str) -> dict[str, Any]:
        """Every field of every document, by the path that the API gives it; null where there is no value."""
        values: dict[str, Any] = {}
        for column, document in DOCUMENTS.items():
            opened = self._opened(places(Customer)[column], getattr(self.gathered.customer, column), why) or document()
            for name in document.fields:
                *above, last = map(str, input_path(name))
                at = values.setdefault(above[0], {}) if above else values
                at[last] = _plain(getattr(opened, name))
        return values

    def _named(self, why: str) -> Iterator[tuple[Row[Any], str | None]]:
        tenant = self.unit.tenant.id
        cells = [SealedCell(row.name, self.gathered.house, tenant, row.id) for row in self.gathered.tags]
        documents = self.unit.open(places(Tag)["name"], cells, why)
        yield from zip(self.gathered.tags, (document.name for document in documents), strict=True)

    def _hold(self, row: Row[Any], why: str) -> dict[str, Any]:
        reason = self._opened(places(LegalHold)["reason"], row.reason, why, row.id)
        times = {"placedAt": _plain(row.placed_at), "liftedAt": _plain(row.lifted_at)}
        return {"id": str(row.id), "ticket": row.ticket, "reason": None if reason is None else reason.reason, **times}

    def _opened(self, place: Place[Any], value: Any, why: str, row: UUID | None = None) -> Any:
        if value is None:
            return None
        cell = SealedCell(value, self.gathered.customer.secret, self.customer, row or self.customer)
        return self.unit.open(place, [cell], why)[0]


async def request(unit: Unit, customer: UUID, purpose: str) -> AccessRequest:
    """Raises `NotFound`; `Forbidden`; and `Refused`: INVALID, BELOW_PLAIN, STEP_UP_REQUIRED."""
    if errors := purpose_errors(purpose):
        raise Refused(errors)
    found = await _row(unit, customer)
    relation = check(unit, found.owner_id, Permission.CUSTOMERS_EXPORT)
    _refuse_below(unit, relation)
    if unit.tenant.reveal_needs_step_up:
        await step_ups.require(unit)
    gathered = await _gathered(unit, found)
    fields = [f"{name}:{Level.PLAIN.name}" for name in _disclosed(gathered)]
    made = AccessRequest(customer, unit, purpose, gathered)
    counts: dict[str, int | str] = {"records": 1, "plain": len(fields), "masked": 0}
    unit.audit(
        DISCLOSED,
        subject_type="Customer",
        subjects=[customer],
        fields=fields,
        details=counts | {"export": FORMAT, "sha256": made.sha256(GUARD)},
        origin=replace(unit.origin, purpose=purpose),
    )
    return made


def _refuse_below(unit: Unit, relation: Relation) -> None:
    """Everything, or nothing: an answer with gaps would be taken for all there is."""
    levels = unit.viewer.levels
    of_customer = [*FIELDS.values(), *HoldReason.fields.values()]
    seen = [levels(each)[relation] for each in of_customer] + [levels(TagName.fields["name"])[Relation.NONE]]
    if any(level is not Level.PLAIN for level in seen):
        sentence = "Only who sees every field of the customer, and the names of tags, in plain may have all of it."
        raise Refused([UserError("BELOW_PLAIN", ("id",), sentence)])


def _disclosed(gathered: Gathered) -> list[str]:
    names = [".".join(map(str, ("Customer", *input_path(name)))) for name in FIELDS]
    return [*names, *(["Tag.name"] if gathered.tags else []), *(["LegalHold.reason"] if gathered.holds else [])]


async def _row(unit: Unit, customer: UUID) -> Row[Any]:
    mine = (Subject.tenant_id == Customer.tenant_id) & (Subject.id == Customer.id)
    columns = [getattr(Customer, name) for name in ("id", *_CLEAR, *DOCUMENTS)]
    rows = await unit.rows(
        select(*columns, Subject.secret)
        .join(Subject, mine)
        .where(Customer.tenant_id == unit.tenant.id, Customer.id == customer, *readable(unit))
    )
    if not rows:
        raise NotFound
    return rows[0]


async def _gathered(unit: Unit, found: Row[Any]) -> Gathered:
    mine, customer = unit.tenant.id, found.id
    await unit.load_subjects([mine])
    same = (Tag.tenant_id == CustomerTag.tenant_id) & (Tag.id == CustomerTag.tag_id)
    of_customer = (CustomerTag.tenant_id == mine, CustomerTag.customer_id == customer)
    tags = select(Tag.id, Tag.name).join(CustomerTag, same).where(*of_customer).order_by(Tag.id)
    columns = (LegalHold.id, LegalHold.reason, LegalHold.ticket, LegalHold.placed_at, LegalHold.lifted_at)
    holds = select(*columns).where(LegalHold.tenant_id == mine, LegalHold.customer_id == customer)
    imports = select(ImportRow.job_id, ImportRow.row).where(
        ImportRow.tenant_id == mine, ImportRow.customer_id == customer
    )
    return Gathered(
        customer=found,
        tags=await unit.rows(tags),
        holds=await unit.rows(holds.order_by(LegalHold.id)),
        imports=await unit.rows(imports.order_by(ImportRow.id)),
        entries=await _entries(unit, customer, found.created_at),
        house=unit.subject_secret(mine),
    )


async def _entries(unit: Unit, customer: UUID, since: datetime) -> list[Row[Any]]:
    """What the log says of the customer, from when it came, the oldest first.

    Page by page of the tenant's log: behind row-level security no index of `subjects` is ever used, for its operators
    are not leakproof.
    """
    found: list[Row[Any]] = []
    mine, place = AuditEntry.tenant_id == unit.tenant.id, tuple_(AuditEntry.at, AuditEntry.id)
    order = (AuditEntry.at, AuditEntry.id)
    after: ColumnElement[bool] = AuditEntry.at >= since
    while True:
        ends = await unit.rows(select(*order).where(mine, after).order_by(*order).offset(_AT_ONCE - 1).limit(1))
        marks = [tuple_(literal(end.at, AuditEntry.at.type), literal(end.id, AuditEntry.id.type)) for end in ends]
        within = (mine, after, *(place <= mark for mark in marks), AuditEntry.subjects.any_() == customer)
        found += await unit.rows(select(*_TOLD).where(*within).order_by(*order))
        if not marks:
            return found
        after = place > marks[0]


def _told(row: Row[Any]) -> Mapping[str, Any]:
    codes = {"action": row.action, "outcome": row.outcome, "purpose": row.purpose}
    return {"at": moment(row.at), "by": _id(row.actor), "fields": list(row.fields), **codes}


def _spelled(name: str) -> str:
    return "".join(map(str, input_path(name)))


def _plain(value: Any) -> Any:
    if isinstance(value, UUID):
        return str(value)
    if hasattr(value, "tzinfo"):
        return moment(value)
    return value.isoformat() if isinstance(value, date) else list(value) if isinstance(value, tuple) else value


def _id(member: UUID | None) -> str | None:
    return None if member is None else str(member)
