"""What one endpoint is sent of its events: rendered for its viewer, from the rows as they are now, by the one policy.

Nothing of it is kept. A customer beyond the reach of the endpoint's roles is not told of at all; one that was erased,
or is no longer there, is told of by its id, if everybody is within reach, the endpoint was told of it before, or the
event is that it was erased.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from secrets import token_bytes
from typing import Any
from uuid import UUID

from sqlalchemy import select

from domain import customers, rules
from domain.customers import COLUMN_OF, FIELDS, Customer, CustomerView
from domain.erasures import ERASED
from domain.webhooks import payloads
from domain.webhooks.audience import CUSTOMER, may_hear
from domain.webhooks.payloads import Told
from tenants.access import Level, Relation
from tenants.audit.entries import DISCLOSED, Entry
from tenants.documents import Mask, PersonalField
from tenants.events import KINDS
from tenants.ids import global_id
from tenants.subjects import Subject
from tenants.unit import GUARD, Unit
from tenants.viewers import Viewer
from tenants.webhooks import DeliveryState, Payload, WebhookDelivery

LevelOf = Callable[[PersonalField, CustomerView], Level]


@dataclass(frozen=True, slots=True)
class Message:
    """`fields` are those of a customer that are in `body`, as ``givenName:MASKED``; empty for a thin one."""

    body: bytes
    fields: tuple[str, ...] = ()
    customer: UUID | None = None
    relation: Relation = Relation.NONE

    @property
    def is_disclosing(self) -> bool:
        return bool(self.fields)


async def render(
    unit: Unit, payload: Payload, endpoint: UUID, told: Sequence[Told], *, viewer: Viewer | None = None
) -> list[Message | None]:
    """In order: what is sent of each, or None where the endpoint may not be told.

    `viewer` is another than the unit's own: what both may see is shown, no more.
    """
    to = viewer or unit.viewer
    hears = [_is_heard(to, each) for each in told]
    wanted = {each.subject for each, heard in zip(told, hears, strict=True) if heard and _is_of_customer(each)}
    erased = {each.subject for each in told if each.type == ERASED.name}
    near = await _reached(unit, to, endpoint, wanted, erased)
    views: Mapping[UUID, CustomerView] = {}
    if payload is Payload.FULL and (there := [each for each, is_there in near.items() if is_there]):
        found = await customers.get_many(unit, there, _columns(to))
        views = {view.id: view for view in found if view is not None}
    level_of = _level_of(unit, to)
    return [
        _message(each, views.get(each.subject), level_of) if heard and _is_near(near, each) else None
        for each, heard in zip(told, hears, strict=True)
    ]


def disclosures(unit: Unit, messages: Collection[Message | None]) -> list[Entry]:
    """What is recorded before these are sent: one entry for all that show the same fields at the same levels."""
    alike: dict[tuple[str, ...], list[UUID]] = {}
    for message in messages:
        if message is not None and message.customer is not None and message.is_disclosing:
            alike.setdefault(message.fields, []).append(message.customer)
    return [_entry(unit, fields, records) for fields, records in alike.items()]


def _entry(unit: Unit, fields: Sequence[str], records: Sequence[UUID]) -> Entry:
    plain = sum(field.endswith(f":{Level.PLAIN.name}") for field in fields)
    counts = {"plain": len(records) * plain, "masked": len(records) * (len(fields) - plain)}
    return Entry(
        tenant=unit.tenant.id,
        at=unit.now,
        actor=unit.viewer.principal,
        action=DISCLOSED,
        subject_type=CUSTOMER,
        subjects=sorted(set(records)),
        fields=[f"{CUSTOMER}.{field}" for field in fields],
        details={"records": len(records), **counts},
        origin=unit.origin,
    )


def _is_heard(viewer: Viewer, told: Told) -> bool:
    kind = KINDS.get(told.type)
    return kind is not None and may_hear(viewer, told.type, kind.subject)


def _is_of_customer(told: Told) -> bool:
    return KINDS[told.type].subject == CUSTOMER


def _is_near(near: Mapping[UUID, bool], told: Told) -> bool:
    return not _is_of_customer(told) or told.subject in near


async def _reached(
    unit: Unit, viewer: Viewer, endpoint: UUID, subjects: Collection[UUID], erased: Collection[UUID]
) -> dict[UUID, bool]:
    """Customers that the viewer may be told of, and whether each is still there to be shown.

    Of one that is gone by an erasure everybody learns who hears of customers at all: it may have copies, from long ago.
    """
    if not subjects:
        return {}
    has_secret = (Subject.tenant_id == Customer.tenant_id) & (Subject.id == Customer.id)
    mine = (Customer.tenant_id == unit.tenant.id, Customer.id.in_(subjects))
    statement = select(Customer.id, Customer.owner_id, Subject.id.label("secret")).outerjoin(Subject, has_secret)
    rows = {row.id: row for row in await unit.rows(statement.where(*mine))}
    reached = {
        row.id: row.secret is not None
        for row in rows.values()
        if customers.may_find(viewer, viewer.relation(row.owner_id))
    }
    gone = set(subjects) - rows.keys()
    if gone and not customers.may_find(viewer, Relation.OTHER):
        gone = (gone & set(erased)) | await _known(unit, endpoint, gone)
    return reached | dict.fromkeys(gone, False)


async def _known(unit: Unit, endpoint: UUID, subjects: Collection[UUID]) -> set[UUID]:
    """Those that the endpoint was told of before: it should learn that they are gone."""
    log = (WebhookDelivery.tenant_id == unit.tenant.id, WebhookDelivery.endpoint_id == endpoint)
    sent = (WebhookDelivery.state == DeliveryState.DELIVERED.value, WebhookDelivery.subject.in_(subjects))
    return set(await unit.scalars(select(WebhookDelivery.subject).where(*log, *sent).distinct()))


def _columns(viewer: Viewer) -> set[str]:
    """Documents of which something may be shown."""
    return {COLUMN_OF[name] for name, field in FIELDS.items() if any(viewer.levels(field)[: Relation.NONE])}


def _level_of(unit: Unit, viewer: Viewer) -> LevelOf:
    if viewer is unit.viewer:
        return lambda field, view: viewer.levels(field)[view.relation]

    def least(field: PersonalField, view: CustomerView) -> Level:
        theirs = viewer.levels(field)[viewer.relation(view.row.owner_id)]
        return min(theirs, unit.viewer.levels(field)[view.relation])

    return least


def _message(told: Told, view: CustomerView | None, level_of: LevelOf) -> Message:
    subject = KINDS[told.type].subject
    if view is None:
        return Message(payloads.body(subject, told))
    shown, levels = _personal(view, level_of)
    nonce = token_bytes(payloads.NONCE_BYTES)
    body = payloads.body(subject, told, shown | _clear(view), levels, nonce)
    fields = tuple(f"{name}:{level}" for name, level in sorted(levels.items()))
    return Message(body, fields, view.id, view.relation)


def _personal(view: CustomerView, level_of: LevelOf) -> tuple[dict[str, Any], dict[str, str]]:
    """What is shown, by the names of GraphQL, and the level of each; what is hidden is left out."""
    shown: dict[str, Any] = {}
    levels: dict[str, str] = {}
    for name, field in FIELDS.items():
        level = level_of(field, view)
        if level is Level.HIDDEN:
            continue
        document = view.document(COLUMN_OF[name], GUARD)
        value = None if document is None else getattr(document, field.shown_as)
        path = payloads.spelled(name)
        holder = shown.setdefault(path[0], {}) if len(path) == 2 else shown
        holder[path[-1]] = rules.shown(level, field.mask, value)
        levels[".".join(path)] = level.name
        if name == "birth_date":
            year = None if document is None else getattr(document, "birth_year", None)
            shown["birthYear"], levels["birthYear"] = rules.shown(level, Mask.KEEP, year), level.name
    return shown, levels


def _clear(view: CustomerView) -> dict[str, Any]:
    row = view.row
    return {
        "stage": row.stage,
        "ownerId": None if row.owner_id is None else global_id("Member", row.owner_id),
        "language": row.language,
        "source": row.source,
        "region": row.region,
        "createdAt": payloads.moment(row.created_at),
        "updatedAt": payloads.moment(row.updated_at),
        "archivedAt": None if row.archived_at is None else payloads.moment(row.archived_at),
        "version": row.version,
    }
