"""Composition root of background work: everything is wired here, checked at start-up, and closed at the end."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import dramatiq
import structlog

from crypto.cache import KeyringCache
from crypto.errors import CofferError
from crypto.transit import TransitKeys
from domain import backups as backup_kinds
from domain import tables
from domain.backups import BACK_UP, CHECK_BACKUPS
from domain.erasures import FINISH_ERASURE
from domain.restores import DRILL, DRILL_BACKUP, RESTORE
from domain.rotations import TURN_KEYS
from domain.tidying import TIDY
from egress import Egress
from jobs.backups.codings import Coding
from jobs.backups.shapes import Shape
from jobs.backups.stores import Store
from jobs.bells import Bell
from jobs.brokers import MEMORY, close_broker, open_broker, wake_by
from jobs.depots import Depot
from jobs.handlers import all_handlers, refuse_incomplete
from jobs.handling import Handler, Handling
from jobs.hands import Hands
from jobs.key_files.files import KeyFiles
from jobs.linking import Linking
from jobs.pulses import Pulse
from jobs.scheduling import Scheduler
from jobs.sweeping import Sweeper
from jobs.telling import Telling
from jobs.webhooks.engine import Webhooks
from jobs.webhooks.sending import AT_WORK, CONNECT_SECONDS, LARGEST_ANSWER, TOTAL_SECONDS
from mail import Post
from migrations.apply import newest
from settings import AppRole, Settings
from telemetry.metrics import Metrics
from telemetry.traces import Tracing
from tenants import catalogue
from tenants.audit.chains import AuditChains
from tenants.audit.store import CheckpointStore
from tenants.backups import backup_inspections, freezes
from tenants.budgets import Budgets
from tenants.database import Database
from tenants.jobs import JobId, JobKind, NoArguments, job_inspections
from tenants.jobs.ledger import LEASE, Ledger
from tenants.keys.key_files import PUBLISH_KEY_FILE
from tenants.keys.rotating import ROTATE
from tenants.keys.rotations import KeyPurpose
from tenants.provisioning import PROVISION, Provisioning
from tenants.recorder import Recorder
from tenants.units import Units
from tenants.viewers import TenantId

GRACE = 20.0  # seconds that running steps get to end in
SWEEP = 1.0  # seconds between two rounds
_SCHEDULES = 5.0  # seconds between two looks at the schedules
_REST = 5.0  # seconds after a loop failed
_POLL = 200  # milliseconds between two looks into a queue that was empty, where the broker has to be asked
_log = structlog.get_logger()
Loop = Callable[[], Awaitable[None]]


class Worker:
    """The parts of one worker process. `loops` run beside the jobs, and are started again if they fail.

    `handlers` are more than, or others than, the product's own. `bell` may be rung by others of this process.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        handlers: Mapping[JobKind[Any], Handler] | None = None,
        loops: Sequence[Loop] = (),
        lease: Any = LEASE,
        sweep: float = SWEEP,
        metrics: Metrics | None = None,
    ) -> None:
        tables.load()
        self.settings = settings
        self.metrics = metrics or Metrics()
        self.tracing = Tracing(settings.otlp_endpoint, ca_file=settings.otlp_ca_file, service="coffer-worker")
        self.database = Database(settings.database_url, pool_size=settings.worker_threads + 2)
        self.leading = Database(settings.database_url, pool_size=4)  # so that no step can hold up a heartbeat
        self.platform = Database(settings.platform_database_url, pool_size=2)
        self.keys = _keys(settings, settings.api_role)
        self.maker = None if settings.provisioner_role is None else _keys(settings, settings.provisioner_role)
        self.rotator = None if settings.rotator_role is None else _keys(settings, settings.rotator_role)
        self.backup_keys = None if settings.backup_role is None else _keys(settings, settings.backup_role)
        self.stores = [Store(url) for url in settings.backup_stores]
        self.ledger = Ledger(self.leading, self.platform, f"{socket.gethostname()}:{os.getpid()}", lease)
        self.broker = open_broker(settings.broker_url, queue=settings.broker_queue, ca_file=settings.broker_ca_file)
        self.bell = Bell(wake_by(self.broker, settings.broker_queue, self._woken))
        cache = KeyringCache(ttl=settings.key_ttl_seconds)
        self.units = Units(self.database, self.keys, cache, ring=self.bell.ring)
        self.dumps = Database(settings.database_url, pool_size=settings.worker_threads)  # a backup holds one for long
        self.key_files = KeyFiles(self.units, self.keys, self.backup_keys, self.stores)
        post = Post(settings.mail_url, settings.mail_from, ca_file=settings.mail_ca_file)
        own = all_handlers(
            self._provisioning(),
            post,
            settings.portal_url or settings.issuer,
            keys=self.keys,
            maker=self.maker,
            rotator=self.rotator,
            key_files=self.key_files,
            depot=self._depot(),
            units=self.units,
        )
        self.handlers = {**own, **(handlers or {})}
        without = self._without()
        telling = Telling(self.tracing, self.metrics)
        handling = Handling(self.units, self.ledger, self.handlers, telling, without=without)
        self.hands = Hands(self.ledger, handling, most=settings.worker_threads, without=without)
        self.sweeper = Sweeper(self.ledger, without=without)
        self._sweep = sweep
        self.chaining = Database(settings.database_url, pool_size=2)  # so that no step can hold up the audit log
        audit_chains = AuditChains(
            Units(self.chaining, self.keys, cache), self.keys, CheckpointStore(settings.audit_store)
        )
        self.linking = Linking(audit_chains, self.platform)
        self.scheduler = Scheduler(
            self.leading, self.platform, self.bell.ring, nightly=self._nightly(), weekly=self._weekly()
        )
        self.sending = Database(settings.database_url, pool_size=AT_WORK + 2)  # so that no step can hold up a webhook
        self.following = Database(settings.platform_database_url, pool_size=2)  # one of them listens
        self.recording = Database(settings.recorder_database_url, pool_size=1)
        self.webhooks = self._webhooks(cache)
        self._loops = [self._sweeping, self._scheduling, self.linking.run, self.webhooks.run, *loops]
        self._kept: list[asyncio.Task[None]] = []
        self._consumer: dramatiq.Worker | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pulse: Pulse | None = None
        self.metrics.watch_keys(cache)
        self.metrics.watch_jobs(partial(job_inspections.counts, self.platform))
        self.metrics.watch("audit_lag_seconds", "Age of the oldest unlinked audit entry.", lambda: self.linking.lag)
        self.metrics.watch_copies(lambda: self.linking.copies_owed)
        self.metrics.watch_backups(partial(backup_inspections.of_fleet, self.platform) if self.stores else None)
        self.metrics.watch_drills(partial(backup_inspections.drills_of_fleet, self.platform) if self.stores else None)
        self.metrics.watch_stores([store.answers for store in self.stores])
        self.metrics.watch_broker(lambda: self.bell.is_away)

    async def check(self) -> None:
        """Raises `UnsafeDatabase`, or TypeError for a kind of job that nobody handles."""
        refuse_incomplete(self.handlers)
        await catalogue.refuse_unsafe(self.database, catalogue.APP)
        await catalogue.refuse_unsafe(self.platform, catalogue.PLATFORM)

    def start(self) -> None:
        """From here on jobs are taken."""
        self._loop = asyncio.get_running_loop()
        self._pulse = Pulse()
        self._consumer = dramatiq.Worker(self.broker, worker_threads=self.settings.worker_threads, worker_timeout=_POLL)
        self._consumer.queue_prefetch = self.settings.worker_threads  # what waits for us, another could do
        self._consumer.start()
        self._kept = [asyncio.create_task(_kept(loop)) for loop in self._loops]

    async def run(self) -> None:
        """Until SIGTERM or Ctrl-C; then running steps end, and jobs are given back."""
        asked = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, asked.set)
        self.start()
        await asked.wait()

    async def close(self, grace: float = GRACE) -> None:
        await self.hands.stop(grace)
        for task in self._kept:
            task.cancel()
        await asyncio.gather(*self._kept, return_exceptions=True)
        if self._consumer is not None:
            await asyncio.to_thread(self._consumer.stop, 5_000)
        await asyncio.to_thread(self.bell.close)
        await asyncio.to_thread(close_broker, self.broker)
        for keys in (self.keys, self.maker, self.rotator, self.backup_keys):
            if keys is not None:
                await keys.close()
        for database in (self.database, self.leading, self.chaining, self.dumps, self.platform, *self._of_webhooks):
            await database.close()
        await asyncio.to_thread(self.tracing.close)
        if self._pulse is not None:
            self._pulse.close()

    def _without(self) -> tuple[str, ...]:
        """The kinds of jobs that need a role which this worker has not."""
        making = (PROVISION, ROTATE[KeyPurpose.DEK], ROTATE[KeyPurpose.BIK])
        missing = [*(() if self.maker else making), *(() if self.rotator else (ROTATE[KeyPurpose.KEK],))]
        files = (PUBLISH_KEY_FILE, FINISH_ERASURE, ROTATE[KeyPurpose.KEK])  # all of them write key files
        missing += files if self.stores and self.backup_keys is None else ()
        missing += [] if self._makes_backups else [*backup_kinds.KINDS, RESTORE, DRILL, DRILL_BACKUP]
        return tuple(kind.name for kind in missing)

    def _nightly(self) -> list[JobKind[NoArguments]]:
        return [TIDY, TURN_KEYS, *([BACK_UP] if self.stores else [])]

    def _weekly(self) -> list[JobKind[NoArguments]]:
        return [CHECK_BACKUPS, DRILL] if self.stores else []

    @property
    def _makes_backups(self) -> bool:
        return bool(self.stores) and self.backup_keys is not None

    def _depot(self) -> Depot | None:
        if not self.stores or self.backup_keys is None:
            return None
        return Depot(
            stores=self.stores,
            keys=self.keys,
            maker=self.backup_keys,
            key_files=self.key_files,
            dumps=self.dumps,
            shape=Shape(Coding.parse(self.settings.backup_coding)),
            revision=newest(),
        )

    def _provisioning(self) -> Provisioning | None:
        if self.maker is None:
            return None
        return Provisioning(self.platform, self.database, self.maker, self.keys)

    @property
    def _of_webhooks(self) -> tuple[Database, ...]:
        return self.sending, self.following, self.recording

    def _webhooks(self, cache: KeyringCache) -> Webhooks:
        egress = Egress(
            allowed=self.settings.egress_allow,
            connect_seconds=CONNECT_SECONDS,
            total_seconds=TOTAL_SECONDS,
            most_bytes=LARGEST_ANSWER,
        )
        units = Units(self.sending, self.keys, cache, ring=self.bell.ring, budgets=Budgets())
        recorder = Recorder(self.recording, told=self.metrics.recorded)
        return Webhooks(units, self.sending, self.following, recorder, egress)

    def _woken(self, tenant: TenantId, job: JobId) -> None:
        """On a thread of the consumer, which has no other work: it waits until a hand has taken something."""
        if self._loop is not None:
            asyncio.run_coroutine_threadsafe(self.hands.wake(tenant, job), self._loop).result()

    async def _sweeping(self) -> None:
        while True:
            self.hands.nudge(await self.sweeper.sweep())  # no broker in between: it may be away, or have lost it
            if self._pulse is not None:
                self._pulse.beat()
            await asyncio.sleep(self._sweep)

    async def _scheduling(self) -> None:
        while True:
            await self.scheduler.add_missing()
            await self.scheduler.start_due()
            await freezes.thaw_abandoned(self.platform)
            await asyncio.sleep(_SCHEDULES)


