"""Restores over GraphQL: data brought back from a backup, first on trial, and drills that prove it could be done."""

from collections.abc import Awaitable
from typing import Annotated, cast
from uuid import UUID

import strawberry
from strawberry import Info

from api.backups import BackupJobPayload
from api.directives import Input, argument, requires
from api.jobs import Job
from api.operation import Operation
from api.paging import local_id, user_errors
from domain import jobs, restores
from domain.errors import Refused
from domain.restores import Restore
from tenants.access import Permission

_BACKUP = Annotated[strawberry.ID, argument(Input(why="an id opens nothing by itself"), "The backup's.")]
_SWITCH = Input(why="a switch")


@strawberry.type
class RestoreMutations:
    @requires(
        Permission.BACKUPS_MANAGE,
        description="Replace all customers and tags by those of a backup, in one moment; takes an OWNER and a fresh"
        " proof of who asks. Meanwhile nobody writes. The job's result counts what happened by table, as"
        " `customers.written`; a dry run tells what would, as `customers.added`, and takes no OWNER.",
    )
    async def restore_backup(
        self,
        info: Info[Operation],
        backup: _BACKUP,
        dry_run: Annotated[bool, argument(_SWITCH, "True changes nothing: only counts what would change.")] = True,
        without_safety: Annotated[
            bool, argument(_SWITCH, "True makes no backup of what is replaced: then there is no way back.")
        ] = False,
    ) -> BackupJobPayload | None:
        wanted = Restore(local_id("Backup", backup), dry_run, without_safety)
        return await _started(info, restores.start(info.context.unit, wanted))

    @requires(
        Permission.BACKUPS_MANAGE,
        description="Restore a backup on trial, into nothing: all of it is read, opened and indexed. `Backup.drilledAt`"
        " and `drillOutcome` tell what came of it; takes a fresh proof of who asks.",
    )
    async def drill_backup(self, info: Info[Operation], backup: _BACKUP) -> BackupJobPayload | None:
        return await _started(info, restores.start_drill(info.context.unit, local_id("Backup", backup)))


async def _started(info: Info[Operation], starting: Awaitable[UUID]) -> BackupJobPayload:
    try:
        job = await starting
    except Refused as refused:
        return BackupJobPayload(job=None, user_errors=user_errors(refused))
    (found,) = await jobs.get_many(info.context.unit, [job])
    return BackupJobPayload(job=cast(Job | None, found), user_errors=[])
