"""The scheduler: starts what is due by the tenants' schedules, and sees to it that each tenant has the house's own."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog

from tenants.database import Database
from tenants.errors import ScheduleRefused
from tenants.jobs import KINDS, JobId, JobKind, NoArguments, schedules
from tenants.viewers import TenantId

_log = structlog.get_logger()


class Scheduler:
    """Many workers may run one; one starts each run of a schedule. `nightly` and `weekly` are the house's."""

    def __init__(
        self,
        app: Database,
        platform: Database,
        ring: Callable[[TenantId, JobId], None],
        *,
        nightly: Sequence[JobKind[NoArguments]] = (),
        weekly: Sequence[JobKind[NoArguments]] = (),
        kinds: Mapping[str, JobKind[Any]] = KINDS,
    ) -> None:
        self._app = app
        self._platform = platform
        self._ring = ring
        self._nightly = nightly
        self._weekly = weekly
        self._kinds = kinds

    async def start_due(self) -> int:
        """One round; tells how many jobs were started."""
        started = 0
        for tenant, name in await schedules.find_due(self._platform):
            kind = self._kinds.get(name)  # None: a newer release's, which its own workers start
            try:
                job = None if kind is None else await schedules.start(self._app, tenant, kind)
            except ScheduleRefused as error:  # one tenant's trouble must not hold up the others
                _log.warning("schedule refused", tenant=str(tenant), kind=name, error=error.code)
                continue
            if job:
                self._ring(tenant, job)
                started += 1
        return started

    async def add_missing(self) -> None:
        for kind in self._nightly:
            for tenant in await schedules.find_without(self._platform, kind.name):
                await schedules.add_nightly(self._app, tenant, kind)
        for kind in self._weekly:
            for tenant in await schedules.find_without(self._platform, kind.name):
                await schedules.add_weekly(self._app, tenant, kind)
