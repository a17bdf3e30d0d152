"""The supervisor: the worker slots, the generation of workers that fills them, and the documents they are sent."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from livestate.config.settings import Settings
from livestate.documents.confirmation import Confirmation
from livestate.errors import SettingsError
from livestate.listeners.listeners import Listeners
from livestate.system.backoff import Backoff
from livestate.system.periodic import PeriodicTask
from livestate.tls.certificate import Certificate
from livestate.web.counts import Counts, total
from livestate.web.resources.readiness import ServedDocument
from livestate.workers.binder import BoundListener
from livestate.workers.document_feed import DocumentFeed
from livestate.workers.document_feeds import DocumentFeeds
from livestate.workers.generation import Generation
from livestate.workers.messages import AllConfirmed, Reopen
from livestate.workers.setup import Setup
from livestate.workers.slot import WorkerSlot
from livestate.workers.slots import WorkerSlots
from livestate.workers.worker_process import MAX_STARTUP, WorkerProcess

#: Seconds between two checks of the workers. The limits below and in the other modules count these ticks as seconds.
TICK = 1.0

#: Seconds until workers that were told to drain are killed: longer than a drain takes.
DRAIN_TIMEOUT = 12

#: Seconds: the first and the longest delay before a generation is replaced because its zygote exited.
RESTART_DELAYS = 0.1, 5.0

_OUTDATED = "new workers failed to start, the previous ones are still serving"


class Supervisor(MultiService):
    """Serves the documents through workers."""

    log = Logger()

    def __init__(self, reactor: Any, settings: Settings, served: Iterable[ServedDocument]) -> None:
        """Prepare the listeners; no worker is started yet.

        :param served: what keeps each document of `settings` up to date, in the same order.
        :raises SettingsError: when this platform has no workers, or a listener cannot be used.
        """
        super().__init__()
        if sys.platform != "linux":
            raise SettingsError("--workers needs Linux")
        self._reactor = reactor
        self._settings = settings
        self._feeds = DocumentFeeds(self._notify, self._notify_all)
        self._feeds.change(served)
        self._listeners = Listeners(partial(BoundListener, reactor, settings.workers))
        self._listeners.change(self._listeners.prepare(settings))
        self._listeners.setServiceParent(self)
        self._slots = WorkerSlots(settings.workers, reactor, self._fork_for)
        self._generation: Generation | None = None
        #: The generation that is starting, with its first workers.
        self._next: tuple[Generation, list[WorkerProcess | None]] | None = None
        #: Seconds since its start.
        self._next_age = 0
        #: Fired when the next generation is serving, or was abandoned.
        self._waiting: list[Deferred[None]] = []
        #: Whether the last one was abandoned, so that the workers still run old settings, certificates or code.
        self._outdated = False
        #: The generations whose workers are draining, with the seconds since they were told to.
        self._draining: dict[Generation, int] = {}
        #: Fired when all workers and zygotes are gone; None until the shutdown.
        self._drained: Deferred[None] | None = None
        self._backoff = Backoff(*RESTART_DELAYS)
        #: The counters of workers that are gone.
        self._past = Counts()
        self._ticks = PeriodicTask(reactor, self._tick, "supervising the workers")

    def startService(self) -> None:
        """Start the workers."""
        super().startService()
        self._generation = self._start_generation()
        self._slots.fill()
        self._ticks.start(TICK, now=False)

    # The Server interface of `livestate.service`

    def certificates(self) -> Sequence[Certificate]:
        """Return the certificates that are served."""
        return self._listeners.certificates()

    def certificates_changed(self) -> Deferred[None]:
        """Serve the reloaded certificates, in a new generation, whose workers share the keys of session tickets."""
        return self._replace()

    def renew(self) -> Deferred[None]:
        """Replace the workers by new ones that run the code on disk."""
        self.log.info("starting new workers with the code on disk")
        return self._replace()

    def change(self, settings: Settings, served: Iterable[ServedDocument]) -> Deferred[None]:
        """Serve what `settings` say from now on.

        :param served: as in the constructor.
        :raises SettingsError: when a listener cannot be used; nothing has changed.
        """
        self._listeners.change(self._listeners.prepare(settings))
        self._settings = settings
        self._feeds.change(served)
        return self._replace()

    def reopen_logs(self) -> None:
        """Tell all workers to reopen their access log."""
        for worker in self._workers():
            worker.send(Reopen())

    def drain(self) -> Deferred[None]:
        """Stop accepting connections, and drain all workers; fire once they are gone."""
        # First, so that each worker is the last process to close its socket.
        self._listeners.close()
        self._abandon_next()
        self._slots.clear()
        if self._generation is not None:
            self._retire(self._generation, shutdown=True)
            self._generation = None
        self._replacement_done(outdated=False)
        self._drained = Deferred()
        self._check_drained()
        return self._drained

    def abort_remaining(self) -> None:
        """Kill the workers that are still draining."""
        for generation in list(self._draining):
            generation.kill()

    def serving(self) -> bool:
        """Return whether each slot has a worker that is serving."""
        return self._slots.serving()

    def outdated(self) -> bool:
        """Return whether the workers run older settings, certificates or code than they were last asked to."""
        return self._outdated

    def trouble(self) -> str:
        """Return what is wrong with the workers, as a short text; "" if nothing is."""
        return self._slots.trouble() or (_OUTDATED if self._outdated else "")

    def counts(self) -> Counts:
        """Return the sum of the counters of all workers, including those that are gone."""
        return total([self._past, *(worker.counts for worker in self._workers())])

    def connections(self) -> int:
        """Return the number of open connections of all workers."""
        return sum(worker.counts.connections for worker in self._workers())

    def workers(self) -> Sequence[Mapping[str, Any]]:
        """Return the status of each slot, and of each worker that is draining."""
        draining = [worker for generation in self._draining for worker in generation.workers]
        return [
            *(slot.status() for slot in self._slots),
            *({"worker": worker.number + 1, "draining": True, **worker.status()} for worker in draining),
        ]

    # Documents

    def _notify_all(self, confirmation: Confirmation) -> None:
        for worker in self._workers():
            worker.send(AllConfirmed(confirmation.number, confirmation.at))

    def _notify(self, feed: DocumentFeed) -> None:
        for generation in self._generations():
            generation.notify(feed)

    # Generations

    def _generations(self) -> Iterable[Generation]:
        if self._generation is not None:
            yield self._generation
        if self._next is not None:
            yield self._next[0]
        yield from self._draining

    def _workers(self) -> Iterable[WorkerProcess]:
        return [worker for generation in self._generations() for worker in generation.workers]

    def _start_generation(self) -> Generation:
        """Start a generation with the current settings, certificates and documents."""
        listeners: list[Any] = self._listeners.all()
        setup = Setup(self._settings, type(self._reactor).__module__, [listener.as_port() for listener in listeners])
        generation = Generation(
            self._reactor, self._feeds.all(), self._worker_exited, self._worker_ready, self._zygote_exited
        )
        generation.start(setup, [listener.binder for listener in listeners])
        return generation

    def _replace(self) -> Deferred[None]:
        """Start a generation that replaces the current one; fire when it is serving, or was abandoned."""
        if not self.running or self._drained is not None:
            return succeed(None)
        self._abandon_next()
        done: Deferred[None] = Deferred()
        self._waiting.append(done)
        generation = self._start_generation()
        self._next_age = 0
        self._next = generation, []
        self._next[1].extend(generation.fork(slot.number) for slot in self._slots)
        return done

    def _abandon_next(self) -> None:
        if self._next is not None:
            generation, _ = self._next
            self._next = None
            self._retire(generation)

    def _worker_ready(self, generation: Generation) -> None:
        """Switch to the next generation once all of its workers are serving."""
        self._backoff.reset()
        if self._next is None or generation is not self._next[0]:
            return
        workers = self._next[1]
        if len(workers) < len(self._slots) or not all(worker is not None and worker.ready for worker in workers):
            return
        self._next = None
        previous, self._generation = self._generation, generation
        self._slots.assign(workers)
        if previous is not None:
            self._retire(previous)
        self.log.info("new workers are serving; draining the previous ones")
        self._replacement_done(outdated=False)

    def _retire(self, generation: Generation, shutdown: bool = False) -> None:
        self._draining[generation] = 0
        generation.drain(shutdown)
        self._stop_if_empty(generation)

    def _stop_if_empty(self, generation: Generation) -> None:
        """Stop a draining generation that has no workers left."""
        if not generation.workers and generation in self._draining:
            generation.stop().addCallback(lambda _: self._generation_stopped(generation))

    def _generation_stopped(self, generation: Generation) -> None:
        self._draining.pop(generation, None)
        self._check_drained()

    def _check_drained(self) -> None:
        if self._drained is not None and not self._draining and not self._drained.called:
            self._ticks.stop()
            self._drained.callback(None)

    def _zygote_exited(self, generation: Generation) -> None:
        if self._next is not None and generation is self._next[0]:
            self._next_failed()
        elif generation is self._generation and self._next is None:
            self._reactor.callLater(self._backoff.next_delay(), self._replace)

    def _replacement_done(self, outdated: bool) -> None:
        """Fire all that wait for the next generation, which is serving or was abandoned."""
        self._outdated = outdated
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done.callback(None)

    def _next_failed(self) -> None:
        self.log.error("new workers failed to start; keeping the current ones (see the errors above)")
        self._abandon_next()
        self._replacement_done(outdated=True)
        if self._generation is not None and not self._generation.can_fork:
            self._reactor.callLater(self._backoff.next_delay(), self._replace)

    # Workers

    def _fork_for(self, slot: WorkerSlot) -> WorkerProcess | None:
        return None if self._generation is None else self._generation.fork(slot.number)

    def _worker_exited(self, generation: Generation, worker: WorkerProcess) -> None:
        self._past = total([self._past, worker.counts.past()])
        if self._next is not None and generation is self._next[0]:
            self._next_failed()
            return
        if worker.pid is None and worker.age >= MAX_STARTUP:
            generation.kill_zygote()
        slot = self._slots[worker.number]
        if worker is slot.worker:
            slot.worker_exited(worker)
        self._stop_if_empty(generation)

    def _tick(self) -> None:
        for worker in self._workers():
            worker.tick()
        if self._drained is None:
            self._slots.tick()
        if self._next is not None:
            self._next_age += 1
            if self._next_age >= MAX_STARTUP:
                self._next_failed()
        for generation in list(self._draining):
            self._draining[generation] += 1
            if self._draining[generation] >= DRAIN_TIMEOUT:
                generation.kill()
