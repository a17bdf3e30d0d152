"""A generation: the workers that one zygote forks, which all run the same settings, certificates and code.

When any of these change, a new generation is started next to the old one. Once all its workers are serving, it replaces
the old generation, which is then drained. A new generation that fails to start is abandoned, and the old one stays.
"""

import socket
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed

from livestate.workers.binder import Binder
from livestate.workers.document_feed import DocumentFeed
from livestate.workers.launcher import Launcher
from livestate.workers.setup import Setup
from livestate.workers.worker_process import WorkerProcess


class Generation:
    """A zygote and the workers that it has forked."""

    def __init__(
        self,
        reactor: Any,
        feeds: Sequence[DocumentFeed],
        on_worker_exit: Callable[["Generation", WorkerProcess], None],
        on_worker_ready: Callable[["Generation"], None],
        on_zygote_exit: Callable[["Generation"], None],
    ) -> None:
        """:param feeds: the documents that these workers serve.
        :param on_worker_exit: called when a worker is gone.
        :param on_worker_ready: called whenever a worker starts serving.
        :param on_zygote_exit: called when the zygote exits without having been stopped.
        """
        self._feeds = dict.fromkeys(feeds)
        self.workers: set[WorkerProcess] = set()
        #: Whether the zygote is still there to fork workers.
        self.can_fork = True
        self._reactor = reactor
        self._on_worker_exit = on_worker_exit
        self._on_worker_ready = on_worker_ready
        self._on_zygote_exit = on_zygote_exit
        self._binders: Sequence[Binder] = ()
        self._launcher = Launcher(reactor, self._zygote_exited)
        self._stopped: Deferred[None] | None = None

    def start(self, setup: Setup, binders: Sequence[Binder]) -> None:
        """Start the zygote.

        :param binders: have the listening sockets of the ports of `setup`, in the same order.
        """
        self._binders = binders
        self._launcher.start(setup)

    def fork(self, number: int) -> WorkerProcess | None:
        """Fork worker `number`, counted from 0; return None when the zygote cannot be asked."""
        ours, theirs = socket.socketpair()
        with theirs:
            if not self._launcher.fork(number, theirs, [binder.socket_for(number) for binder in self._binders]):
                ours.close()
                return None
        worker = WorkerProcess(self._reactor, number, self._worker_exited, lambda: self._on_worker_ready(self))
        self.workers.add(worker)
        worker.connect(ours, list(self._feeds))
        return worker

    def notify(self, feed: DocumentFeed) -> None:
        """Send a changed or confirmed document to all workers."""
        if feed in self._feeds:
            for worker in self.workers:
                worker.notify(feed)

    def drain(self, shutdown: bool) -> None:
        """Drain all workers.

        :param shutdown: whether all of livestate is stopping.
        """
        for worker in self.workers:
            worker.drain(shutdown)

    def kill(self) -> None:
        """Kill all workers."""
        for worker in list(self.workers):
            worker.kill()

    def stop(self) -> Deferred[None]:
        """Stop the zygote, which kills the remaining workers; fire once it has exited."""
        if not self.can_fork and self._stopped is None:
            return succeed(None)
        self.can_fork = False
        if self._stopped is None:
            self._stopped = self._launcher.stop()
        return self._stopped

    def kill_zygote(self) -> None:
        """Kill a zygote that forks no workers."""
        self._launcher.kill()

    def _worker_exited(self, worker: WorkerProcess) -> None:
        self.workers.discard(worker)
        self._on_worker_exit(self, worker)

    def _zygote_exited(self, launcher: Launcher) -> None:
        self.can_fork = False
        self._on_zygote_exit(self)
