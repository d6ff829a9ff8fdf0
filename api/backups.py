"""Backups over GraphQL: which there are and how good they are; made, verified, repaired, held and deleted."""

from collections.abc import Awaitable
from datetime import datetime
from typing import Annotated, Any, cast
from urllib.parse import urlsplit
from uuid import UUID

import strawberry
from strawberry import Info

from api.directives import Input, argument, public, requires
from api.jobs import Job
from api.meanings import described
from api.operation import Operation
from api.paging import Connection, Node, UserError, cursor, local_id, user_errors, window
from domain import backups, jobs, retention
from domain.backups import Depth
from domain.errors import Refused
from domain.errors import UserError as Reason
from domain.retention import Retention
from tenants import backups as tables
from tenants.access import Permission
from tenants.backups import BackupKind, BackupState, Generation
from tenants.errors import BackupsUnavailable

_MANAGE = Permission.BACKUPS_MANAGE
_SHAPE = "the shape of a payload"
_LIST = "backups"

described(
    BackupKind,
    "Why a backup was made.",
    SCHEDULED="Its time had come.",
    ASKED="Somebody asked for it.",
    BEFORE_RESTORE="To be able to go back to what a restore replaced.",
)
described(
    BackupState,
    "How far a backup is; only a VERIFIED one counts.",
    WRITING="It is being written; a try that failed is taken up by the next.",
    WRITTEN="It lies on the stores, and is being verified.",
    VERIFIED="All of it was read and opened.",
    BROKEN="Some of it can't be read any more.",
    EXPIRED="Gone, or about to go.",
)
described(
    Generation,
    "As what retention keeps a backup: the newest one of its day, week or month.",
    name="BackupGeneration",
    DAILY="Of a day.",
    WEEKLY="Of a week.",
    MONTHLY="Of a month.",
)
described(
    Depth,
    "How deep a backup is looked into.",
    name="BackupDepth",
    SHARDS="Every byte on every store, without any key.",
    CHUNKS="The same; and all of it is opened with its key.",
)


@strawberry.type(description="Rows of one table in a backup.")
class BackupTable:
    name: str = requires(_MANAGE)
    rows: int = requires(_MANAGE)


@strawberry.type(description="What there was of the tenant at one moment, sealed and spread over stores.")
class Backup(Node):
    number: int = requires(_MANAGE, description="1, 2, …: its place behind the tenant's backup before.")
    kind: BackupKind = requires(_MANAGE)
    state: BackupState = requires(_MANAGE)
    created_at: datetime = requires(_MANAGE, description="The moment whose state it holds.")
    written_at: datetime | None = requires(_MANAGE)
    verified_at: datetime | None = requires(_MANAGE, description="When all of it was last read and opened.")
    checked_at: datetime | None = requires(_MANAGE, description="When it was last looked at.")
    coding: str = requires(_MANAGE, description="`rs:4+2`: four shards of data and two of parity; any two may be lost.")
    records: int = requires(_MANAGE)
    missing: int = requires(_MANAGE, description="Objects that the last check did not find, or could not reach.")
    rotten: int = requires(_MANAGE, description="Objects that the last check found damaged.")
    held: bool = requires(_MANAGE, description="Neither retention nor a member deletes it.")
    kept_as: list[Generation] = requires(_MANAGE, description="Empty before retention looked at it.")
    reason: str | None = requires(_MANAGE, description="The code of the error that broke or delays it.")
    drilled_at: datetime | None = requires(_MANAGE, description="When it was last restored on trial, into nothing.")
    drill_outcome: str | None = requires(_MANAGE, description="OK, or the code of what kept it from being restored.")

    @requires(_MANAGE, description="Bytes on all stores together.")
    def stored_bytes(self: Any) -> float:
        return float(self.bytes)

    @requires(_MANAGE, description="Bytes before compression.")
    def content_bytes(self: Any) -> float:
        return float(self.record_bytes)

    @requires(_MANAGE, description="By name.")
    def tables(self: Any) -> list[BackupTable]:
        return [BackupTable(name=name, rows=rows) for name, rows in sorted(self.tables.items())]

    @requires(_MANAGE, description="Where its shards lie, in their order: bucket or folder.")
    def stores(self: Any) -> list[str]:
        return [_name(place) for place in self.places]

    @classmethod
    def is_type_of(cls, value: object, _info: Any) -> bool:
        return isinstance(value, tables.BackupRow)


@strawberry.type(description="How many days, weeks and months each keep their newest backup.")
class BackupRetention:
    daily: int = requires(_MANAGE)
    weekly: int = requires(_MANAGE)
    monthly: int = requires(_MANAGE)


@strawberry.type
class BackupPayload:
    backup: Backup | None = public(_SHAPE)
    user_errors: list[UserError] = public(_SHAPE)


@strawberry.type
class BackupJobPayload:
    job: Job | None = public(_SHAPE, description="What does it.")
    user_errors: list[UserError] = public(_SHAPE)


@strawberry.type
class BackupRetentionPayload:
    retention: BackupRetention | None = public(_SHAPE)
    user_errors: list[UserError] = public(_SHAPE)


