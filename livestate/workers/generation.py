"""Workers of one make: those that one zygote forks.

When settings, certificates or the code change there is a new generation. Its first workers are begun beside the old
ones, and only when all of them serve do they take the places; then the old ones are drained. A new generation that does
not come to serve is given up, and the old one stays.
"""

import socket
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed

from livestate.workers.binder import Binder
from livestate.workers.feed import DocumentFeed
from livestate.workers.launcher import Launcher
from livestate.workers.setup import Setup
from livestate.workers.slot import WorkerProcess


class Generation:
    """A zygote and the workers that it has forked."""

    def __init__(
        self,
        reactor: Any,
        shipments: Sequence[DocumentFeed],
        on_lost: Callable[["Generation", WorkerProcess], None],
        on_ready: Callable[["Generation"], None],
        on_end: Callable[["Generation"], None],
    ) -> None:
        """:param shipments: the documents that these workers serve.
        :param on_lost: called when a worker is gone.
        :param on_ready: called each time that a worker begins to serve.
        :param on_end: called when the zygote has ended, without having been told to.
        """
        self.shipments = shipments
        self.workers: set[WorkerProcess] = set()
        #: Whether its zygote is there.
        self.fertile = True
        self._reactor = reactor
        self._on_lost = on_lost
        self._on_ready = on_ready
        self._on_end = on_end
        self._binders: Sequence[Binder] = ()
        self._launcher = Launcher(reactor, self._ended)
        self._stopped: Deferred[None] | None = None

    def start(self, setup: Setup, binders: Sequence[Binder]) -> None:
        """Start the zygote.

        :param binders: what has the listening sockets of the ports of `setup`.
        """
        self._binders = binders
        self._launcher.start(setup)

    def fork(self, number: int) -> WorkerProcess | None:
        """Give a new worker, or None where that cannot be."""
        ours, theirs = socket.socketpair()
        with theirs:
            if not self._launcher.fork(number, theirs, [binder.of(number) for binder in self._binders]):
                ours.close()
                return None
        worker = WorkerProcess(self._reactor, number, self._lost, lambda: self._on_ready(self))
        self.workers.add(worker)
        worker.connect(ours, self.shipments)
        return worker

    def tell(self, shipment: DocumentFeed) -> None:
        """Tell all workers of a document's news."""
        if shipment in self.shipments:
            for worker in self.workers:
                worker.tell(shipment)

    def drain(self, ending: bool) -> None:
        """Have all workers come to their end.

        :param ending: whether all of livestate does.
        """
        for worker in self.workers:
            worker.drain(ending)

    def kill(self) -> None:
        """End all workers at once."""
        for worker in list(self.workers):
            worker.kill()

    def stop(self) -> Deferred[None]:
        """End the zygote, and what workers there still are; done when that is gone."""
        if not self.fertile and self._stopped is None:
            return succeed(None)
        self.fertile = False
        if self._stopped is None:
            self._stopped = self._launcher.stop()
        return self._stopped

    def stillborn(self) -> None:
        """End a zygote that forks nothing."""
        self._launcher.kill()

    def _lost(self, worker: WorkerProcess) -> None:
        self.workers.discard(worker)
        self._on_lost(self, worker)

    def _ended(self, launcher: Launcher) -> None:
        self.fertile = False
        self._on_end(self)
