"""One slot for a worker, which is refilled when its worker exits.

    empty --fill--> occupied --silent for too long--> (killed) --> empty
                    occupied --its pipe is closed--> empty --delay--> occupied

The first replacement is started at once. When a worker exits within seconds of its start, the next ones are started
after growing delays.
"""

from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

from livestate.system.backoff import Backoff
from livestate.workers.worker_process import WorkerProcess

#: Seconds after which a worker counts as healthy: whatever ends it later would not end its replacement at once.
HEALTHY_AFTER = 10

#: Seconds: the first and the longest delay before an unhealthy worker is replaced.
RESTART_DELAYS = 0.1, 5.0


class WorkerSlot:
    """The slot of one worker number."""

    log = Logger()

    def __init__(self, number: int, reactor: Any, start: Callable[["WorkerSlot"], WorkerProcess | None]) -> None:
        """:param start: starts a worker for a slot and returns it, or None when that is not possible now."""
        self.number = number
        self.worker: WorkerProcess | None = None
        #: How many workers were replaced, and how many of these because they did not respond.
        self.restarts = 0
        self.unresponsive = 0
        self._reactor = reactor
        self._start = start
        self._backoff = Backoff(*RESTART_DELAYS)
        self._delayed_fill: Any = None

    def status(self) -> dict[str, Any]:
        """Return what /status shows of the slot and its worker."""
        return {
            "worker": self.number + 1,
            "restarts": self.restarts,
            "unresponsive_restarts": self.unresponsive,
            **({"pid": None} if self.worker is None else self.worker.status()),
        }

    def fill(self) -> None:
        """Start a worker in this slot; if that is not possible, retry later."""
        self._delayed_fill = None
        self.worker = self._start(self)
        if self.worker is None:
            self._fill_after(self._backoff.next_delay())

    def assign(self, worker: WorkerProcess | None) -> None:
        """Put `worker` into this slot. The caller takes care of the previous one."""
        if self._delayed_fill is not None:
            self._delayed_fill.cancel()
            self._delayed_fill = None
        self.worker = worker

    def clear(self) -> None:
        """Empty this slot, and leave it empty."""
        self.assign(None)

    def worker_exited(self, worker: WorkerProcess) -> None:
        """Replace `worker`, which was in this slot."""
        self.worker = None
        self.restarts += 1
        self.unresponsive += worker.unresponsive
        if worker.age >= HEALTHY_AFTER:
            self._backoff.reset()
        first = self._backoff.failures == 0
        delay = self._backoff.next_delay()
        if first:
            self.log.warn("worker {number} (process {pid}) exited; starting a replacement",
                          number=self.number + 1, pid=worker.pid)  # fmt: skip
            self.fill()
            return
        if self._backoff.failures == 2:
            self.log.error("worker {number} keeps exiting; restarting with back-off, waiting up to {limit:g} s",
                           number=self.number + 1, limit=RESTART_DELAYS[1])  # fmt: skip
        self._fill_after(delay)

    def _fill_after(self, delay: float) -> None:
        self._delayed_fill = self._reactor.callLater(delay, self.fill)
