"""Jobs: what must be done and how far it is. This table is the truth about them; a broker only wakes workers.

A job is enqueued in the transaction of the change that wants it. Its arguments are ids, counts and codes by type, so
no personal value can stand in a queue. What a worker does with the table is in `tenants.jobs.ledger`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import datetime
from enum import IntEnum, StrEnum
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Generic, NewType, TypeVar, get_args, get_type_hints
from uuid import UUID

from sqlalchemy import JSON, BigInteger, CheckConstraint, Index, Integer, SmallInteger, Text, Uuid, text
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.orm import Mapped

from tenants.owned import Backup, TenantOwned, clear

A = TypeVar("A")
JobId = NewType("JobId", UUID)
DEATHS = 3  # workers that may die of a job before it is parked

_kinds: dict[str, "JobKind[Any]"] = {}
KINDS: Mapping[str, "JobKind[Any]"] = MappingProxyType(_kinds)  # each needs a handler, or no worker starts


class JobState(StrEnum):
    READY = "READY"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    DONE = "DONE"
    PARKED = "PARKED"
    CANCELLED = "CANCELLED"


ENDED = frozenset({JobState.DONE, JobState.PARKED, JobState.CANCELLED})


class Wish(StrEnum):
    """What somebody asked of a running job; it obeys after its present step."""

    PAUSE = "PAUSE"
    CANCEL = "CANCEL"


class Priority(IntEnum):
    URGENT = 0
    NORMAL = 5
    IDLE = 9


@dataclass(frozen=True, slots=True)
class NoArguments:
    """For a job whose tenant or id says all."""


@dataclass(frozen=True)
class JobKind(Generic[A]):
    """A kind of job; `name` is frozen once used. Its handler is registered in `jobs/`, or the worker does not start.

    `most_attempts` is how often an unexpected error may undo the same step before the job is parked. `declared_in` is
    another register than `KINDS`, for tests. Raises TypeError at import where `arguments` is not a dataclass of ids,
    numbers, moments and codes.
    """

    name: str
    arguments: type[A]
    meaning: str
    priority: Priority = Priority.NORMAL
    most_attempts: int = 8
    declared_in: "dict[str, JobKind[Any]]" = field(default_factory=lambda: _kinds, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.name in self.declared_in:
            raise TypeError(f"the job {self.name} is declared twice")
        _refuse_values(self.name, self.arguments)
        self.declared_in[self.name] = self

    def dump(self, arguments: A) -> dict[str, Any]:
        return {
            f.name: str(value)
            if isinstance(value, UUID)
            else value.isoformat()
            if isinstance(value, datetime)
            else value
            for f in fields(arguments)  # type: ignore[arg-type]  # a dataclass, checked at import
            if (value := getattr(arguments, f.name)) is not None
        }

    def load(self, stored: Mapping[str, Any]) -> A:
        hints = get_type_hints(self.arguments)
        return self.arguments(**{name: _loaded(hints[name], value) for name, value in stored.items() if name in hints})


class Job(
    TenantOwned,
    backup=Backup.NEVER,
    rights="SELECT INSERT UPDATE DELETE",
    fleet="tenant_id id kind state priority due_at lease_until created_at",
    fleet_inserts="tenant_id id kind state priority arguments due_at created_at",
):
    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint("state IN ('READY', 'RUNNING', 'PAUSED', 'DONE', 'PARKED', 'CANCELLED')", name="state"),
        CheckConstraint("(state = 'RUNNING') = (lease_until IS NOT NULL)", name="lease"),
        CheckConstraint("(state IN ('DONE', 'PARKED', 'CANCELLED')) = (ended_at IS NOT NULL)", name="ended"),
        Index("ix_jobs_ready", "tenant_id", "priority", "due_at", "id", postgresql_where=text("state = 'READY'")),
        Index("ix_jobs_running", "tenant_id", "lease_until", postgresql_where=text("state = 'RUNNING'")),
        Index("ix_jobs_created", "tenant_id", "created_at", "id"),
        Index(
            "uq_jobs_once",
            "tenant_id",
            "kind",
            "once",
            unique=True,
            postgresql_where=text("ended_at IS NULL AND once IS NOT NULL"),
        ),
    )

    id: Mapped[UUID] = clear("made at random", primary_key=True)
    kind: Mapped[str] = clear("a code", Text)
    state: Mapped[str] = clear("a code", Text)
    priority: Mapped[int] = clear("lower goes first", SmallInteger)
    arguments: Mapped[Any] = clear("ids, numbers and codes by type", JSON)
    once: Mapped[str | None] = clear("a code: at most one such job is open", Text, nullable=True)
    attempt: Mapped[int] = clear("a count", Integer, server_default="0")
    deaths: Mapped[int] = clear("a count", Integer, server_default="0")
    fence: Mapped[int] = clear("grows with each lease; an older holder is refused", Integer, server_default="0")
    worker: Mapped[str | None] = clear("a process", Text, nullable=True)
    lease_until: Mapped[datetime | None] = clear("the worker is dead after it", TIMESTAMP(timezone=True), nullable=True)
    due_at: Mapped[datetime] = clear("not before then", TIMESTAMP(timezone=True))
    wish: Mapped[str | None] = clear("a code", Text, nullable=True)
    cursor: Mapped[Any] = clear("ids and numbers: where the next step begins", JSON, nullable=True)
    done: Mapped[int] = clear("a count", BigInteger, server_default="0")
    total: Mapped[int | None] = clear("a count", BigInteger, nullable=True)
    result: Mapped[Any] = clear("ids, counts and codes", JSON, nullable=True)
    reason: Mapped[str | None] = clear("an error's code", Text, nullable=True)
    principal: Mapped[UUID | None] = clear("under whose rights it runs", Uuid, nullable=True)
    request_id: Mapped[str | None] = clear("finds the request in logs", Text, nullable=True)
    trace: Mapped[str | None] = clear("W3C traceparent", Text, nullable=True)
    created_at: Mapped[datetime] = clear("sorted by", TIMESTAMP(timezone=True))
    started_at: Mapped[datetime | None] = clear("gives the rate", TIMESTAMP(timezone=True), nullable=True)
    moved_at: Mapped[datetime | None] = clear("when the last step ended", TIMESTAMP(timezone=True), nullable=True)
    ended_at: Mapped[datetime | None] = clear("decides when it is forgotten", TIMESTAMP(timezone=True), nullable=True)


class Schedule(
    TenantOwned, backup=Backup.SETTINGS, rights="SELECT INSERT UPDATE DELETE", fleet="tenant_id kind next_at"
):
    """When a tenant's recurring job is due. `next_at` NULL: switched off."""

    __tablename__ = "schedules"
    __table_args__ = (
        Index("ix_schedules_next", "next_at", info={"fleet": "the worker looks for what is due, of all tenants"}),
    )

    kind: Mapped[str] = clear("a code", Text, primary_key=True)
    cron: Mapped[str] = clear("five fields of cron", Text)
    time_zone: Mapped[str] = clear("an IANA name", Text)
    next_at: Mapped[datetime | None] = clear("when it is due", TIMESTAMP(timezone=True), nullable=True)
    last_at: Mapped[datetime | None] = clear("when it was last started", TIMESTAMP(timezone=True), nullable=True)
    last_job: Mapped[UUID | None] = clear("a random id", Uuid, nullable=True)
    updated_at: Mapped[datetime] = clear("when it was changed", TIMESTAMP(timezone=True))


_HARMLESS = (UUID, int, bool, datetime)


def _refuse_values(name: str, arguments: type[Any]) -> None:
    if not is_dataclass(arguments):
        raise TypeError(f"the arguments of {name} are no dataclass")
    for argument, hint in get_type_hints(arguments).items():
        for kind in _kinds_of(hint):
            if not (kind in _HARMLESS or (isinstance(kind, type) and issubclass(kind, StrEnum))):
                raise TypeError(
                    f"{name}.{argument}: a job takes ids, numbers, moments and codes, so that no value is queued"
                )


def _kinds_of(hint: Any) -> Sequence[Any]:
    if isinstance(hint, UnionType):
        return [kind for kind in get_args(hint) if kind is not NoneType]
    return [getattr(hint, "__supertype__", hint)]


def _loaded(hint: Any, value: Any) -> Any:
    (kind,) = _kinds_of(hint)
    if kind is UUID:
        return UUID(value)
    if kind is datetime:
        return datetime.fromisoformat(value)
    return kind(value)
