"""One worker process, as the supervisor sees it."""

import contextlib
import os
import signal
import socket
from collections.abc import Callable, Sequence
from typing import Any

from twisted.logger import Logger, LogLevel

from livestate.web.counts import Counts
from livestate.workers.document_feed import DocumentFeed
from livestate.workers.messages import (
    Alive,
    Drain,
    FromWorker,
    Hello,
    LogEntry,
    Ready,
    Serve,
    ToWorker,
    supervisor_decoder,
)
from livestate.workers.pipe import Pipe
from livestate.workers.worker_feed import WorkerFeed

#: Seconds without a heartbeat after which a worker is killed. A heartbeat comes every second; the longest that a worker
#: is busy with one thing, the arrival of a 16 MB document, is some tenths of a second.
MAX_SILENCE = 5

#: Seconds that a worker may take until its first message: a busy machine may have to start an interpreter first.
MAX_STARTUP = 30


class WorkerProcess:
    """One worker: its state, and the messages to and from it."""

    log = Logger()

    def __init__(
        self, reactor: Any, number: int, on_exit: Callable[["WorkerProcess"], None], on_ready: Callable[[], None]
    ) -> None:
        """:param on_exit: called when the worker is gone.
        :param on_ready: called when it starts serving.
        """
        self.number = number
        #: None until it has said hello.
        self.pid: int | None = None
        self.counts = Counts()
        #: Whether it is serving.
        self.ready = False
        #: Seconds since it was forked, and since its last message.
        self.age = 0
        self.silence = 0
        self.gone = False
        #: Whether it was killed because it did not respond.
        self.unresponsive = False
        self._reactor = reactor
        self._on_exit = on_exit
        self._on_ready = on_ready
        self.pipe = Pipe(supervisor_decoder(), self._message_received, self._pipe_closed)
        self._worker_feed: WorkerFeed | None = None

    def connect(self, sock: socket.socket, feeds: Sequence[DocumentFeed]) -> None:
        """Send the current documents through `sock`, and tell the worker to serve."""
        self.pipe.connect(self._reactor, sock)
        self._worker_feed = WorkerFeed(self.pipe, feeds)
        self.pipe.send(Serve())

    def notify(self, feed: DocumentFeed) -> None:
        """Send a changed or confirmed document."""
        if self._worker_feed is not None and not self.gone:
            self._worker_feed.notify(feed)

    def drain(self, shutdown: bool) -> None:
        """Tell the worker to close its connections and exit.

        :param shutdown: whether all of livestate is stopping.
        """
        self.send(Drain(shutdown))

    def send(self, message: ToWorker) -> None:
        """Send a message, unless the worker is gone."""
        if not self.gone:
            self.pipe.send(message)

    def status(self) -> dict[str, Any]:
        """Return what /status shows of it."""
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

    def tick(self) -> None:
        """Count a second, and kill the worker if it has been silent for too long."""
        self.age += 1
        self.silence += 1
        if self.silence >= (MAX_SILENCE if self.pid is not None else MAX_STARTUP):
            self.log.error(
                "worker {number} (process {pid}) is not responding; killing it", number=self.number + 1, pid=self.pid
            )
            self.unresponsive = True
            self.kill()

    def kill(self) -> None:
        """Kill the process and close the pipe."""
        # The process may have exited without the end of its pipe having been seen yet. In so short a time, no other
        # process gets its id.
        if self.pid is not None and not self.gone:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        self.pipe.close()

    def _message_received(self, message: FromWorker) -> None:
        self.silence = 0
        match message:
            case Hello(pid):
                self.pid = pid
            case Ready():
                self.ready = True
                self._on_ready()
            case Alive(counts):
                known = self.counts.documents
                known.update(counts.documents)
                counts.documents = known
                self.counts = counts
            case LogEntry(level, text):
                self.log.emit(LogLevel.lookupByName(level), "worker {number}: {text}",
                              number=self.number + 1, text=text)  # fmt: skip

    def _pipe_closed(self) -> None:
        self.gone = True
        self._on_exit(self)
