"""One worker's place: who serves there, and who is next when that one is gone.

    empty --fill--> taken --silent for long--> (killed) --> empty
                    taken --its pipe ends--> empty --delay--> taken

The first successor comes at once. One that is gone within seconds was no good, and the next ones come after growing
delays.
"""

import contextlib
import os
import signal
import socket
from collections.abc import Callable, Sequence
from typing import Any

from twisted.logger import Logger, LogLevel

from livestate.system.backoff import Backoff
from livestate.web.counts import Counts
from livestate.workers.feed import DocumentFeed, WorkerFeed
from livestate.workers.messages import Alive, Drain, FromWorker, Hello, LogEntry, Ready, Serve, ToWorker, for_supervisor
from livestate.workers.pipe import Pipe

log = Logger()

#: Beats (seconds) without a sign of life after which a worker is killed. It gives one each second; the longest that it
#: does nothing else for is some tenths of one, where a document of 16 MB arrives.
SILENT = 5

#: Beats that a worker may need until its first: with an interpreter to start on a busy machine.
STARTING = 30

#: Beats after which a worker counts as good: it does not end for the same reason at once again.
GOOD = 10

#: Seconds of the delays before another is tried in place of one that was no good.
DELAYS = 0.1, 5.0


class WorkerProcess:
    """One worker as the supervisor sees it."""

    def __init__(
        self, reactor: Any, number: int, on_end: Callable[["WorkerProcess"], None], on_ready: Callable[[], None]
    ) -> None:
        """:param on_end: called when it is gone.
        :param on_ready: called when it begins to serve.
        """
        self.number = number
        #: None until it has said hello.
        self.pid: int | None = None
        self.counts = Counts()
        #: Whether it serves.
        self.ready = False
        #: Beats since it was forked, and since it was last heard of.
        self.age = 0
        self.silence = 0
        self.gone = False
        #: Whether it was killed because it did not answer.
        self.unresponsive = False
        self._reactor = reactor
        self._on_end = on_end
        self._on_ready = on_ready
        self.pipe = Pipe(for_supervisor(), self._heard, self._ended)
        self._feed: WorkerFeed | None = None

    def connect(self, end: socket.socket, shipments: Sequence[DocumentFeed]) -> None:
        """Tell it all that there is, and to serve."""
        self.pipe.connect(self._reactor, end)
        self._feed = WorkerFeed(self.pipe, shipments)
        self.pipe.send(Serve())

    def tell(self, shipment: DocumentFeed) -> None:
        """Tell it of a document's news."""
        if self._feed is not None and not self.gone:
            self._feed.tell(shipment)

    def drain(self, ending: bool) -> None:
        """Have it come to its end.

        :param ending: whether all of livestate does.
        """
        self.send(Drain(ending))

    def send(self, message: ToWorker) -> None:
        """Tell it something, if it is there to hear it."""
        if not self.gone:
            self.pipe.send(message)

    def status(self) -> dict[str, Any]:
        """Give what /status shows."""
        documents = self.counts.documents.values()
        return {
            "pid": self.pid,
            "uptime_seconds": self.age,
            "silent_seconds": self.silence,
            "connections": self.counts.connections,
            "answers": sum(sum(document.answers.values()) for document in documents),
            "event_readers": sum(document.event_readers for document in documents),
            "websocket_readers": sum(document.websocket_readers for document in documents),
            "long_polls": sum(document.long_polls for document in documents),
        }

    def beat(self) -> None:
        """Count a second; one that is silent for too long is killed."""
        self.age += 1
        self.silence += 1
        if self.silence >= (SILENT if self.pid is not None else STARTING):
            log.error("worker {number} (process {pid}) does not answer: it is killed",
                      number=self.number + 1, pid=self.pid)  # fmt: skip
            self.unresponsive = True
            self.kill()

    def kill(self) -> None:
        """End it at once."""
        # It may have ended, though the end of its pipe is not seen yet: for so short a time nobody else has its number.
        if self.pid is not None and not self.gone:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        self.pipe.close()

    def _heard(self, message: FromWorker) -> None:
        self.silence = 0
        match message:
            case Hello(pid):
                self.pid = pid
            case Ready():
                self.ready = True
                self._on_ready()
            case Alive(counts):
                self.counts = counts
            case LogEntry(level, text):
                log.emit(LogLevel.lookupByName(level), "worker {number}: {text}", number=self.number + 1, text=text)

    def _ended(self) -> None:
        self.gone = True
        self._on_end(self)


class WorkerSlot:
    """One worker's place."""

    def __init__(self, number: int, reactor: Any, start: Callable[["WorkerSlot"], WorkerProcess | None]) -> None:
        """:param start: gives a new worker for a place, or None where that cannot be now."""
        self.number = number
        self.worker: WorkerProcess | None = None
        #: How often a worker was replaced, and how often of that because it did not answer.
        self.restarts = 0
        self.unresponsive = 0
        self._reactor = reactor
        self._start = start
        self._backoff = Backoff(*DELAYS)
        self._again: Any = None

    def status(self) -> dict[str, Any]:
        """Give what /status shows."""
        return {
            "worker": self.number + 1,
            "restarts": self.restarts,
            "unresponsive_restarts": self.unresponsive,
            **({"pid": None} if self.worker is None else self.worker.status()),
        }

    def fill(self) -> None:
        """Have a worker here."""
        self._again = None
        self.worker = self._start(self)
        if self.worker is None:
            self._later(self._backoff.next_delay())

    def take(self, worker: WorkerProcess | None) -> None:
        """Have this one here, in place of the one before, who is somebody else's affair from now on."""
        if self._again is not None:
            self._again.cancel()
            self._again = None
        self.worker = worker

    def vacate(self) -> None:
        """Have none here any more."""
        self.take(None)

    def lost(self, worker: WorkerProcess) -> None:
        """Replace the worker that was here."""
        self.worker = None
        self.restarts += 1
        self.unresponsive += worker.unresponsive
        if worker.age >= GOOD:
            self._backoff.reset()
        first = self._backoff.failures == 0
        delay = self._backoff.next_delay()
        if first:
            log.warn("worker {number} (process {pid}) is gone: another takes its place",
                     number=self.number + 1, pid=worker.pid)  # fmt: skip
            self.fill()
            return
        if self._backoff.failures == 2:
            log.error("worker {number} does not last: others are tried at growing pauses of at most {limit:g} s",
                      number=self.number + 1, limit=DELAYS[1])  # fmt: skip
        self._later(delay)

    def _later(self, delay: float) -> None:
        self._again = self._reactor.callLater(delay, self.fill)
