"""The unit: one transaction of one tenant, with its viewer, keyring and clock. The only door to tenant data.

Events, audit entries and jobs of a change are written in its transaction; what a savepoint undoes, it undoes too.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any, Literal, TypeVar
from uuid import UUID

import orjson
from sqlalchemy import Row, Text, and_, bindparam, event, or_, select, text
from sqlalchemy.dialects.postgresql import TIMESTAMP, insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, UOWTransaction
from sqlalchemy.sql.base import Executable
from sqlalchemy.types import Uuid

from crypto.envelopes import Cell
from crypto.keyring import Keyring, SealedCell
from crypto.values import Sealed, Secret
from telemetry.traces import span
from tenants.access import Relation
from tenants.audit.entries import Entry
from tenants.database import translated
from tenants.documents import Document
from tenants.errors import JobRefused
from tenants.events import EventKind, checked
from tenants.ids import new_id
from tenants.jobs import Job, JobId, JobKind, JobState
from tenants.origins import UNKNOWN, Origin
from tenants.owned import Place, TenantOwned, places
from tenants.subjects import Subject, fresh_secret
from tenants.viewers import TenantState, Viewer

A = TypeVar("A")
D = TypeVar("D", bound=Document)
O = TypeVar("O", bound=TenantOwned)  # noqa: E741  # an owned row

# Both in one statement, so that telling of a change costs one round trip.
_RECORD = text(
    """
    WITH facts AS (
        INSERT INTO events (tenant_id, id, at, type, version, subject, fields, actor, request_id)
        SELECT :tenant, e.id, :now, e.type, e.version, e.subject, e.fields, :actor, :request
        FROM jsonb_to_recordset(CAST(:events AS jsonb)) AS e
            (id uuid, type text, version smallint, subject uuid, fields text[])
    )
    INSERT INTO audit_entries
        (tenant_id, id, at, actor, action, subject_type, subjects, fields, outcome, details, purpose, request_id)
    SELECT :tenant, a.id, a.at, a.actor, a.action, a.subject_type, a.subjects, a.fields, a.outcome, a.details,
        a.purpose, a.request_id
    FROM jsonb_to_recordset(CAST(:entries AS jsonb)) AS a
        (id uuid, at timestamptz, actor uuid, action text, subject_type text, subjects uuid[], fields text[],
        outcome text, details json, purpose text, request_id text)
    """
).bindparams(
    bindparam("tenant", type_=Uuid),
    bindparam("now", type_=TIMESTAMP(timezone=True)),
    bindparam("actor", type_=Uuid),
    bindparam("request", type_=Text),
    bindparam("events", type_=Text),
    bindparam("entries", type_=Text),
)
GUARD = "for a viewer, by rule"  # why the guard opens: what it opens leaves, and is recorded as disclosed


@dataclass(frozen=True, slots=True)
class Opening:
    """That values were opened other than by the guard: where, how many, and why."""

    place: str
    count: int
    why: str


@dataclass(slots=True)
class Disclosed:
    """Records of one type whose values are about to leave; `fields` are those that leave whatever the levels are."""

    records: set[UUID] = field(default_factory=set)
    fields: set[str] = field(default_factory=set)


class _Turn(asyncio.Lock):
    """One statement at a time, and none once the unit has ended.

    When a field that can't be null fails, the answer is there while a loader of its siblings still reads or waits to.
    """

    has_ended = False

    async def acquire(self) -> Literal[True]:
        await super().acquire()
        if self.has_ended:
            self.release()
            raise asyncio.CancelledError  # nobody waits for it
        return True


class Unit:
    """Made by `Units.enter` alone. It has no commit: the block that entered it ends it."""

    def __init__(
        self,
        session: AsyncSession,
        tenant: TenantState,
        viewer: Viewer,
        keyring: Keyring,
        now: datetime,
        origin: Origin = UNKNOWN,
        *,
        is_over_budget: bool = False,
    ) -> None:
        """`is_over_budget`: the viewer was shown as much in plain this hour as its tenant allows, and so is capped."""
        self.tenant = tenant
        self.viewer = viewer
        self.keyring = keyring
        self.now = now
        self.origin = origin
        self.is_over_budget = is_over_budget
        self.openings: list[Opening] = []
        self.disclosed: dict[tuple[str, Relation], Disclosed] = {}
        self.enqueued: list[JobId] = []
        self.recorded: list[Entry] = []
        self._events: list[dict[str, Any]] = []
        self._entries: list[Entry] = []
        self._session = session
        self._turn = _Turn()
        self._secrets: dict[UUID, bytes] = {}
        event.listen(session.sync_session, "before_flush", self._seal_pending)

    async def rows(self, statement: Executable, parameters: Mapping[str, Any] | None = None) -> Sequence[Row[Any]]:
        async with self._turn, translated():
            with span("statement"):
                return (await self._session.execute(statement, parameters)).all()

    async def scalars(self, statement: Executable) -> Sequence[Any]:
        async with self._turn, translated():
            with span("statement"):
                return (await self._session.execute(statement)).scalars().all()

    async def run(
        self, statement: Executable, parameters: Mapping[str, Any] | Sequence[dict[str, Any]] | None = None
    ) -> None:
        async with self._turn, translated():
            with span("statement"):
                await self._session.execute(statement, parameters)

    async def end(self) -> None:
        """Wait for the statement that runs, and let none run after it: `Units.enter` does so before it commits."""
        async with self._turn:
            self._turn.has_ended = True

    def add(self, *rows: TenantOwned) -> None:
        self._session.add_all(rows)

    async def flush(self) -> None:
        async with self._turn, translated():
            with span("statement"):
                await self._session.flush()

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """What happens inside is undone alone if the block raises."""
        marks = [(pending, len(pending)) for pending in (self.enqueued, self._events, self._entries)]
        try:
            async with translated(), self._session.begin_nested():
                yield
        except BaseException:
            for pending, length in marks:
                del pending[length:]
            raise

    def publish(
        self,
        kind: EventKind,
        subjects: Sequence[UUID],
        fields: Iterable[str] = (),
        *,
        details: Mapping[str, int | str] = MappingProxyType({}),
    ) -> None:
        """Tell what happened to each subject, and enter it into the audit log, when this unit commits.

        `details` are ids, counts and codes for the log alone.
        """
        names = checked(kind, fields)
        self._events += [
            {"id": new_id(), "type": kind.name, "version": kind.version, "subject": subject, "fields": names}
            for subject in subjects
        ]
        self.audit(kind.name, subject_type=kind.subject, subjects=subjects, fields=names, details=dict(details))

    def audit(self, action: str, **what: Any) -> None:
        """Enter an act of this viewer into the audit log when this unit commits; `what` as `Entry` takes it."""
        self._entries.append(self._entry(action, **what))

    def pending(self, action: str) -> int:
        """How many entries of that action wait to be written."""
        return sum(entry.action == action for entry in self._entries)

    def _entry(self, action: str, **what: Any) -> Entry:
        known: dict[str, Any] = {"at": self.now, "actor": self.viewer.principal, "origin": self.origin}
        return Entry(tenant=self.tenant.id, action=action, **known | what)

    async def enqueue(
        self,
        kind: JobKind[A],
        arguments: A,
        *,
        once: str | None = None,
        total: int | None = None,
        due_at: datetime | None = None,
        job: JobId | None = None,
        by_house: bool = False,
    ) -> JobId:
        """Write a job that runs once this unit has committed, under the rights its viewer has by then, or `by_house`.

        With `once` at most one such job is open: the id of the one that is, is returned. So is `job` where that very
        job was enqueued before; raises `JobRefused` where it is another kind's.
        """
        row = {
            "tenant_id": self.tenant.id,
            "id": job or new_id(),
            "kind": kind.name,
            "state": JobState.READY,
            "priority": kind.priority,
            "arguments": kind.dump(arguments),
            "once": once,
            "total": total,
            "due_at": due_at or self.now,
            "principal": None if by_house else self.viewer.principal,
            "request_id": self.origin.request_id,
            "trace": self.origin.trace,
            "created_at": self.now,
        }
        statement = insert(Job).values(row).on_conflict_do_nothing().returning(Job.id)
        while not (made := await self.scalars(statement)):
            if rival := await self._rival(row):
                return rival
        self.enqueued.append(JobId(made[0]))
        return JobId(made[0])

    async def _rival(self, row: dict[str, Any]) -> JobId | None:
        """What kept this job from being written; None where it has ended since."""
        is_named = Job.id == row["id"]
        is_rival = is_named
        if row["once"] is not None:
            is_rival = or_(is_named, and_(Job.kind == row["kind"], Job.once == row["once"], Job.ended_at.is_(None)))
        rivals = select(Job.id, Job.kind).where(Job.tenant_id == self.tenant.id, is_rival).order_by(is_named.desc())
        found = await self.rows(rivals)
        if found and found[0].kind != row["kind"]:
            raise JobRefused
        return JobId(found[0].id) if found else None

    def disclose(
        self,
        kind: str,
        records: Iterable[UUID],
        fields: Iterable[str] = (),
        *,
        relation: Relation = Relation.NONE,
    ) -> None:
        """Note that personal values of these records are about to leave; `kind` is their GraphQL type.

        `relation` is that of the viewer to all of them. `fields` names, as ``Member.email:PLAIN``, what leaves whatever
        the viewer's levels are.
        """
        noted = self.disclosed.setdefault((kind, relation), Disclosed())
        noted.records.update(records)
        noted.fields.update(fields)

    def witness(self) -> list[Entry]:
        """What a reading leaves for the record: searches, and values that were opened other than for the viewer."""
        witnessed, self._entries = [*self._entries, *self._opened()], []
        return witnessed

    def _opened(self) -> Iterator[Entry]:
        counts: dict[tuple[str, str], int] = {}
        for opening in self.openings:
            if opening.why != GUARD:
                counts[opening.why, opening.place] = counts.get((opening.why, opening.place), 0) + opening.count
        for why in dict.fromkeys(why for why, _ in counts):
            places_ = {place: count for (reason, place), count in counts.items() if reason == why and count}
            if places_:
                yield self._entry("personal.opened", fields=sorted(places_), details={"why": why, **places_})
        self.openings.clear()

    async def record(self) -> None:
        """Write the pending events and audit entries; done before the commit by whoever entered the unit."""
        entries = self.witness()
        if self._events or entries:
            await self.flush()
            parameters = {
                "tenant": self.tenant.id,
                "now": self.now,
                "actor": self.viewer.principal,
                "request": self.origin.request_id,
                "events": _json(self._events),
                "entries": _json([entry.row() for entry in entries]),
            }
            await self.run(_RECORD, parameters)
            self._events = []
            self.recorded += entries

    def new_subject(self, subject: UUID) -> None:
        """Give a new person, or the tenant itself, the secret that seals its values."""
        self._secrets[subject] = fresh_secret()
        self.add(Subject(tenant_id=self.tenant.id, id=subject, secret=self._secrets[subject], created_at=self.now))

    async def load_subjects(self, subjects: Iterable[UUID]) -> None:
        """Have the secrets of these subjects at hand, in one statement; needed before their rows are changed."""
        missing = [subject for subject in subjects if subject not in self._secrets]
        if missing:
            statement = select(Subject.id, Subject.secret).where(
                Subject.tenant_id == self.tenant.id, Subject.id.in_(missing)
            )
            self._secrets.update({row.id: row.secret for row in await self.rows(statement)})

    def subject_secret(self, subject: UUID) -> bytes:
        return self._secrets[subject]

    def open(self, place: Place[D], cells: Sequence[SealedCell], why: str) -> list[D]:
        """The documents of many rows of one place, in order; recorded with `why`. Raises `CannotOpen`."""
        if place.document.is_of_people:
            self.openings.append(Opening(place.label, len(cells), why))
        with span("open", place=place.label, count=len(cells)):
            return [place.document.load(raw) for raw in self.keyring.open_many(place.label, cells)]

    def open_row(self, row: O, column: str, why: str) -> Any:
        """The document in one sealed column of a loaded row, or None where it holds none."""
        place = places(type(row))[column]
        value = getattr(row, column)
        if value is None or isinstance(value, Secret):
            return None if value is None else value.reveal()
        subject = getattr(row, place.subject)
        cell = SealedCell(value, self._secrets[subject], subject, _row_id(row))
        return self.open(place, [cell], why)[0]

    def _seal_pending(self, session: Session, _flush: UOWTransaction, _instances: object) -> None:
        for row in [*session.new, *session.dirty]:
            for column, place in places(type(row)).items():
                value = getattr(row, column)
                if isinstance(value, Secret):
                    self._seal(row, column, place, value)

    def _seal(self, row: TenantOwned, column: str, place: Place[Any], value: Secret[Document]) -> None:
        subject = getattr(row, place.subject)
        secret = self._secrets.get(subject)
        if secret is None:
            raise LookupError(f"the subject of {place.label} was not loaded; call unit.load_subjects first")
        cell = Cell(self.tenant.id, subject, place.label, _row_id(row))
        _replace(row, column, self.keyring.seal(value.reveal().dump(), secret, cell))


def _row_id(row: TenantOwned) -> UUID:
    identity: UUID = row.id  # type: ignore[attr-defined]  # every table with a sealed column has an id
    return identity


def _replace(row: TenantOwned, column: str, sealed: Sealed) -> None:
    """Put the ciphertext where the secret stood, behind the attribute's refusal of anything but secrets."""
    row.__dict__[column] = sealed


def _json(rows: list[dict[str, Any]]) -> str:
    return orjson.dumps(rows, default=str).decode()  # asyncpg's UUIDs are a subclass, which orjson asks about
