"""Schedules over GraphQL: when a tenant's recurring jobs are due."""

from datetime import datetime
from typing import Annotated, Any, cast

import strawberry
from strawberry import Info

from api.directives import Input, argument, public, requires
from api.jobs import Job
from api.operation import Operation
from api.paging import UserError, user_errors
from domain import jobs
from domain.backups import BACK_UP, CHECK_BACKUPS
from domain.errors import Refused
from domain.errors import UserError as Reason
from domain.rotations import TURN_KEYS
from domain.tidying import TIDY
from tenants.access import Permission
from tenants.errors import ScheduleRefused
from tenants.jobs import schedules

_READ = Permission.JOBS_READ
_MANAGE = Permission.JOBS_MANAGE
_SHAPE = "the shape of a payload"
_RECURRING = {
    kind.name: kind for kind in (TIDY, TURN_KEYS, BACK_UP, CHECK_BACKUPS)
}  # what a tenant may say the time of


@strawberry.type(description="When a recurring job is due; there is at most one of each kind.")
class Schedule:
    kind: str = requires(_READ)
    cron: str = requires(_READ, description="Five fields: minute, hour, day, month, weekday.")
    time_zone: str = requires(_READ, description="A name of the IANA: Europe/Berlin.")
    next_at: datetime | None = requires(_READ, description="Null: switched off.")
    last_at: datetime | None = requires(_READ, description="When it last started a job.")

    @requires(_READ)
    def enabled(self: Any) -> bool:
        return self.next_at is not None

    @requires(_READ, description="The job it last started; null once that is forgotten.")
    async def last_job(self: Any, info: Info[Operation]) -> Job | None:
        if self.last_job is None:
            return None
        (found,) = await jobs.get_many(info.context.unit, [self.last_job])
        return cast(Job | None, found)


@strawberry.type
class SchedulePayload:
    schedule: Schedule | None = public(_SHAPE)
    user_errors: list[UserError] = public(_SHAPE)


@strawberry.type
class ScheduleQueries:
    @requires(_READ, description="All schedules, by kind.")
    async def schedules(self, info: Info[Operation]) -> list[Schedule] | None:
        return cast(list[Schedule], await schedules.every(info.context.unit))


_CODE = Input(why="a code")


@strawberry.type
class ScheduleMutations:
    @requires(_MANAGE, description="Say when a recurring job is due, or switch it off.")
    async def set_schedule(
        self,
        info: Info[Operation],
        kind: Annotated[str, argument(_CODE, "As in `Schedule.kind`: `back_up`.")],
        cron: Annotated[str, argument(_CODE, "Five fields: `0 3 * * 1` is Mondays at three.")],
        time_zone: Annotated[str, argument(_CODE, "A name of the IANA: Europe/Berlin.")] = "UTC",
        enabled: Annotated[bool, argument(_CODE, "False switches it off.")] = True,
    ) -> SchedulePayload | None:
        unit, recurring = info.context.unit, _RECURRING.get(kind)
        if recurring is None:
            return _refused("NOT_FOUND", "kind", "There is no recurring job of that kind.")
        try:
            found = await schedules.set_(unit, recurring, cron, time_zone)
        except ScheduleRefused as refused:
            return _refused(refused.code, refused.argument, refused.message)
        if not enabled:
            await schedules.switch_off(unit, recurring)
            (found,) = [each for each in await schedules.every(unit) if each.kind == kind]
        return SchedulePayload(schedule=cast(Schedule, found), user_errors=[])


def _refused(code: str, argument: str, message: str) -> SchedulePayload:
    return SchedulePayload(schedule=None, user_errors=user_errors(Refused([Reason(code, (argument,), message)])))
