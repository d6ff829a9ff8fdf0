"""The tenant's keys over GraphQL: which there are, what is sealed under which, and how each turning-over goes."""

from datetime import datetime
from typing import Annotated, Any, cast
from uuid import UUID

import strawberry
from strawberry import Info
from strawberry.dataloader import DataLoader

from api.directives import Input, argument, public, requires
from api.jobs import Job
from api.meanings import described
from api.operation import Operation
from api.paging import Connection, Node, UserError, cursor, user_errors, window
from crypto.keys import KeyState, Purpose
from domain import jobs, rotations
from domain.errors import Refused
from domain.rotations import KeyView
from tenants.access import Permission
from tenants.keys import rotating
from tenants.keys import rotations as tables
from tenants.keys.proving import Coverage
from tenants.keys.rotations import Cause, KeyPurpose

_MANAGE = Permission.KEYS_MANAGE
_SHAPE = "the shape of a payload"
_LIST = "rotations"

described(
    Purpose,
    "What a data key is for.",
    name="DataKeyPurpose",
    DEK="Seals values.",
    BIK="Makes the index that values are found by.",
    AUD="Began the chain of the audit log; it is never turned over.",
)
described(
    KeyState,
    "What a data key does now.",
    NEXT="Made, and not yet in force.",
    ACTIVE="In force; of each purpose there is one.",
    DECRYPT_ONLY="Opens what it sealed, and seals nothing.",
    RETIRED="Serves nobody; a backup may need it.",
    DESTROYED="Gone for good.",
)
described(
    KeyPurpose,
    "What can be turned over.",
    KEK="The tenant's key in the key store: all its data keys are wrapped anew.",
    DEK="The data key: all values are sealed anew.",
    BIK="The index key: all values are indexed anew.",
)
described(
    Cause,
    "Why a key is turned over.",
    name="RotationCause",
    ASKED="Somebody asked for it.",
    AGE="It was too old.",
    USE="It had been used too often.",
)


@strawberry.type(description="A key of the tenant's own. Nothing tells the key itself, not even wrapped.")
class DataKey(Node):
    purpose: Purpose = requires(_MANAGE)
    version: int = requires(_MANAGE, description="Counts up within its purpose.")
    state: KeyState = requires(_MANAGE)
    kek_version: int | None = requires(
        _MANAGE,
        description="The version of the tenant's key in the key store that wraps it; null once it is destroyed.",
    )
    created_at: datetime = requires(_MANAGE)
    changed_at: datetime | None = requires(_MANAGE, description="When its state changed; null if it never did.")

    @requires(_MANAGE, description="Whole days since it was made.")
    def age_days(self: Any, info: Info[Operation]) -> int:
        return int((info.context.unit.now - self.created_at).days)

    @classmethod
    def is_type_of(cls, value: object, _info: Any) -> bool:
        return isinstance(value, KeyView)


@strawberry.type(description="How far the turning-over of a key is, and the proof that it came to its end.")
class KeyRotation(Node):
    purpose: KeyPurpose = requires(_MANAGE)
    state: str = requires(
        _MANAGE,
        description="What is done by now; first of all BEGUN. KEK: ROTATED, REWRAPPING, VERIFIED, RAISED."
        " DEK: COMMITTED, FENCED, RESEALING, DRAINED, PROVEN, RETIRED, DESTROYED."
        " BIK: COMMITTED, FILLING, FILLED, SWITCHED, CLEANED. ABANDONED: an operator ended one that was BEGUN.",
    )
    cause: Cause = requires(_MANAGE)
    started_at: datetime = requires(_MANAGE)
    moved_at: datetime = requires(_MANAGE, description="When the state changed.")
    ended_at: datetime | None = requires(_MANAGE, description="When nothing was left to do.")
    key_version: int | None = requires(_MANAGE, description="Of the key `coffer-audit`, which signed the proof.")
    signature: str | None = requires(
        _MANAGE, description="Ed25519, base64; what it signs is told in the guide to operating keys."
    )

    @requires(_MANAGE, description="Of the key that goes; null until it is known.")
    def from_version(self: Any) -> int | None:
        return self.from_version or None

    @requires(_MANAGE, description="Of the key that comes; null until it is known.")
    def to_version(self: Any) -> int | None:
        return self.to_version or None

    @requires(_MANAGE, description="As canonical JSON (RFC 8785): counts of what is under which version.")
    def proof(self: Any) -> str | None:
        return None if self.proof is None else rotating.canonical(self.proof).decode()

    @requires(_MANAGE, description="The job that leads it, to those who may read it; null once that is forgotten.")
    async def job(self: Any, info: Info[Operation]) -> Job | None:
        return await _job(info, self.job_id)

    @classmethod
    def is_type_of(cls, value: object, _info: Any) -> bool:
        return isinstance(value, tables.Rotation)


