"""The supervisor's part of livestate: workers in their places, and news for all of them."""

import socket
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from livestate.errors import SettingsError
from livestate.listen import Listener
from livestate.settings import Settings
from livestate.web.counts import Counts, total
from livestate.web.live import Supply
from livestate.workers.binder import Binder, Placeholder
from livestate.workers.feed import Shipment
from livestate.workers.launcher import Launcher
from livestate.workers.messages import Reopen
from livestate.workers.place import Place, WorkerProcess
from livestate.workers.setup import Port, Setup

#: Seconds between two looks at the workers.
BEAT = 1.0

#: Seconds until workers that were told to end are killed.
PATIENCE = 12.0


class Supervisor(MultiService):
    """Has workers serve the documents."""

    log = Logger()

    def __init__(self, reactor: Any, settings: Settings, supplies: Sequence[Supply]) -> None:
        """Understand what is to be listened on.

        :param supplies: what keeps the documents of `settings` up to date, in the same order.
        :raises SettingsError: that cannot be, or not here.
        """
        super().__init__()
        if sys.platform != "linux":
            raise SettingsError("--workers needs Linux")
        self._reactor = reactor
        self._settings = settings
        self._shipments = [Shipment(supply.document) for supply in supplies]
        self._binders = []
        listeners = [*(("--http", text) for text in settings.http), *(("--https", text) for text in settings.https)]
        for option, text in listeners:
            Binder.check(option, text)
            binder = Binder(reactor, settings.workers)
            Listener(binder, option, text, Placeholder()).setServiceParent(self)
            self._binders.append(binder)
        self._launcher: Launcher | None = None
        self._places = [Place(number, reactor, self._start_worker) for number in range(settings.workers)]
        #: Those that are coming to their end, and what is called when the last of all is gone.
        self._leaving: set[WorkerProcess] = set()
        self._emptied: Deferred[None] | None = None
        self._past = Counts()
        self._beat = LoopingCall(self._look)
        self._beat.clock = reactor

    def startService(self) -> None:
        """Start the workers."""
        super().startService()
        for shipment in self._shipments:
            shipment.document.subscribe(lambda _, shipment=shipment: self._tell(shipment))  # type: ignore[misc]
            shipment.document.on_confirmed = partial(self._tell, shipment)
        self._launch()
        for place in self._places:
            place.fill()
        self._beat.start(BEAT, now=False)

    def stopService(self) -> Deferred[None]:
        """End: nobody is accepted any more, and the workers come to their end, which is waited for."""
        # First, so that a worker that closes its own closes the last.
        closed = super().stopService()
        for place in self._places:
            worker = place.vacate()
            if worker is not None:
                self._leaving.add(worker)
                worker.drain()
        self._emptied = Deferred()
        late = self._reactor.callLater(PATIENCE, self._kill_leaving)
        if not self._leaving:
            self._emptied.callback(None)
        done = self._emptied.addCallback(lambda _: self._end(late))
        return gatherResults([d for d in (closed, done) if d is not None]).addCallback(lambda _: None)

    def counts(self) -> Counts:
        """Give what all workers have counted, those that are gone included."""
        return total([self._past, *(worker.counts for worker in self._all())])

    def status(self) -> list[Mapping[str, Any]]:
        """Tell of each worker."""
        return [
            {
                "worker": place.number + 1,
                "pid": place.worker.pid if place.worker is not None else None,
                "restarts": place.restarts,
                "uptime_seconds": place.worker.age if place.worker is not None else 0,
                "silent_seconds": place.worker.silence if place.worker is not None else None,
                "connections": counts.connections,
                "answers": sum(sum(document.answers.values()) for document in counts.documents.values()),
                "event_readers": sum(document.event_readers for document in counts.documents.values()),
                "long_polls": sum(document.long_polls for document in counts.documents.values()),
            }
            for place in self._places
            for counts in [place.worker.counts if place.worker is not None else Counts()]
        ]

    def reopen_logs(self) -> None:
        """Have all workers open their access log anew."""
        for worker in self._all():
            worker.pipe.send(Reopen())

    def _all(self) -> Iterable[WorkerProcess]:
        yield from (place.worker for place in self._places if place.worker is not None)
        yield from self._leaving

    def _tell(self, shipment: Shipment) -> None:
        for worker in self._all():
            worker.tell(shipment)

    def _launch(self) -> None:
        sockets = [binder.sockets for binder in self._binders]
        ports = [
            Port(binder.sockets[0].family, None if binder.options is None else binder.options.pem(), [])
            for binder in self._binders
        ]
        self._launcher = Launcher(self._reactor, self._launcher_lost)
        self._launcher.start(Setup(self._settings, type(self._reactor).__module__, ports), sockets)

    def _launcher_lost(self, launcher: Launcher) -> None:
        if self.running and launcher is self._launcher:
            self._launch()

    def _start_worker(self, place: Place) -> WorkerProcess | None:
        ours, theirs = socket.socketpair()
        with theirs:
            if self._launcher is None or not self._launcher.fork(place.number, theirs):
                ours.close()
                return None
        worker = WorkerProcess(self._reactor, place.number, partial(self._lost, place))
        worker.connect(ours, self._shipments)
        return worker

    def _lost(self, place: Place, worker: WorkerProcess) -> None:
        self._past = total([self._past, worker.counts.past()])
        if worker is place.worker:
            place.lost(worker)
            return
        self._leaving.discard(worker)
        if not self._leaving and self._emptied is not None and not self._emptied.called:
            self._emptied.callback(None)

    def _look(self) -> None:
        for place in self._places:
            worker = place.worker
            place.beat()
            if worker is not None and worker.gone and worker.pid is None and self._launcher is not None:
                # It was never born.
                self._launcher.kill()

    def _kill_leaving(self) -> None:
        for worker in list(self._leaving):
            worker.kill()

    def _end(self, late: Any) -> Deferred[None] | None:
        if late.active():
            late.cancel()
        if self._beat.running:
            self._beat.stop()
        return self._launcher.stop() if self._launcher is not None else None