@asynccontextmanager
async def beside(
    settings: Settings, metrics: Metrics | None = None
) -> AsyncIterator[Callable[[TenantId, JobId], None]]:
    """What a server of `settings` rings. With the broker `memory:` a worker runs here meanwhile, on the same loop."""
    if settings.broker_url != MEMORY:
        broker = open_broker(settings.broker_url, queue=settings.broker_queue, ca_file=settings.broker_ca_file)
        bell = Bell(wake_by(broker, settings.broker_queue, lambda _tenant, _job: None))
        if metrics is not None:
            metrics.watch_broker(lambda: bell.is_away)
        try:
            yield bell.ring
        finally:
            await asyncio.to_thread(bell.close)
            await asyncio.to_thread(close_broker, broker)
        return
    worker = Worker(settings, metrics=metrics)
    try:
        await worker.check()
        worker.start()
        yield worker.bell.ring
    finally:
        await worker.close(grace=3)


async def _kept(loop: Loop) -> None:
    while True:
        try:
            await loop()
            return
        except CofferError as error:
            _log.warning("loop resting", loop=_name(loop), error=error.code)
        except Exception as error:  # an edge: one loop's bug must not end the others
            _log.error("loop failed", loop=_name(loop), error=type(error).__name__)
        await asyncio.sleep(_REST)


def _name(loop: Loop) -> str:
    return str(getattr(loop, "__qualname__", type(loop).__name__))


def _keys(settings: Settings, role: AppRole) -> TransitKeys:
    return TransitKeys(
        settings.vault_address,
        role.role_id,
        role.secret_id,
        ca_file=settings.vault_ca_file,
        mount=settings.transit_mount,
    )