@strawberry.type(
    description="How many values of a place are sealed under a version of the data key,"
    " or how many tokens were made by one of the index key."
)
class KeyCoverage:
    place: str = requires(_MANAGE, description="Table and column.")
    version: int = requires(_MANAGE)
    rows: int = requires(_MANAGE)


@strawberry.type
class KeyRotationPayload:
    rotation: KeyRotation | None = public(_SHAPE)
    job: Job | None = public(_SHAPE)
    user_errors: list[UserError] = public(_SHAPE)


_FIRST = Annotated[int | None, argument(Input(why="a size"), "1 to 100; 20 unless told.")]
_CURSOR = Annotated[
    str | None, argument(Input(why="holds a clear sort key and an id, under a MAC"), "An end or edge of the list.")
]


@strawberry.type
class KeyQueries:
    @requires(_MANAGE, description="All data keys of the tenant, by purpose and version.")
    async def keys(self, info: Info[Operation]) -> list[DataKey] | None:
        return cast(list[DataKey], await rotations.keys(info.context.unit))

    @requires(_MANAGE, description="Turnings-over of keys, newest first.")
    async def rotations(
        self,
        info: Info[Operation],
        purpose: Annotated[KeyPurpose | None, argument(Input(why="a code"), "All unless told.")] = None,
        first: _FIRST = None,
        after: _CURSOR = None,
        last: _FIRST = None,
        before: _CURSOR = None,
    ) -> Connection[KeyRotation] | None:
        unit = info.context.unit
        within = window(unit, _LIST, first, after, last, before)
        return Connection(
            page=await rotations.page(unit, within, purpose=purpose),
            cursor_of=lambda each: cursor(unit, _LIST, (each.started_at, each.id)),
            count=lambda: rotations.count(unit, purpose=purpose),
        )

    @requires(
        _MANAGE,
        description="How many values are sealed under which version of the data key, by place; and how many tokens of"
        " the search index by which version of the index key (places that end in `.token`). It counts them all;"
        " beyond 200,000 customers KEY_COVERAGE_TOO_LARGE: use the command `coffer keys status`.",
    )
    async def key_coverage(self, info: Info[Operation]) -> list[KeyCoverage] | None:
        found: list[Coverage] = await rotations.coverage(info.context.unit)
        return cast(list[KeyCoverage], found)


@strawberry.type
class KeyMutations:
    @requires(
        _MANAGE,
        description="Turn over a key, by a job; all goes on meanwhile. If that key is being turned over, that rotation"
        " is told, and taken up again where its job was parked or cancelled. Takes a proof of the last"
        " five minutes that it is still you (`confirmIdentity`).",
    )
    async def rotate_key(
        self, info: Info[Operation], purpose: Annotated[KeyPurpose, argument(Input(why="a code"), "Which key.")]
    ) -> KeyRotationPayload | None:
        try:
            rotation = await rotations.ask(info.context.unit, purpose)
        except Refused as refused:
            return KeyRotationPayload(rotation=None, job=None, user_errors=user_errors(refused))
        told = cast(KeyRotation, rotation)
        return KeyRotationPayload(rotation=told, job=await _job(info, rotation.job_id), user_errors=[])


async def data_keys_by_id(operation: Operation, ids: list[Any]) -> dict[Any, Any]:
    return dict(await rotations.keys_by_id(operation.unit, ids)) if operation.may(_MANAGE) else {}


async def rotations_by_id(operation: Operation, ids: list[Any]) -> dict[Any, Any]:
    return dict(await rotations.get_many(operation.unit, ids)) if operation.may(_MANAGE) else {}


async def _job(info: Info[Operation], job: UUID | None) -> Job | None:
    return None if job is None else cast(Job | None, await _jobs(info.context).load(job))


def _jobs(operation: Operation) -> "DataLoader[UUID, Any]":
    if "jobs of rotations" not in operation.loaders:
        load = DataLoader(load_fn=lambda ids: jobs.get_many(operation.unit, ids))
        operation.loaders["jobs of rotations"] = load
    return cast("DataLoader[UUID, Any]", operation.loaders["jobs of rotations"])
