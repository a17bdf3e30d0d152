"""The supervisor's part of livestate: places, the generation of workers that fills them, and news for all."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from livestate.config.settings import Settings
from livestate.errors import SettingsError
from livestate.listeners.listeners import Listeners
from livestate.system.backoff import Backoff
from livestate.tls.certificate import Certificate
from livestate.web.counts import Counts, total
from livestate.web.resources.readiness import ServedDocument
from livestate.workers.binder import BoundListener
from livestate.workers.document_feeds import DocumentFeeds
from livestate.workers.feed import DocumentFeed
from livestate.workers.generation import Generation
from livestate.workers.messages import Reopen
from livestate.workers.setup import Setup
from livestate.workers.slot import STARTING, WorkerProcess, WorkerSlot
from livestate.workers.slots import WorkerSlots

#: Seconds between two looks at the workers.
BEAT = 1.0

#: Beats until workers that were told to end are killed: more than a drain takes.
PATIENCE = 12

_REFUSED = "new workers did not come to serve, those before stay"

#: Seconds of the delays before a new generation is tried in place of one whose zygote has ended.
DELAYS = 0.1, 5.0


class Supervisor(MultiService):
    """Has workers serve the documents."""

    log = Logger()

    def __init__(self, reactor: Any, settings: Settings, supplies: Iterable[ServedDocument]) -> None:
        """Understand what is to be listened on.

        :param supplies: what keeps the documents of `settings` up to date, in the same order.
        :raises SettingsError: that cannot be, or not here.
        """
        super().__init__()
        if sys.platform != "linux":
            raise SettingsError("--workers needs Linux")
        self._reactor = reactor
        self._settings = settings
        self._shipments = DocumentFeeds(self._tell)
        self._shipments.change(supplies)
        self._listeners = Listeners(partial(BoundListener, reactor, settings.workers))
        self._listeners.change(self._listeners.prepare(settings))
        self._listeners.setServiceParent(self)
        self._places = WorkerSlots(settings.workers, reactor, self._fill)
        self._generation: Generation | None = None
        #: The one that is on its way to the places, with its first workers and the beats it has had.
        self._next: tuple[Generation, list[WorkerProcess | None]] | None = None
        self._waited = 0
        #: Those who wait for what becomes of it; and whether nothing did, so that old settings or code serve on.
        self._waiting: list[Deferred[None]] = []
        self._refused = False
        #: Those whose workers are coming to their end, with the beats it has taken.
        self._leaving: dict[Generation, int] = {}
        self._emptied: Deferred[None] | None = None
        self._backoff = Backoff(*DELAYS)
        self._past = Counts()
        self._beat = LoopingCall(self._look)
        self._beat.clock = reactor

    def startService(self) -> None:
        """Start the workers."""
        super().startService()
        self._generation = self._begin()
        self._places.fill()
        self._beat.start(BEAT, now=False)

    # What the service asks for

    def certificates(self) -> Sequence[Certificate]:
        """Give those that are served."""
        return self._listeners.certificates()

    def certificates_changed(self) -> Deferred[None]:
        """Serve those that were loaded anew: in a new generation, whose workers share the keys of session tickets."""
        return self._replace()

    def renew(self) -> Deferred[None]:
        """Have workers with the code that is on disk."""
        self.log.info("workers with the code that is on disk are started")
        return self._replace()

    def change(self, settings: Settings, supplies: Iterable[ServedDocument]) -> Deferred[None]:
        """Serve what `settings` say from now on.

        :raises SettingsError: that cannot be; nothing has changed.
        """
        self._listeners.change(self._listeners.prepare(settings))
        self._settings = settings
        self._shipments.change(supplies)
        return self._replace()

    def reopen_logs(self) -> None:
        """Have all workers open their access log anew."""
        for worker in self._workers():
            worker.send(Reopen())

    def drain(self) -> Deferred[None]:
        """Accept nobody any more, and have all workers come to their end."""
        # First, so that what a worker closes is the last of it.
        self._listeners.close()
        self._give_up_next()
        self._places.vacate()
        if self._generation is not None:
            self._dismiss(self._generation, ending=True)
            self._generation = None
        self._settle(refused=False)
        self._emptied = Deferred()
        self._look_whether_empty()
        return self._emptied

    def abort_remaining(self) -> None:
        """Have them come to it at once."""
        for generation in list(self._leaving):
            generation.kill()

    def serving(self) -> bool:
        """Tell whether there is a worker that serves in each place."""
        return self._places.serving()

    def outdated(self) -> bool:
        """Tell whether those who serve are not made as they were last to be."""
        return self._refused

    def trouble(self) -> str:
        """Say what is wrong with the workers; "" if nothing is."""
        return self._places.trouble() or (_REFUSED if self._refused else "")

    def counts(self) -> Counts:
        """Give what all workers have counted, those that are gone included."""
        return total([self._past, *(worker.counts for worker in self._workers())])

    def workers(self) -> Sequence[Mapping[str, Any]]:
        """Tell of each worker, and of those that are being drained."""
        leaving = [worker for generation in self._leaving for worker in generation.workers]
        return [
            *(place.status() for place in self._places),
            *({"worker": worker.number + 1, "draining": True, **worker.status()} for worker in leaving),
        ]

    # Documents

    def _tell(self, shipment: DocumentFeed) -> None:
        for generation in self._generations():
            generation.tell(shipment)

    # Generations

    def _generations(self) -> Iterable[Generation]:
        if self._generation is not None:
            yield self._generation
        if self._next is not None:
            yield self._next[0]
        yield from self._leaving

    def _workers(self) -> Iterable[WorkerProcess]:
        return [worker for generation in self._generations() for worker in generation.workers]

    def _begin(self) -> Generation:
        """Start a generation that is made as things are now."""
        listeners: list[Any] = self._listeners.all()
        setup = Setup(self._settings, type(self._reactor).__module__, [listener.as_port() for listener in listeners])
        generation = Generation(self._reactor, self._shipments.all(), self._lost, self._ready, self._zygote_ended)
        generation.start(setup, [listener.binder for listener in listeners])
        return generation

    def _replace(self) -> Deferred[None]:
        """Have a new generation take the places; done when it serves there, or is given up."""
        if not self.running or self._emptied is not None:
            return succeed(None)
        self._give_up_next()
        done: Deferred[None] = Deferred()
        self._waiting.append(done)
        generation = self._begin()
        self._waited = 0
        self._next = generation, []
        self._next[1].extend(generation.fork(place.number) for place in self._places)
        return done

    def _give_up_next(self) -> None:
        if self._next is not None:
            generation, _ = self._next
            self._next = None
            self._dismiss(generation)

    def _ready(self, generation: Generation) -> None:
        """See whether the next generation serves, all of it."""
        self._backoff.reset()
        if self._next is None or generation is not self._next[0]:
            return
        workers = self._next[1]
        if len(workers) < len(self._places) or not all(worker is not None and worker.ready for worker in workers):
            return
        self._next = None
        before, self._generation = self._generation, generation
        self._places.take(workers)
        if before is not None:
            self._dismiss(before)
        self.log.info("new workers have taken the places of those before, which let their readers go")
        self._settle(refused=False)

    def _dismiss(self, generation: Generation, ending: bool = False) -> None:
        self._leaving[generation] = 0
        generation.drain(ending)
        self._bury(generation)

    def _bury(self, generation: Generation) -> None:
        """End a generation that has no workers any more."""
        if not generation.workers and generation in self._leaving:
            generation.stop().addCallback(lambda _: self._buried(generation))

    def _buried(self, generation: Generation) -> None:
        self._leaving.pop(generation, None)
        self._look_whether_empty()

    def _look_whether_empty(self) -> None:
        if self._emptied is not None and not self._leaving and not self._emptied.called:
            self._beat.stop()
            self._emptied.callback(None)

    def _zygote_ended(self, generation: Generation) -> None:
        if self._next is not None and generation is self._next[0]:
            self._refuse_next()
        elif generation is self._generation and self._next is None:
            self._reactor.callLater(self._backoff.next_delay(), self._replace)

    def _settle(self, refused: bool) -> None:
        """Tell those who wait that there is no next generation any more."""
        self._refused = refused
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done.callback(None)

    def _refuse_next(self) -> None:
        self.log.error("new workers do not come to serve: those that are there stay")
        self._give_up_next()
        self._settle(refused=True)
        if self._generation is not None and not self._generation.fertile:
            self._reactor.callLater(self._backoff.next_delay(), self._replace)

    # Workers

    def _fill(self, place: WorkerSlot) -> WorkerProcess | None:
        return None if self._generation is None else self._generation.fork(place.number)

    def _lost(self, generation: Generation, worker: WorkerProcess) -> None:
        self._past = total([self._past, worker.counts.past()])
        if self._next is not None and generation is self._next[0]:
            self._refuse_next()
            return
        if worker.pid is None and worker.age >= STARTING:
            generation.stillborn()
        place = self._places[worker.number]
        if worker is place.worker:
            place.lost(worker)
        self._bury(generation)

    def _look(self) -> None:
        for worker in self._workers():
            worker.beat()
        if self._emptied is None:
            self._places.beat()
        if self._next is not None:
            self._waited += 1
            if self._waited >= STARTING:
                self._refuse_next()
        for generation in list(self._leaving):
            self._leaving[generation] += 1
            if self._leaving[generation] >= PATIENCE:
                generation.kill()
