"""The audit log over GraphQL: who did what to whom, what left, and whether the log is still as it was written."""

from datetime import datetime
from typing import Annotated, Any, cast
from uuid import UUID

import strawberry
from strawberry import Info

from api.directives import Input, argument, input_, requires
from api.meanings import described
from api.members import Member, members_of
from api.operation import Operation
from api.paging import Connection, Node, cursor, global_id, local_id, window
from domain import audits, normalise
from domain.audits import EntryView
from domain.errors import BadInput
from domain.normalise import Invalid
from tenants.access import Permission
from tenants.audit.verify import BreakKind
from tenants.ids import any_local_id

MOST = 200_000  # entries that one request may verify; they stream, but they take time
_READ = Permission.AUDIT_READ
_LIST = "audit entries"
_NARROWS = "narrows by a clear column of what the viewer may list"

described(
    BreakKind,
    "How the log differs from what was written.",
    name="AuditBreakKind",
    FORK="Linked twice, or made anew against a checkpoint.",
    REORDER="Links or entries changed places.",
    TRUNCATED="The end is missing.",
    GAP="A link or entry is missing, or one was put in later.",
    EDIT="Something was changed.",
)


@strawberry.type(description="A count or a code of an audit entry.")
class AuditDetail:
    name: str = requires(_READ)
    value: str = requires(_READ)


@strawberry.type(description="Who did what, to which fields of whom, and when; names and ids, never values.")
class AuditEntry(Node):
    at: datetime = requires(_READ)
    action: str = requires(_READ, description="A code, such as `customer.updated` or `personal.disclosed`.")
    subject_type: str | None = requires(_READ)
    fields: list[str] = requires(_READ, description="Of a disclosure each ends in its level.")
    outcome: str = requires(_READ, description="OK, or the code of the refusal.")
    purpose: str | None = requires(_READ, description="What the viewer said it was for.")
    request_id: str | None = requires(_READ)
    seq: int | None = requires(_READ, description="Its place in the chain; null until it is linked, about a second.")

    @requires(_READ, description="Null where the house itself acted, or nobody was signed in.")
    async def actor(self: Any, info: Info[Operation]) -> Member | None:
        return None if self.actor is None else cast(Member, await members_of(info.context).load(self.actor))

    @requires(_READ, description="Whom or what it was done to, as global ids.")
    def subjects(self: Any) -> list[strawberry.ID]:
        return [global_id(self.subject_type, each) for each in self.subjects] if self.subject_type else []

    @requires(_READ)
    def details(self: Any) -> list[AuditDetail]:
        return [AuditDetail(name=name, value=str(value)) for name, value in sorted(self.details.items())]

    @classmethod
    def is_type_of(cls, value: object, _info: Any) -> bool:
        return isinstance(value, EntryView)


@strawberry.type(description="What left in one hour.")
class DisclosureCount:
    hour: datetime = requires(_READ, description="Its first moment, UTC.")
    records: int = requires(_READ)
    plain: int = requires(_READ, description="Values in plain.")
    masked: int = requires(_READ, description="Values in part.")


@strawberry.type(description="The first place where the log is not as it was written.")
class AuditBreak:
    seq: int = requires(_READ)
    kind: BreakKind = requires(_READ)
    entry_id: strawberry.ID | None = requires(_READ, description="Null where no entry can be named.")


@strawberry.type(description="What verifying the whole chain found.")
class AuditVerdict:
    is_intact: bool = requires(_READ)
    checked_entries: int = requires(_READ, description="How many fit, from the first one on.")
    checkpoints: int = requires(_READ, description="Well signed ones in the database.")
    copies: int | None = requires(_READ, description="Well signed ones in the second place; null if it is away.")
    first_bad: AuditBreak | None = requires(_READ)


