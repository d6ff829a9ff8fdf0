"""The bell: tells the broker of jobs without ever holding up or failing whoever rings it."""

import queue
import time
from collections.abc import Callable
from threading import Event, Thread
from types import TracebackType
from typing import Self

import structlog

from tenants.jobs import JobId
from tenants.viewers import TenantId

MOST = 10_000
PATIENCE = 2.0  # seconds
_log = structlog.get_logger()
_Ring = tuple[TenantId, JobId, float]


class Bell:
    """`send` may block and raise; one thread of the bell calls it.

    What can't be sent within `patience` seconds is dropped: the sweeper finds those jobs. It recovers by itself.
    """

    def __init__(
        self, send: Callable[[TenantId, JobId], object], *, most: int = MOST, patience: float = PATIENCE
    ) -> None:
        self._send = send
        self._patience = patience
        self._waiting: queue.Queue[_Ring | None] = queue.Queue(most)
        self._closing = Event()
        self._is_away = False
        self.dropped = 0
        self._thread = Thread(target=self._drain, name="bell", daemon=True)
        self._thread.start()

    @property
    def is_away(self) -> bool:
        """Whether the broker took no message when it was last asked."""
        return self._is_away

    def ring(self, tenant: TenantId, job: JobId) -> None:
        """Never blocks, never raises."""
        try:
            self._waiting.put_nowait((tenant, job, time.monotonic() + self._patience))
        except queue.Full:
            self.dropped += 1

    def close(self) -> None:
        """Sends what is waiting, if that takes no longer than `patience`."""
        self._closing.set()
        try:
            self._waiting.put_nowait(None)
        except queue.Full:
            return  # the thread sees `_closing` by itself
        self._thread.join(self._patience)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def _drain(self) -> None:
        while (ring := self._waiting.get()) is not None:
            if not self._delivered(*ring):
                self.dropped += 1
            if self._closing.is_set() and self._is_away:
                return

    def _delivered(self, tenant: TenantId, job: JobId, until: float) -> bool:
        """Tried at least once, unless it is too late and the broker was away a moment ago."""
        while not self._is_away or time.monotonic() < until:
            try:
                self._send(tenant, job)
            except Exception as error:  # an edge: whatever a broker's client raises, the job is in the ledger
                self._tell(is_away=True, error=type(error).__name__)
                self._closing.wait(self._patience / 10)
                if self._closing.is_set():
                    return False
            else:
                self._tell(is_away=False)
                return True
        return False

    def _tell(self, *, is_away: bool, error: str | None = None) -> None:
        if is_away != self._is_away:
            _log.warning("broker away" if is_away else "broker back", error=error, dropped=self.dropped)
        self._is_away = is_away
