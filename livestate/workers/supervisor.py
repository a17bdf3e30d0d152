"""The supervisor's part of livestate: places, the generation of workers that fills them, and news for all."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from livestate.backoff import Backoff
from livestate.certificate import Certificate
from livestate.errors import SettingsError
from livestate.listen import Listener, Listeners
from livestate.settings import Settings
from livestate.web.counts import Counts, total
from livestate.web.live import Supply
from livestate.workers.binder import Binder, Placeholder
from livestate.workers.feed import Shipment
from livestate.workers.generation import Generation
from livestate.workers.messages import Reopen
from livestate.workers.place import STARTING, Place, WorkerProcess
from livestate.workers.setup import Port, Setup

#: Seconds between two looks at the workers.
BEAT = 1.0

#: Beats until workers that were told to end are killed: more than a drain takes.
PATIENCE = 12

#: Seconds of the delays before a new generation is tried in place of one whose zygote has ended.
DELAYS = 0.1, 5.0


class BoundListener(Listener):
    """A Listener that binds for workers, and what it has bound."""

    def __init__(self, reactor: Any, workers: int, option: str, description: str) -> None:
        """:raises SettingsError: workers cannot serve that."""
        Binder.check(option, description)
        self.binder = Binder(reactor, workers)
        super().__init__(self.binder, option, description, Placeholder())

    def as_port(self) -> Port:
        """Tell a zygote what this is."""
        return Port(None if self.certificate is None else self.certificate.options.pem())


class Supervisor(MultiService):
    """Has workers serve the documents."""

    log = Logger()

    def __init__(self, reactor: Any, settings: Settings, supplies: Iterable[Supply]) -> None:
        """Understand what is to be listened on.

        :param supplies: what keeps the documents of `settings` up to date, in the same order.
        :raises SettingsError: that cannot be, or not here.
        """
        super().__init__()
        if sys.platform != "linux":
            raise SettingsError("--workers needs Linux")
        self._reactor = reactor
        self._settings = settings
        self._shipments: dict[Shipment, Callable[[], None]] = {}
        self._ship(supplies)
        self._listeners = Listeners(partial(BoundListener, reactor, settings.workers))
        self._listeners.change(self._listeners.prepare(settings))
        self._listeners.setServiceParent(self)
        self._places = [Place(number, reactor, self._fill) for number in range(settings.workers)]
        self._generation: Generation | None = None
        #: The one that is on its way to the places, with its first workers and the beats it has had.
        self._next: tuple[Generation, list[WorkerProcess | None]] | None = None
        self._waited = 0
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
        for place in self._places:
            place.fill()
        self._beat.start(BEAT, now=False)

    # What the service asks for

    def certificates(self) -> Sequence[Certificate]:
        """Give those that are served."""
        return self._listeners.certificates()

    def certificates_changed(self) -> None:
        """Serve those that were loaded anew: in a new generation, whose workers share the keys of session tickets."""
        self._replace()

    def renew(self) -> None:
        """Have workers with the code that is on disk."""
        self.log.info("workers with the code that is on disk are started")
        self._replace()

    def change(self, settings: Settings, supplies: Iterable[Supply]) -> None:
        """Serve what `settings` say from now on.

        :raises SettingsError: that cannot be; nothing has changed.
        """
        self._listeners.change(self._listeners.prepare(settings))
        self._settings = settings
        self._ship(supplies)
        self._replace()

    def reopened(self) -> None:
        """Have all workers open their access log anew."""
        for worker in self._workers():
            worker.send(Reopen())

    def drain(self) -> Deferred[None]:
        """Accept nobody any more, and have all workers come to their end."""
        # First, so that what a worker closes is the last of it.
        self._listeners.close()
        self._give_up_next()
        for place in self._places:
            place.vacate()
        if self._generation is not None:
            self._dismiss(self._generation, ending=True)
            self._generation = None
        self._emptied = Deferred()
        self._look_whether_empty()
        return self._emptied

    def hurry(self) -> None:
        """Have them come to it at once."""
        for generation in list(self._leaving):
            generation.kill()

    def serving(self) -> bool:
        """Tell whether there is a worker that serves in each place."""
        return all(place.worker is not None and place.worker.ready for place in self._places)

    def counts(self) -> Counts:
        """Give what all workers have counted, those that are gone included."""
        return total([self._past, *(worker.counts for worker in self._workers())])

    def workers(self) -> Sequence[Mapping[str, Any]]:
        """Tell of each worker, and of those that are being drained."""
        placed = [(place.number, place.restarts, place.worker) for place in self._places]
        leaving = [(worker.number, None, worker) for generation in self._leaving for worker in generation.workers]
        return [
            {"worker": number + 1, "restarts": restarts, **({"pid": None} if worker is None else worker.status())}
            for number, restarts, worker in placed
        ] + [{"worker": number + 1, "draining": True, **worker.status()} for number, _, worker in leaving]

    # Documents

    def _ship(self, supplies: Iterable[Supply]) -> None:
        """Tell workers of these documents from now on."""
        there = {shipment.document: shipment for shipment in self._shipments}
        wanted = [supply.document for supply in supplies]
        for shipment, end in list(self._shipments.items()):
            if shipment.document not in wanted:
                end()
                del self._shipments[shipment]
        ordered = {}
        for document in wanted:
            shipment = there.get(document) or Shipment(document)
            tell = partial(self._tell, shipment)
            end = self._shipments.get(shipment) or document.subscribe(lambda _, tell=tell: tell())  # type: ignore[misc]
            document.on_confirmed = tell
            ordered[shipment] = end
        self._shipments = ordered

    def _tell(self, shipment: Shipment) -> None:
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
        generation = Generation(self._reactor, list(self._shipments), self._lost, self._ready, self._zygote_ended)
        generation.start(setup, [listener.binder for listener in listeners])
        return generation

    def _replace(self) -> None:
        """Have a new generation take the places, when it serves."""
        if not self.running or self._emptied is not None:
            return
        self._give_up_next()
        generation = self._begin()
        self._waited = 0
        self._next = generation, []
        self._next[1].extend(generation.fork(place.number) for place in self._places)

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
        for place, worker in zip(self._places, workers, strict=True):
            place.take(worker)
        if before is not None:
            self._dismiss(before)
        self.log.info("new workers have taken the places of those before, which let their readers go")

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

    def _refuse_next(self) -> None:
        self.log.error("new workers do not come to serve: those that are there stay")
        self._give_up_next()
        if self._generation is not None and not self._generation.fertile:
            self._reactor.callLater(self._backoff.next_delay(), self._replace)

    # Workers

    def _fill(self, place: Place) -> WorkerProcess | None:
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
        if self._next is not None:
            self._waited += 1
            if self._waited >= STARTING:
                self._refuse_next()
        for generation in list(self._leaving):
            self._leaving[generation] += 1
            if self._leaving[generation] >= PATIENCE:
                generation.kill()