@strawberry.input(description="Entries must fit all that is given.")
class AuditFilter:
    actor: strawberry.ID | None = input_(_NARROWS, default=None, description="A member's id.")
    action: str | None = input_(_NARROWS, default=None, description="A code, such as `customer.updated`.")
    subject: strawberry.ID | None = input_(_NARROWS, default=None, description="The id of whom it was done to.")
    outcome: str | None = input_(_NARROWS, default=None, description="OK, or the code of a refusal.")
    from_: datetime | None = input_(_NARROWS, name="from", default=None, description="The first moment.")
    to: datetime | None = input_(_NARROWS, default=None, description="The first moment after.")


_FIRST = Annotated[int | None, argument(Input(why="a size"), "1 to 100; 20 unless told.")]
_CURSOR = Annotated[
    str | None, argument(Input(why="holds a clear sort key and an id, under a MAC"), "An end or edge of the list.")
]
_FROM = Annotated[
    datetime | None, strawberry.argument(name="from", description="The first hour.", directives=[Input(why=_NARROWS)])
]


@strawberry.type
class AuditQueries:
    @requires(_READ, description="The audit log, newest first.")
    async def audit_entries(
        self,
        info: Info[Operation],
        filter: Annotated[AuditFilter | None, argument(Input(why=_NARROWS), "All entries unless told.")] = None,
        first: _FIRST = None,
        after: _CURSOR = None,
        last: _FIRST = None,
        before: _CURSOR = None,
    ) -> Connection[AuditEntry] | None:
        unit, where = info.context.unit, _filter(filter)
        within = window(unit, _LIST, first, after, last, before)

        def cursor_of(view: EntryView) -> str:
            return cursor(unit, _LIST, (view.at, view.id))

        found = await audits.page(unit, where, within)
        return Connection(page=found, cursor_of=cursor_of, count=lambda: audits.count(unit, where))

    @requires(_READ, description="What left per hour, oldest first; the last day unless told, 31 days at most.")
    async def disclosure_counts(
        self,
        info: Info[Operation],
        member: Annotated[strawberry.ID | None, argument(Input(why=_NARROWS), "All members unless told.")] = None,
        from_: _FROM = None,
        to: Annotated[datetime | None, argument(Input(why=_NARROWS), "The first moment after.")] = None,
    ) -> list[DisclosureCount] | None:
        viewer = None if member is None else local_id("Member", member)
        since, until = _instant("from", from_), _instant("to", to)
        return cast(list[DisclosureCount], await audits.disclosed(info.context.unit, viewer, since, until))

    @requires(
        _READ,
        description="Recompute the whole chain and name the first break. Up to 200,000 entries; beyond that"
        " AUDIT_CHAIN_TOO_LONG: use the command `coffer audit verify`.",
    )
    async def verify_audit_chain(self, info: Info[Operation]) -> AuditVerdict | None:
        unit = info.context.unit
        verdict = await info.context.services.audit_chain.verify(unit.tenant.id, unit.rows, MOST)
        bad = verdict.broken
        return AuditVerdict(
            is_intact=bad is None,
            checked_entries=verdict.entries,
            checkpoints=verdict.checkpoints,
            copies=verdict.copies,
            first_bad=None if bad is None else AuditBreak(seq=bad.seq, kind=bad.kind, entry_id=_entry_id(bad.entry)),
        )


def _entry_id(entry: UUID | None) -> strawberry.ID | None:
    return None if entry is None else global_id("AuditEntry", entry)


def _filter(given: AuditFilter | None) -> audits.Filter:
    if given is None:
        return audits.Filter()
    return audits.Filter(
        actor=None if given.actor is None else local_id("Member", given.actor),
        action=given.action,
        subject=None if given.subject is None else _any_id(given.subject),
        outcome=given.outcome,
        since=_instant("from", given.from_),
        until=_instant("to", given.to),
    )


def _any_id(text: str) -> UUID:
    """Of whatever type; of a malformed one the nil UUID, which nothing has."""
    found = any_local_id(text)
    return UUID(int=0) if found is None else found[1]


def _instant(name: str, value: datetime | None) -> datetime | None:
    try:
        return None if value is None else normalise.instant(value)
    except Invalid as invalid:
        raise BadInput(f"`{name}` {invalid.reason}.") from None
