"""When a recurring job is due next: five fields of cron, in a time zone of the IANA, right over changes of the clock.

A moment that the clock skips comes right after the skip; one that comes twice is taken once (as Debian's cron does).
"""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from tenants.errors import ScheduleRefused

_FIELDS = 5
_LONGEST = 200  # characters


def next_moment(cron: str, time_zone: str, after: datetime) -> datetime:
    """The first moment later than `after`, in UTC. Raises `ScheduleRefused`."""
    if len(cron) > _LONGEST or len(cron.split()) != _FIELDS:
        raise ScheduleRefused("A schedule has five fields: minute, hour, day, month, weekday.")
    try:
        zone = ZoneInfo(time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ScheduleRefused("A time zone is a name of the IANA, such as Europe/Berlin or UTC.", "timeZone") from None
    try:
        found: datetime = next(CronSim(cron, after.astimezone(zone)))
    except CronSimError:
        raise ScheduleRefused("A field of the schedule can't be read; `0 3 * * 1` is Mondays at three.") from None
    except StopIteration:
        raise ScheduleRefused("That day never comes.") from None
    return found.astimezone(UTC)