_ID = Annotated[strawberry.ID, argument(Input(why="an id opens nothing by itself"), "The backup's.")]
_FIRST = Annotated[int | None, argument(Input(why="a size"), "1 to 100; 20 unless told.")]
_CURSOR = Annotated[
    str | None, argument(Input(why="holds a clear sort key and an id, under a MAC"), "An end or edge of the list.")
]
_COUNT = Input(why="a count")


@strawberry.type
class BackupQueries:
    @requires(_MANAGE, description="One backup, or null.")
    async def backup(self, info: Info[Operation], id: _ID) -> Backup | None:
        return cast(Backup | None, await tables.find(info.context.unit, local_id("Backup", id)))

    @requires(_MANAGE, description="All backups, newest first; also those that are gone.")
    async def backups(
        self,
        info: Info[Operation],
        first: _FIRST = None,
        after: _CURSOR = None,
        last: _FIRST = None,
        before: _CURSOR = None,
    ) -> Connection[Backup] | None:
        unit = info.context.unit
        return Connection(
            page=await backups.page(unit, window(unit, _LIST, first, after, last, before)),
            cursor_of=lambda backup: cursor(unit, _LIST, (backup.created_at, backup.id)),
            count=lambda: backups.count(unit),
        )

    @requires(_MANAGE, description="What is kept.")
    async def backup_retention(self, info: Info[Operation]) -> BackupRetention | None:
        return cast(BackupRetention, await backups.settings(info.context.unit))


@strawberry.type
class BackupMutations:
    @requires(_MANAGE, description="Back the tenant up now, and verify the backup.")
    async def make_backup(self, info: Info[Operation]) -> BackupJobPayload | None:
        if not info.context.services.keeps_backups:
            reason = Reason(BackupsUnavailable.code, (), BackupsUnavailable.message)
            return BackupJobPayload(job=None, user_errors=user_errors(Refused([reason])))
        return await _started(info, backups.make(info.context.unit))

    @requires(_MANAGE, description="Look whether a backup is what it should be.")
    async def verify_backup(
        self,
        info: Info[Operation],
        id: _ID,
        depth: Annotated[Depth, argument(Input(why="a code"), "CHUNKS unless told.")] = Depth.CHUNKS,
    ) -> BackupJobPayload | None:
        return await _started(info, backups.verify(info.context.unit, local_id("Backup", id), depth))

    @requires(_MANAGE, description="Make what is lost or damaged anew from what is good, then verify the backup.")
    async def repair_backup(self, info: Info[Operation], id: _ID) -> BackupJobPayload | None:
        return await _started(info, backups.repair(info.context.unit, local_id("Backup", id)))

    @requires(_MANAGE, description="Keep a backup whatever retention says, or leave it to that again.")
    async def hold_backup(
        self,
        info: Info[Operation],
        id: _ID,
        held: Annotated[bool, argument(Input(why="a switch"), "True keeps it.")] = True,
    ) -> BackupPayload | None:
        try:
            row = await backups.hold(info.context.unit, local_id("Backup", id), held)
        except Refused as refused:
            return BackupPayload(backup=None, user_errors=user_errors(refused))
        return BackupPayload(backup=cast(Backup, row), user_errors=[])

    @requires(_MANAGE, description="Delete a backup from every store, and its key; the last good one stays.")
    async def delete_backup(self, info: Info[Operation], id: _ID) -> BackupJobPayload | None:
        return await _started(info, backups.delete(info.context.unit, local_id("Backup", id)))

    @requires(_MANAGE, description="Say how many days, weeks and months each keep their newest backup.")
    async def set_backup_retention(
        self,
        info: Info[Operation],
        daily: Annotated[int, argument(_COUNT, f"1 to {retention.MOST}.")] = retention.DEFAULT.daily,
        weekly: Annotated[int, argument(_COUNT, f"0 to {retention.MOST}.")] = retention.DEFAULT.weekly,
        monthly: Annotated[int, argument(_COUNT, f"0 to {retention.MOST}.")] = retention.DEFAULT.monthly,
    ) -> BackupRetentionPayload | None:
        try:
            kept = await backups.set_settings(info.context.unit, Retention(daily, weekly, monthly))
        except Refused as refused:
            return BackupRetentionPayload(retention=None, user_errors=user_errors(refused))
        return BackupRetentionPayload(retention=cast(BackupRetention, kept), user_errors=[])


async def backups_by_id(operation: Operation, ids: list[Any]) -> dict[Any, Any]:
    return dict(await backups.get_many(operation.unit, ids)) if operation.may(_MANAGE) else {}


async def _started(info: Info[Operation], starting: Awaitable[UUID]) -> BackupJobPayload:
    try:
        job = await starting
    except Refused as refused:
        return BackupJobPayload(job=None, user_errors=user_errors(refused))
    (found,) = await jobs.get_many(info.context.unit, [job])
    return BackupJobPayload(job=cast(Job | None, found), user_errors=[])


def _name(place: str) -> str:
    """Of a bucket its URL without what is below it, of a folder its last part: no paths of a machine."""
    parts = urlsplit(place)
    return f"{parts.scheme}://{parts.netloc}" if parts.netloc else parts.path.rstrip("/").rpartition("/")[2]
